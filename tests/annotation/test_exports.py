"""Exports that cannot be written leave nothing behind."""

import pathlib

import projects
import pytest

from rahf.annotation import answering, exports, label_studio, transfer
from rahf.annotation.project import Project
from rahf.errors import InputError

FOLDERS = [('rich', label_studio.export), ('prefer', exports.write_pairs)]


def answered(root: pathlib.Path, task: str) -> Project:
  """Returns a project whose two images somebody has answered."""
  made = projects.make(root, 2, task, prompts=1)
  person = projects.enter(made, 'Ann')
  while shown := answering.next_task(made, person):
    value = projects.rich_value()
    if task == 'prefer':
      value = dict(zip(('left', 'right'), shown['images'], strict=True))
      value['choice'] = 'left'
    answering.submit(made, person, shown['lease'], projects.answer(value))
  return made


@pytest.mark.parametrize(
  ('task', 'write'),
  [
    *FOLDERS,
    ('rich', exports.write_raw),
    ('rich', transfer.export),
    ('prefer', exports.write_study),
  ],
)
def test_the_folder_has_to_be_there(tmp_path, task, write):
  made = answered(tmp_path, task)
  missing = tmp_path / 'missing'
  with pytest.raises(InputError, match=f'the folder {missing} does not exist'):
    write(made, missing / 'out')
  assert not missing.exists()
  out = tmp_path / 'out'
  write(made, out)
  with pytest.raises(InputError, match=f'--out={out} exists'):
    write(made, out)


@pytest.mark.parametrize(('task', 'write'), FOLDERS)
@pytest.mark.parametrize('change', ['missing', 'changed'])
def test_an_image_has_to_be_the_same(tmp_path, task, write, change):
  made = answered(tmp_path, task)
  image, out = made.images / '01.png', tmp_path / 'out'
  data, before = image.read_bytes(), {*tmp_path.iterdir()}
  if change == 'missing':
    image.unlink()
  else:
    image.write_bytes((made.images / '00.png').read_bytes())
  with pytest.raises(InputError, match='restore the image'):
    write(made, out)
  assert {*tmp_path.iterdir()} == before
  image.write_bytes(data)
  assert write(made, out) == (2 if task == 'rich' else 1)
