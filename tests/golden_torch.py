"""Weights, inputs and outputs of the original PyTorch RAHF at a tiny size."""

import json
import pathlib
import zlib
from typing import NamedTuple

import numpy as np

from rahf.models.rahf import MAPS, SCORES
from torch_files import View, contiguous

SHARED = (
  't5.shared.weight',
  't5.encoder.embed_tokens.weight',
  't5.decoder.embed_tokens.weight',
  't5.lm_head.weight',
)


class Golden(NamedTuple):
  """The original at a tiny size.

  Attributes:
    shapes: of its weights, by name.
    heads: of its ViT.
    expected: its inputs and outputs.
  """

  shapes: dict[str, tuple[int, ...]]
  heads: int
  expected: dict[str, np.ndarray]


def read_golden(assets: pathlib.Path, form: str) -> Golden:
  folder = assets / 'golden' / f'rahf_torch_{form}'
  spec = json.loads((folder / 'spec.json').read_text())
  shapes = {name: tuple(shape) for name, shape in spec['parameters'].items()}
  with np.load(folder / 'expected.npz') as file:
    expected = dict(file)
  return Golden(shapes, spec['vit']['num_attention_heads'], expected)


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
  """Returns a weight of the golden models, computed from its name."""
  name = SHARED[0] if name in SHARED else name
  noise = np.random.RandomState(zlib.crc32(name.encode())).uniform(-1, 1, shape)
  if name == SHARED[0]:
    return noise.astype(np.float32)
  if name.endswith('scale') or (len(shape) == 1 and not name.endswith('bias')):
    return (1 + 0.1 * noise).astype(np.float32)
  if len(shape) == 1:
    return (0.05 * noise).astype(np.float32)
  gain = 1.0
  if name.endswith(('SelfAttention.q.weight', 'EncDecAttention.q.weight')):
    gain = 0.3
  elif 'predictor' in name:
    gain = 1.5
  elif name.startswith('t5.decoder.') and name.endswith(('.o.weight', '.wo.weight')):
    gain = 4.0
  return (gain * np.sqrt(3 / np.prod(shape[1:])) * noise).astype(np.float32)


def tensors(shapes: dict[str, tuple[int, ...]]) -> dict[str, View]:
  """Returns the golden weights; all names of the embedding share its values."""
  views = {n: contiguous(weight(n, s)) for n, s in shapes.items() if n not in SHARED}
  embedding = contiguous(weight(SHARED[0], shapes[SHARED[0]]))
  return {name: views.get(name, embedding) for name in shapes}


def texts(expected: dict[str, np.ndarray], variant: str) -> np.ndarray:
  """Returns the texts in our order; the caption is padded to the others' length."""
  caption = expected['ids/caption']
  if variant == 'multi_head':
    return caption[:, None]
  tasks = [f'HEATMAP: {name}' for name in MAPS] + [f'SCORE: {name}' for name in SCORES]
  rows = [expected[f'ids/{task}'] for task in tasks]
  padding = rows[0].shape[1] - caption.shape[1]
  return np.stack([*rows, np.pad(caption, ((0, 0), (0, padding)))], axis=1)
