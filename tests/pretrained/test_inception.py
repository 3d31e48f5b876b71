import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

import inception_files
from golden_noise import noise
from rahf.data.images.inception_image import squash
from rahf.errors import InputError
from rahf.models.inception import Inception, abstract_variables
from rahf.pretrained import open_source
from rahf.pretrained.__main__ import main
from rahf.pretrained.inception import open_inception
from torch_files import constant, contiguous, write_legacy, write_state_dict

GOLDEN = pathlib.Path(__file__).parents[1] / 'goldens' / 'inception.json'


@pytest.fixture(scope='module')
def source(tmp_path_factory):
  path = tmp_path_factory.mktemp('inception') / 'fid.pth'
  arrays = inception_files.arrays()
  write_legacy(path, {name: contiguous(array) for name, array in arrays.items()})
  return open_source(path)


def test_features_of_pytorch_fid(source):
  golden = json.loads(GOLDEN.read_text())['features']
  found = {f'params/{path}': w.read() for path, w in source.weights.items()}
  found |= {path: w.read() for path, w in source.collections.items()}
  tree = traverse_util.unflatten_dict(found, sep='/')
  variables = jax.tree.map(jnp.asarray, {n: t['inception'] for n, t in tree.items()})
  pixels = np.round(255 * (noise(0, (2, 3, 67, 91)) + 1) / 2).astype(np.uint8)
  images = np.stack([squash(p, 'pytorch_fid') for p in pixels.transpose(0, 2, 3, 1)])
  features = np.asarray(jax.jit(Inception().apply)(variables, images))
  assert features.shape == (2, 2048)
  np.testing.assert_allclose(features.mean(1), golden['mean'], rtol=1e-5)
  np.testing.assert_allclose(features[:, ::128], golden['first'], rtol=1e-5, atol=1e-3)
  np.testing.assert_allclose(np.linalg.norm(features, axis=1), golden['norm'], 1e-5)


def test_every_array_is_used(source):
  assert source.kind == 'FID Inception'
  # 94 convolutions with their norms, and the classifier.
  assert len(source.weights) == 3 * 94
  assert len(source.collections) == 2 * 94
  assert sorted(source.ignored.values()) == ['classifier'] * 2 + (
    ['counter of batches'] * 94
  )
  names = {weight.name for weight in source.arrays.values()} | source.ignored.keys()
  assert names == inception_files.shapes().keys()
  sizes = [leaf.size for leaf in jax.tree.leaves(abstract_variables()['params'])]
  # torchvision's 23,834,568 of 1,000 classes without the auxiliary ones.
  assert sum(sizes) == 23_834_568 - 1000 * 2049


def write(path, change) -> pathlib.Path:
  """Writes all arrays with one stored value each, after a change."""
  state = {name: constant(shape) for name, shape in inception_files.shapes().items()}
  change(state)
  write_state_dict(path, state)
  return path


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (
      lambda a: a.pop('Mixed_6c.branch7x7_2.conv.weight'),
      'it lacks inception/Mixed_6c/branch7x7_2/conv/kernel$',
    ),
    (
      lambda a: a.pop('Mixed_7c.branch_pool.bn.running_mean'),
      'it lacks batch_stats/inception/Mixed_7c/branch_pool/bn/mean$',
    ),
    (
      lambda a: a.update({'Conv2d_2a_3x3.conv.weight': constant((32, 32, 5, 5))}),
      r'Conv2d_2a_3x3\.conv\.weight is float32\[5, 5, 32, 32\] .* floats\[3, 3, 32, 32',
    ),
    (
      lambda a: a.update({'Mixed_5b.branch9x9.conv.weight': constant((1, 1, 9, 9))}),
      r'Mixed_5b\.branch9x9\.conv\.weight has no place in it$',
    ),
    (
      lambda a: a.update({'AuxLogits.conv0.linear.weight': constant((1, 1))}),
      r'AuxLogits\.conv0\.linear\.weight \[1, 1\] has no place',
    ),
    (
      lambda a: a.update({'fc.weight': constant((1000, 2048))}),
      r"not FID's .* \[1008, 2048\], but has \[1000, 2048\]; .* such as torchvision's",
    ),
    (lambda a: a.pop('fc.weight'), 'but has no classifier; give pt_inception-2015-12'),
    (
      lambda a: [a.pop(name) for name in list(a) if '_6' in name],
      r'it lacks inception/Mixed_6a/.*; and \d+ more$',
    ),
  ],
)
def test_other_networks_are_refused_with_one_message(tmp_path, change, message):
  path = write(tmp_path / 'x.pth', change)
  with pytest.raises(InputError, match=message) as error:
    open_inception(path)
  assert str(error.value).startswith(str(path))


def test_files_that_are_not_there_or_not_weights(tmp_path):
  with pytest.raises(InputError, match=r'does not exist; nothing is downloaded\. FID'):
    open_inception(tmp_path / 'no.pth')
  (tmp_path / 'x.pth').write_text('<html>')
  with pytest.raises(InputError, match=r'x\.pth is not a safetensors file'):
    open_inception(tmp_path / 'x.pth')


def test_files_without_counters_and_their_description(tmp_path, capsys):
  def without_counters(state):
    for name in [*state]:
      if name.endswith('num_batches_tracked'):
        state.pop(name)

  path = write(tmp_path / 'x.pth', without_counters)
  assert main([str(path)]) == 0
  lines = capsys.readouterr().out.splitlines()
  assert lines[0] == f'FID Inception: {path}'
  assert 'ignored: 2 arrays: classifier' in lines
