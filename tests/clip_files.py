"""Parameters of the goldens' tiny CLIP, computed by formula, with OpenAI's names."""

import math

import numpy as np


def arrays(golden) -> dict[str, np.ndarray]:
  """Returns the state dict that a golden file describes."""
  sizes = golden['config']
  width, text = sizes['vision_width'], sizes['transformer_width']
  space, patch = sizes['embed_dim'], sizes['vision_patch_size']
  patches = (sizes['image_resolution'] // patch) ** 2
  shapes = {
    'visual.class_embedding': (width,),
    'visual.positional_embedding': (patches + 1, width),
    'visual.conv1.weight': (width, 3, patch, patch),
    'visual.proj': (width, space),
    'token_embedding.weight': (sizes['vocab_size'], text),
    'positional_embedding': (sizes['context_length'], text),
    'text_projection': (text, space),
    'logit_scale': (),
  }
  for name in golden['sorted_names']:
    if name not in shapes:
      shapes[name] = _block_shape(name, width if name.startswith('visual.') else text)
  return {
    name: _values(number, name, shapes[name])
    for number, name in enumerate(golden['sorted_names'])
  }


def _block_shape(name: str, width: int) -> tuple[int, ...]:
  rows = 3 * width if 'in_proj' in name else 4 * width if 'c_fc' in name else width
  if name.endswith('bias') or 'ln_' in name:
    return (rows,)
  columns = 4 * width if 'c_proj' in name else width
  return (rows, columns)


def _values(number: int, name: str, shape: tuple[int, ...]) -> np.ndarray:
  if name == 'logit_scale':
    return np.array(math.log(100), np.float32)
  flat = np.arange(math.prod(shape), dtype=np.float64)
  values = 0.1 * np.sin(0.37 * flat + number)
  if 'ln_' in name and name.endswith('weight'):
    values += 1
  return values.astype(np.float32).reshape(shape)
