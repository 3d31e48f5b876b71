"""Our ResNet against transformers in PyTorch, in inference and in training.

Needs the extra `parity`.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from rahf.models.resnet import ResNet, ResNetConfig
from rahf.pretrained import open_source
from rahf.runtime.tree import by_path

REASON = 'needs PyTorch and transformers: pip install "rahf[parity]"'
torch = pytest.importorskip('torch', reason=REASON)
transformers = pytest.importorskip('transformers', reason=REASON)


@pytest.fixture
def theirs(tmp_path):
  torch.manual_seed(0)
  config = transformers.ResNetConfig(
    embedding_size=8, hidden_sizes=[32, 64, 128, 256], depths=[2, 1, 2, 1]
  )
  model = transformers.ResNetModel(config)
  with torch.no_grad():
    for name, value in model.state_dict().items():
      if name.endswith('running_var'):
        value += torch.rand(value.shape)
      elif 'normalization' in name and value.is_floating_point():
        value += 0.1 * torch.randn(value.shape)
  model.save_pretrained(tmp_path)
  return model


def variables(source):
  """Returns a source's arrays as Flax's collections."""
  arrays = {f'params/{path}': w.read() for path, w in source.weights.items()}
  arrays |= {path: w.read() for path, w in source.collections.items()}
  tree = traverse_util.unflatten_dict(arrays, sep='/')
  return jax.tree.map(jnp.asarray, {name: t['resnet'] for name, t in tree.items()})


@pytest.mark.parametrize('train', [False, True])
def test_models_of_transformers(theirs, tmp_path, train):
  source = open_source(tmp_path)
  config = ResNetConfig(**{k.split('.')[1]: v for k, v in source.settings.items()})
  model = ResNet(config, jnp.dtype('float32'))
  images = np.random.default_rng(0).normal(size=(3, 75, 64, 3)).astype(np.float32)
  before = variables(source)
  found, changed = model.apply(
    before, jnp.asarray(images), train=train, mutable=['batch_stats']
  )
  theirs.train(train)
  with torch.no_grad():
    pixels = torch.tensor(images.transpose(0, 3, 1, 2))
    expected = theirs(pixels).last_hidden_state.permute(0, 2, 3, 1)
  # In training, statistics of the last map's few pixels enlarge rounding errors.
  tolerance = 1e-4 if train else 1e-5
  np.testing.assert_allclose(found, expected, atol=tolerance, rtol=tolerance)
  # What PyTorch has now, read once more.
  theirs.save_pretrained(tmp_path)
  after = variables(open_source(tmp_path))['batch_stats']
  for path, array in by_path(changed['batch_stats']).items():
    np.testing.assert_allclose(array, by_path(after)[path], atol=1e-5, rtol=1e-5)
    assert (
      np.asarray(array) != np.asarray(by_path(before['batch_stats'])[path])
    ).any() == train
