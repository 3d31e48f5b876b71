"""The heads: shapes, and outputs for hand-made parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from rahf.models.heads import (
  HeatmapHead,
  HeatmapHeadConfig,
  ScoreHead,
  ScoreHeadConfig,
)
from rahf.runtime.tree import by_path

RNG = np.random.default_rng(0)
FLOAT32 = jnp.dtype('float32')
BFLOAT16 = jnp.dtype('bfloat16')


def shapes(head: nn.Module, *features: int):
  """Returns the output's shape and dtype, and the parameters' shapes by path."""
  out, variables = jax.eval_shape(
    head.init_with_output, jax.random.key(0), jnp.zeros(features)
  )
  return out, by_path(nn.unbox(variables)['params'])


def sigmoid(x):
  return 1 / (1 + np.exp(-np.asarray(x)))


def test_the_papers_heads_fit_32_x_32_tokens():
  maps, params = shapes(HeatmapHead(HeatmapHeadConfig(), BFLOAT16), 2, 32, 32, 768)
  assert (maps.shape, maps.dtype) == ((2, 512, 512), FLOAT32)
  assert params['conv_1/kernel'].shape == (3, 3, 768, 384)
  assert params['stage_3/deconv/kernel'].shape == (3, 3, 384, 192)
  assert params['readout_1/kernel'].shape == (3, 3, 192, 1)

  scores, params = shapes(ScoreHead(ScoreHeadConfig(), BFLOAT16), 2, 32, 32, 768)
  assert (scores.shape, scores.dtype) == ((2,), jnp.float32)
  # The last convolution leaves 2 x 2 positions of 64 channels.
  assert params['conv_3/kernel'].shape == (2, 2, 128, 64)
  assert params['dense_0/kernel'].shape == (2 * 2 * 64, 2048)
  assert params['score/kernel'].shape == (1024, 1)


def test_padded_convolutions_of_a_score_head_keep_the_grid():
  config = ScoreHeadConfig((6, 5), size=3, stride=1, padding='SAME', dense=(7,))
  _, params = shapes(ScoreHead(config, FLOAT32), 2, 2, 3, 4)
  assert params['conv_1/kernel'].shape == (3, 3, 6, 5)
  assert params['dense_0/kernel'].shape == (2 * 3 * 5, 7)


HEADS = {
  'readout_1/bias': HeatmapHead(HeatmapHeadConfig((4,), (4,), 4), FLOAT32),
  'score/bias': ScoreHead(ScoreHeadConfig((4, 4), dense=(4,)), FLOAT32),
}


@pytest.mark.parametrize('bias_path', HEADS)
def test_with_zero_kernels_the_output_is_the_bias(bias_path):
  head = HEADS[bias_path]
  _, expected = shapes(head, 2, 4, 4, 3)
  flat = {path: jnp.zeros(leaf.shape) for path, leaf in expected.items()}
  flat[bias_path] = jnp.array([-1.5])
  x = jnp.asarray(RNG.standard_normal((2, 4, 4, 3)), jnp.float32)
  found = jax.jit(head.apply)({'params': nest(flat)}, x)
  assert found.shape == ((2, 8, 8) if bias_path == 'readout_1/bias' else (2,))
  np.testing.assert_allclose(found, sigmoid(-1.5), rtol=1e-6)


def nest(flat: dict[str, jax.Array]) -> dict:
  tree = {}
  for path, leaf in flat.items():
    *folders, name = path.split('/')
    node = tree
    for folder in folders:
      node = node.setdefault(folder, {})
    node[name] = leaf
  return tree


def test_a_map_is_read_pixel_by_pixel():
  head = HeatmapHead(HeatmapHeadConfig((), (), 2), FLOAT32)
  x = RNG.standard_normal((1, 3, 4, 2)).astype(np.float32)
  keep = np.zeros((3, 3, 2, 2), np.float32)
  keep[1, 1] = np.eye(2)
  add = np.zeros((3, 3, 2, 1), np.float32)
  add[1, 1, :, 0] = [2.0, -3.0]
  params = {
    'readout_0': {'kernel': keep, 'bias': np.zeros(2)},
    'readout_1': {'kernel': add, 'bias': np.array([0.5])},
  }
  hidden = np.maximum(x, 0)
  expected = sigmoid(2 * hidden[..., 0] - 3 * hidden[..., 1] + 0.5)
  found = head.apply({'params': params}, jnp.asarray(x))
  np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize('relu_before_norm', [False, True])
def test_relu_and_norm_come_in_the_order_of_the_config(relu_before_norm):
  config = HeatmapHeadConfig((2,), (), 2, relu_before_norm=relu_before_norm)
  x = RNG.standard_normal((1, 3, 4, 2)).astype(np.float32)
  keep = np.zeros((3, 3, 2, 2), np.float32)
  keep[1, 1] = np.eye(2)
  params = {
    'conv_0': {'kernel': keep, 'bias': np.zeros(2)},
    'conv_0_norm': {'scale': np.array([1.5, 0.5])},
    'readout_0': {'kernel': keep, 'bias': np.zeros(2)},
    'readout_1': {'kernel': keep[..., :1], 'bias': np.zeros(1)},
  }
  inputs = np.maximum(x, 0) if relu_before_norm else x
  root = np.sqrt(np.mean(inputs**2, -1) + 1e-8)
  found = HeatmapHead(config, FLOAT32).apply({'params': params}, jnp.asarray(x))
  expected = sigmoid(1.5 * np.maximum(x[..., 0], 0) / root)
  np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_score_reads_the_features_row_by_row():
  head = ScoreHead(ScoreHeadConfig((), dense=()), FLOAT32)
  x = RNG.standard_normal((2, 3, 4, 5)).astype(np.float32)
  kernel = np.zeros((60, 1), np.float32)
  # Row 2, column 1, channel 3.
  kernel[(2 * 4 + 1) * 5 + 3] = 1
  params = {'score': {'kernel': kernel, 'bias': np.zeros(1)}}
  found = head.apply({'params': params}, jnp.asarray(x))
  np.testing.assert_allclose(found, sigmoid(x[:, 2, 1, 3]), atol=1e-6)
