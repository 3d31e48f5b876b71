"""The PyTorch RAHF as a directory, in each storage format."""

import json
import pathlib

import numpy as np
import pytest
import safetensors.numpy

from golden_torch import SHARED, read_golden, weight
from rahf.errors import InputError
from rahf.models.vit import ViTConfig
from rahf.pretrained import open_source
from rahf.pretrained.source import Source
from torch_files import constant, contiguous, write_state_dict

VIT = ViTConfig(width=40, heads=4)
# Arrays to compare: a kernel with heads, a dense kernel, a norm, the embedding.
COMPARED = (
  'vit/Transformer/encoderblock_1/MultiHeadDotProductAttention_0/query/kernel',
  'image_projection/kernel',
  'score_head/conv_0_norm/scale',
  't5/token_embedder/embedding',
)


@pytest.fixture(scope='module')
def arrays(assets) -> dict[str, np.ndarray]:
  """The golden's weights in the single-head form; large ones are one value."""
  shapes = read_golden(assets, 'single').shapes
  small = {n: s for n, s in shapes.items() if np.prod(s) < 1e5 and n not in SHARED}
  large = {n: np.ones(s, np.float32) for n, s in shapes.items() if n not in small}
  return large | {name: weight(name, shape) for name, shape in small.items()}


@pytest.fixture(scope='module')
def archive(arrays, tmp_path_factory) -> Source:
  path = tmp_path_factory.mktemp('archive') / 'rahf_model.pt'
  write_torch(path, arrays)
  return open_source(path, VIT)


def write_torch(path: pathlib.Path, arrays: dict[str, np.ndarray]) -> None:
  views = {
    name: constant(array.shape) if (array == 1).all() else contiguous(array)
    for name, array in arrays.items()
  }
  write_state_dict(path, views)


def halves(arrays: dict, folder: pathlib.Path, stem: str, suffix: str) -> list:
  """Writes the index of two files; returns the files' names and arrays."""
  names = sorted(arrays)
  files = [f'{stem}-0000{i}-of-00002.{suffix}' for i in (1, 2)]
  parts = [names[::2], names[1::2]]
  places = {n: file for file, part in zip(files, parts, strict=True) for n in part}
  index = folder / f'{stem}.{suffix}.index.json'
  index.write_text(json.dumps({'metadata': {}, 'weight_map': places}))
  return [
    (folder / file, {n: arrays[n] for n in part})
    for file, part in zip(files, parts, strict=True)
  ]


def write_safetensors(path: pathlib.Path, arrays: dict[str, np.ndarray]) -> None:
  safetensors.numpy.save_file(arrays, path)


@pytest.mark.parametrize('config', [None, {'architectures': ['RAHF']}])
@pytest.mark.parametrize(
  'kind',
  ['model.safetensors', 'safetensors in two', 'pytorch_model.bin', 'bin in two', 'pt'],
)
def test_a_directory_equals_the_archive(arrays, archive, tmp_path, kind, config):
  if config:
    (tmp_path / 'config.json').write_text(json.dumps(config))
  match kind:
    case 'model.safetensors':
      write_safetensors(tmp_path / kind, arrays)
    case 'safetensors in two':
      for path, part in halves(arrays, tmp_path, 'model', 'safetensors'):
        write_safetensors(path, part)
    case 'pytorch_model.bin':
      write_torch(tmp_path / kind, arrays)
    case 'bin in two':
      for path, part in halves(arrays, tmp_path, 'pytorch_model', 'bin'):
        write_torch(path, part)
    case 'pt':
      write_torch(tmp_path / 'anything.pt', arrays)
      (tmp_path / 'spiece.model').write_bytes(b'')
  found = open_source(tmp_path, VIT)
  assert found.kind == archive.kind
  assert found.settings == archive.settings
  assert found.licence == archive.licence
  assert found.ignored == archive.ignored
  assert (found.tasks, found.joined_words) == (archive.tasks, True)
  described, expected = (
    {path: (w.name, w.shape, w.dtype) for path, w in source.weights.items()}
    for source in (found, archive)
  )
  assert described == expected
  for path in COMPARED:
    np.testing.assert_array_equal(
      found.weights[path].read(), archive.weights[path].read(), err_msg=path
    )


def test_heads_come_from_the_config_of_the_same_width(arrays, tmp_path):
  write_torch(tmp_path / 'a.pt', arrays)
  assert open_source(tmp_path, VIT).settings['vit.heads'] == 4
  assert open_source(tmp_path, ViTConfig(width=40, heads=5)).settings['vit.heads'] == 5
  for vit in (None, ViTConfig(width=80, heads=4), ViTConfig(width=40, heads=3)):
    with pytest.raises(InputError, match=r'give --config\.model\.vit\.width=40 and'):
      open_source(tmp_path, vit)


def test_errors_are_explained(arrays, tmp_path):
  for name in ('a.pt', 'b.pt'):
    write_torch(tmp_path / name, {'x': np.ones(1, np.float32)})
  with pytest.raises(InputError, match=r'contains a\.pt, b\.pt; name one'):
    open_source(tmp_path)
  (tmp_path / 'b.pt').unlink()
  with pytest.raises(
    InputError, match='is not a PyTorch RAHF checkpoint: it contains x'
  ):
    open_source(tmp_path)
  (tmp_path / 'model.safetensors').write_bytes(b'x' * 99)
  with pytest.raises(InputError, match='is not a safetensors'):
    open_source(tmp_path)
  (tmp_path / 'model.safetensors').unlink()
  (path, part), _ = halves(arrays, tmp_path, 'pytorch_model', 'bin')
  write_torch(path, part)
  with pytest.raises(InputError, match=r'refers to .*2-of-00002\.bin, which is'):
    open_source(tmp_path)
