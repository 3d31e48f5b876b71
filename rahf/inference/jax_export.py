"""Exports the inference step to one `jax.export` file, for use without this code."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax import export

from rahf.data.tokenizer import EOS
from rahf.errors import InputError
from rahf.fileio import digests
from rahf.inference.model_directory import PROGRAM, Description
from rahf.inference.step import Infer

PLATFORMS = ('cpu', 'tpu', 'cuda')
# Rows of the batch with which the exported program is compared.
ROWS = 3
# For outputs in [0, 1]; only the compilation differs.
TOLERANCE = {'float32': 1e-5, 'bfloat16': 2e-2}


def write(
  path: epath.Path, description: Description, params: Any, infer: Infer
) -> float:
  """Exports the step for all of PLATFORMS and any batch size; reloads and compares it.

  Args:
    infer: from (params, pixels, text, word_end); see `step.from_pixels`.

  Returns:
    The largest difference from the step itself, on the current platform.

  Raises:
    RuntimeError: the outputs differ by more than rounding.
  """

  def step(params: Any, *inputs: jax.Array) -> dict[str, jax.Array]:
    # A plain dict, since an export cannot store our own types.
    outputs = infer(params, *inputs)._asdict()
    return {name: array for name, array in outputs.items() if array is not None}

  (rows,) = export.symbolic_shape('rows')
  shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params)
  program = export.export(jax.jit(step), platforms=PLATFORMS)(
    shapes, *input_shapes(description, rows)
  )
  path.write_bytes(program.serialize())
  reloaded = _read(path)
  batch = random_inputs(description)
  found = reloaded.call(params, *batch)
  expected = jax.jit(step)(params, *batch)
  difference = max(
    float(jnp.abs(found[name] - expected[name]).max()) for name in expected
  )
  # `not <=` rather than `>`, so that NaN counts as a difference.
  if not difference <= TOLERANCE[description.model.dtype]:
    raise RuntimeError(
      f'{path}: the exported program differs from the model by {difference:.3g}'
    )
  return difference


def read(folder: epath.Path, description: Description) -> export.Exported:
  """Opens the program of a model directory; `.call` runs it.

  Raises:
    InputError: the file is missing, or has changed since it was exported.
  """
  path = folder / PROGRAM
  if not path.exists():
    raise InputError(
      f'{path} does not exist; export the model again with --config.export.program'
    )
  digests.check(path, PROGRAM, description.files)
  return _read(path)


def _read(path: epath.Path) -> export.Exported:
  return export.deserialize(bytearray(path.read_bytes()))


def input_shapes(
  description: Description, rows: Any
) -> tuple[jax.ShapeDtypeStruct, ...]:
  """Returns shapes of pixels, text and word_end."""
  model, length = description.model, description.text_length
  size = model.image_size
  return (
    jax.ShapeDtypeStruct((rows, size, size, 3), jnp.uint8),
    jax.ShapeDtypeStruct((rows, model.texts, length), jnp.int32),
    jax.ShapeDtypeStruct((rows, length), jnp.bool_),
  )


def random_inputs(description: Description) -> tuple[np.ndarray, ...]:
  """Returns random pixels, text and word_end of ROWS rows."""
  random = np.random.default_rng(0)
  pixels, text, word_end = input_shapes(description, ROWS)
  tokens = random.integers(3, description.model.t5.vocab_size, text.shape, np.int32)
  tokens[..., -1] = EOS
  return (
    random.integers(0, 256, pixels.shape, np.uint8),
    tokens,
    random.random(word_end.shape) < 0.5,
  )
