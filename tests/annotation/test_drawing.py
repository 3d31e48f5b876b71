"""Preferences among images that a generator draws, and prompts that people type."""

import browsing
import projects
import pytest
import sqlalchemy as sa

import tiny_muse
from rahf import annotate
from rahf.annotation import answering, drawing, exports, items, project
from rahf.annotation.settings import Settings
from rahf.annotation.tables import ITEMS
from rahf.data.images import codec
from rahf.data.preferences import pairs
from rahf.errors import InputError


def make(tmp_path):
  (tmp_path / 'prompts.txt').write_text('a red circle\n\na blue cross\n')
  (tmp_path / 'images').mkdir()
  found = items.read(
    'prefer', tmp_path / 'images', tmp_path / 'prompts.txt', drawn=True
  )
  store = project.open_store(tmp_path / 'project', new=True)
  wanted = Settings('prefer', str(tmp_path / 'images'), answers=1, drawn=True)
  return project.create(store, wanted, found.items)


def test_images_are_drawn_and_people_type_prompts(tmp_path, capsys):
  made = make(tmp_path)
  tiny_muse.write(tmp_path / 'muse')
  draw = ['draw', str(tmp_path / 'project'), str(tmp_path / 'muse'), '--each=3']
  with browsing.running(made) as port:
    page = browsing.Page(port, name='ann')
    # Nothing is drawn yet.
    assert page.json('/api/task')['task'] is None
    own = page.send('/api/prompt', {'prompt': ' two large green rings '})
    assert own == (200, {'ready': False})
    assert annotate.main([*draw, '--once']) == 0
    printed = capsys.readouterr().out
    # What somebody waits for comes first.
    assert printed.index("Drawn: 'two large") < printed.index("Drawn: 'a red circle'")
    assert printed.endswith('Drawn: 9 images\n')
    own = page.send('/api/prompt', {'prompt': 'two large green rings'})
    assert own == (200, {'ready': True})
    prompts = []
    task = page.json('/api/task')['task']
    while task:
      prompts.append(task['prompt'])
      status, image = page.get(f'/image/{task["item"]}/{task["images"][0]}')
      assert (status, codec.decode_image(image).shape) == (200, (64, 64, 3))
      left, right = task['images']
      value = {'choice': 'left', 'left': left, 'right': right}
      body = projects.answer(value, turn=task['turn'])._asdict()
      status, found = page.send('/api/answer', {'lease': task['lease'], **body})
      assert status == 200, found
      task = found['task']
  expected = ['two large green rings', 'a red circle', 'a blue cross']
  assert prompts == [prompt for prompt in expected for _ in range(2)]
  assert exports.write_pairs(made, tmp_path / 'pairs') == 6
  stored = list(pairs.open_pairs(tmp_path / 'pairs', 'train'))
  assert {pair.models for pair in stored} == {('muse', 'muse')}
  # The table may be given again, and grow.
  (tmp_path / 'prompts.txt').write_text('a red circle\ntwo dogs\n')
  found = items.read('prefer', made.images, tmp_path / 'prompts.txt', drawn=True)
  assert project.update(made, {}, found.items)[1] == 1


def test_prompts_that_are_refused(tmp_path):
  made = make(tmp_path)
  person = projects.enter(made, 'ann')
  for prompt in ('', ' \n', 'x' * 1001, 'a\0b', '\ud800'):
    with pytest.raises(InputError):
      drawing.add_prompt(made, person, prompt)
  for number in range(drawing.MOST_WAITING):
    assert not drawing.add_prompt(made, person, f'prompt {number}')
  with pytest.raises(InputError, match='3 of your prompts wait to be drawn'):
    drawing.add_prompt(made, person, 'another')
  # Of somebody else, or one that is there.
  assert not drawing.add_prompt(made, projects.enter(made, 'ben'), 'another')
  assert not drawing.add_prompt(made, person, 'prompt 0')
  with made.store.read() as connection:
    assert connection.scalar(sa.select(sa.func.count()).select_from(ITEMS)) == 6
  with pytest.raises(InputError, match='the remark cannot be stored'):
    answering._check(projects.answer({}, flag='\ud800'))
  other = projects.make(tmp_path / 'other', 4, 'prefer', prompts=2)
  with pytest.raises(InputError, match='does not take prompts'):
    drawing.add_prompt(other, person, 'a dog')
  with pytest.raises(InputError, match='--drawn is for --task=prefer'):
    Settings('rich', '/images', drawn=True)
  (tmp_path / 'empty.txt').write_text('\n')
  with pytest.raises(InputError, match=r'--prompts=.*empty\.txt'):
    items.read('prefer', made.images, tmp_path / 'empty.txt', drawn=True)
