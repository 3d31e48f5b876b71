"""Names and layouts of the PyTorch RAHF's heads, and ours.

PyTorch keeps channels first, so that a dense layer after a feature map reads channel
by channel; ours reads row by row. Its transposed convolutions have the inputs in
front, and spread an input pixel out by the taps by which ours gather at an output
pixel: in the opposite order.
"""

import math
from collections.abc import Iterator

import numpy as np

from rahf.models.rahf import MAPS, SCORES
from rahf.pretrained.hf_names import Arrange, Table, conv, dense, keep

# How many layers of each kind a head has.
CONVS, STAGES, SCORE_CONVS = 2, 4, 6
DENSE = ('dense_0', 'dense_1', 'score')


def deconv(kernel: np.ndarray) -> np.ndarray:
  """Turns a transposed convolution's inputs x outputs x height x width into ours."""
  return kernel.transpose(2, 3, 0, 1)[::-1, ::-1]


def flat(array: np.ndarray) -> np.ndarray:
  """Drops the axes of height and width from a scale."""
  return array.reshape(-1)


def head_table(channels: int) -> Table:
  """Returns the places of what is neither ViT nor T5.

  Args:
    channels: of the feature map before a score head's first dense layer.
  """

  def after_a_map(kernel: np.ndarray) -> np.ndarray:
    outputs, inputs = kernel.shape
    side = math.isqrt(inputs // channels)
    by_place = kernel.reshape(outputs, channels, side, side).transpose(2, 3, 1, 0)
    return by_place.reshape(inputs, outputs)

  table = _biased('visual_token_projection', 'image_projection', dense)
  for there, ours in _heads('heatmap', MAPS):
    for i in range(CONVS):
      table += _biased(rf'{there}conv_layers\.{3 * i}', f'{ours}conv_{i}', conv)
      table += _norm(rf'{there}conv_layers\.{3 * i + 2}', f'{ours}conv_{i}')
    for i in range(STAGES):
      up, pair, stage = rf'deconv_layers\.{i}', rf'conv_layers2\.{i}', f'stage_{i}'
      table += _biased(rf'{there}{up}\.0', f'{ours}{stage}/deconv', deconv)
      table += _norm(rf'{there}{up}\.1', f'{ours}{stage}/deconv')
      for j in range(2):
        table += _biased(rf'{there}{pair}\.{3 * j}', f'{ours}{stage}/conv_{j}', conv)
        table += _norm(rf'{there}{pair}\.{3 * j + 1}', f'{ours}{stage}/conv_{j}')
    for i in range(2):
      table += _biased(f'{there}last_conv{i + 1}', f'{ours}readout_{i}', conv)
  for there, ours in _heads('score', SCORES):
    for i in range(SCORE_CONVS):
      table += _biased(rf'{there}conv_layers\.{3 * i}', f'{ours}conv_{i}', conv)
      table += _norm(rf'{there}conv_layers\.{3 * i + 1}', f'{ours}conv_{i}')
    for i, name in enumerate(DENSE):
      arrange = dense if i else after_a_map
      table += _biased(rf'{there}linear_layers\.{2 * i}', f'{ours}{name}', arrange)
  return table


def _heads(kind: str, types: tuple[str, ...]) -> Iterator[tuple[str, str]]:
  """Returns the prefixes of a head for all types and of one for each type."""
  yield rf'{kind}_predictor\.', f'{kind}_head/'
  for name in types:
    yield rf'{kind}_predictor\.{name}\.', f'{kind}_head_{name}/'


def _biased(there: str, ours: str, arrange: Arrange) -> list:
  return [
    (rf'{there}\.weight', f'{ours}/kernel', arrange),
    (rf'{there}\.bias', f'{ours}/bias', keep),
  ]


def _norm(there: str, ours: str) -> list:
  return [(rf'{there}\.scale', f'{ours}_norm/scale', flat)]
