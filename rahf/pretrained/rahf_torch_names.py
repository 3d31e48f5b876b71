"""Maps names and layouts of the PyTorch RAHF's heads to ours.

PyTorch has channels first, so a dense layer after a feature map reads channel by
channel; ours reads row by row. Its transposed convolutions have inputs first, and
scatter an input pixel with the taps with which ours gather an output pixel: in reverse
order.
"""

import math
from collections.abc import Iterator

import numpy as np

from rahf.models.rahf import MAPS, SCORES
from rahf.pretrained.hf_names import Arrange, Table, conv, dense, identity

# Number of layers of each kind in a head.
CONVS, STAGES, SCORE_CONVS = 2, 4, 6
DENSE = ('dense_0', 'dense_1', 'score')


def deconv(kernel: np.ndarray) -> np.ndarray:
  """Converts a transposed convolution's inputs x outputs x height x width to ours."""
  return kernel.transpose(2, 3, 0, 1)[::-1, ::-1]


def flat(array: np.ndarray) -> np.ndarray:
  """Drops the axes of height and width from a scale."""
  return array.reshape(-1)


def head_table(channels: int) -> Table:
  """Returns the table of all arrays outside ViT and T5.

  Args:
    channels: of the feature map before a score head's first dense layer.
  """

  def after_a_map(kernel: np.ndarray) -> np.ndarray:
    outputs, inputs = kernel.shape
    side = math.isqrt(inputs // channels)
    channels_last = kernel.reshape(outputs, channels, side, side).transpose(2, 3, 1, 0)
    return channels_last.reshape(inputs, outputs)

  table = _biased('visual_token_projection', 'image_projection', dense)
  for theirs, ours in _heads('heatmap', MAPS):
    for i in range(CONVS):
      table += _biased(rf'{theirs}conv_layers\.{3 * i}', f'{ours}conv_{i}', conv)
      table += _norm(rf'{theirs}conv_layers\.{3 * i + 2}', f'{ours}conv_{i}')
    for i in range(STAGES):
      up, pair, stage = rf'deconv_layers\.{i}', rf'conv_layers2\.{i}', f'stage_{i}'
      table += _biased(rf'{theirs}{up}\.0', f'{ours}{stage}/deconv', deconv)
      table += _norm(rf'{theirs}{up}\.1', f'{ours}{stage}/deconv')
      for j in range(2):
        table += _biased(rf'{theirs}{pair}\.{3 * j}', f'{ours}{stage}/conv_{j}', conv)
        table += _norm(rf'{theirs}{pair}\.{3 * j + 1}', f'{ours}{stage}/conv_{j}')
    for i in range(2):
      table += _biased(f'{theirs}last_conv{i + 1}', f'{ours}readout_{i}', conv)
  for theirs, ours in _heads('score', SCORES):
    for i in range(SCORE_CONVS):
      table += _biased(rf'{theirs}conv_layers\.{3 * i}', f'{ours}conv_{i}', conv)
      table += _norm(rf'{theirs}conv_layers\.{3 * i + 1}', f'{ours}conv_{i}')
    for i, name in enumerate(DENSE):
      arrange = dense if i else after_a_map
      table += _biased(rf'{theirs}linear_layers\.{2 * i}', f'{ours}{name}', arrange)
  return table


def _heads(kind: str, types: tuple[str, ...]) -> Iterator[tuple[str, str]]:
  """Yields (their prefix, our prefix) of a shared head and of a head per type."""
  yield rf'{kind}_predictor\.', f'{kind}_head/'
  for name in types:
    yield rf'{kind}_predictor\.{name}\.', f'{kind}_head_{name}/'


def _biased(theirs: str, ours: str, arrange: Arrange) -> list:
  return [
    (rf'{theirs}\.weight', f'{ours}/kernel', arrange),
    (rf'{theirs}\.bias', f'{ours}/bias', identity),
  ]


def _norm(theirs: str, ours: str) -> list:
  return [(rf'{theirs}\.scale', f'{ours}_norm/scale', flat)]
