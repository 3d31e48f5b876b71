"""Formats are detected, and other files refused."""

import pathlib
import pickle
import zipfile

import numpy as np
import pytest
from etils import epath

from rahf.errors import InputError
from rahf.pretrained import load, open_source


@pytest.mark.parametrize(
  ('name', 'kind'),
  [
    ('t5x_v1_1/checkpoint_0', 'T5X checkpoint'),
    ('vit_tiny_release_names.npz', 'ViT release (.npz)'),
  ],
)
def test_formats_are_detected_by_content(assets, tmp_path, name, kind):
  assert open_source(str(assets / 'golden' / name)).kind == kind
  renamed = tmp_path / 'weights'
  renamed.symlink_to(assets / 'golden' / name)
  assert open_source(renamed).kind == kind


def test_load_nests_arrays_as_our_parameters(assets):
  params = load(assets / 'golden' / 'vit_tiny_release_names.npz')
  block = params['vit']['Transformer']['encoderblock_1']
  assert block['MlpBlock_0']['Dense_0']['kernel'].shape == (24, 40)
  assert block['MlpBlock_0']['Dense_0']['kernel'].dtype == np.float32


def write_exported(path: pathlib.Path) -> None:
  path.mkdir()
  (path / 'model.json').write_text('{}')


def write_text_zip(path: pathlib.Path) -> None:
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('readme.txt', 'no arrays')


def write_cut_npz(path: pathlib.Path) -> None:
  with path.open('wb') as stream:
    np.savez(stream, x=np.ones(1000))
  path.write_bytes(path.read_bytes()[:900])


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (
      lambda path: None,
      r'does not exist; nothing is downloaded\. It should be a T5X checkpoint',
    ),
    (lambda path: path.mkdir(), r'is an empty directory; it should be'),
    (
      lambda path: (path / 'notes').mkdir(parents=True),
      r'contains notes, but should be',
    ),
    (lambda path: path.write_text('text'), r'has an unknown format'),
    (lambda path: path.write_bytes(b''), r'has an unknown format'),
    (
      lambda path: path.write_bytes(b'12345678{"a":'),
      r'give its directory, which must also contain config',
    ),
    (write_text_zip, r'a zip archive, but not of NumPy or PyTorch arrays'),
    (write_cut_npz, r'is damaged, perhaps truncated'),
    (
      lambda path: path.write_bytes(b'version https://git-lfs.github.com/spec/v1\noid'),
      r'weights is a Git LFS pointer, not the data: run `git lfs pull` in its clone',
    ),
    (write_exported, r"model\.json is damaged \(KeyError: 'format'"),
  ],
)
def test_anything_else_is_refused(tmp_path, make, message):
  path = tmp_path / 'weights'
  make(path)
  with pytest.raises(InputError, match=message):
    open_source(path)


@pytest.mark.parametrize('protocol', [2, 4, 5])
def test_pickles_are_refused_and_not_run(tmp_path, payload, protocol):
  path = tmp_path / 'model.pt'
  path.write_bytes(pickle.dumps(payload, protocol))
  with pytest.raises(InputError, match=r'is a pickle, .* could run any code'):
    open_source(path)


def test_an_unreachable_bucket_is_one_message(monkeypatch):
  def fail(path):
    raise RuntimeError('no route')

  monkeypatch.setattr(type(epath.Path('gs://bucket/x')), 'exists', fail)
  with pytest.raises(InputError, match=r'gs://bucket/x cannot be reached: no route'):
    open_source('gs://bucket/x')
