"""Reads and writes parameters and tokenizer of a model directory."""

import os
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import safetensors.numpy
from etils import epath
from flax import traverse_util

from rahf.data.tokenizer import Tokenizer
from rahf.errors import InputError
from rahf.fileio import digests, safetensors_file
from rahf.fileio.local_file import local_file
from rahf.inference.model_directory import DESCRIPTION, TOKENIZER, WEIGHTS, Description
from rahf.models.init import abstract_params
from rahf.models.rahf import RAHF
from rahf.runtime.tree import by_path

SHOWN_PROBLEMS = 10


def read_tokenizer(folder: epath.Path, description: Description) -> Tokenizer:
  """Opens the directory's tokenizer.

  Raises:
    InputError: it cannot be read, has changed, or has more pieces than the model.
  """
  path = folder / TOKENIZER
  try:
    if path.exists():
      digests.check(path, TOKENIZER, description.files)
    tokenizer = Tokenizer(path)
  except InputError as error:
    raise InputError(
      f'{path} is missing or damaged; copy or export the model again ({error})'
    ) from None
  tokenizer.check_vocabulary(description.model.t5.vocab_size)
  return tokenizer


def write_params(path: epath.Path, params: Any) -> None:
  """Writes a tree of NumPy arrays as safetensors."""
  arrays = {
    name: np.asarray(array, order='C') for name, array in by_path(params).items()
  }
  if '://' in os.fspath(path):
    path.write_bytes(safetensors.numpy.save(arrays))
  else:  # Without a copy in memory.
    safetensors_file.write(path, arrays, None)


def read_params(folder: epath.Path, description: Description) -> dict[str, Any]:
  """Reads all parameters as a tree of NumPy arrays.

  Raises:
    InputError: the file is missing, damaged or has changed, or its names, shapes or
      dtypes are not those of the model.
  """
  path = folder / WEIGHTS
  if not path.exists():
    raise InputError(f'{path} does not exist; export the model again')
  file = local_file(path)
  digests.check(path, WEIGHTS, description.files, file.path)
  try:
    with safetensors.safe_open(file.path, 'numpy') as stored:
      expected = by_path(abstract_params(RAHF(description.model)))
      _check_arrays(path, stored, expected)
      arrays = {name: stored.get_tensor(name) for name in expected}
  except safetensors.SafetensorError as error:
    raise InputError(f'{path} is damaged ({error}); copy or export it again') from None
  return traverse_util.unflatten_dict(arrays, sep='/')


def _check_arrays(
  path: epath.Path, stored: Any, expected: Mapping[str, jax.ShapeDtypeStruct]
) -> None:
  found = {name: stored.get_slice(name) for name in stored.keys()}  # noqa: SIM118
  described = {
    name: f'{part.get_dtype()}{part.get_shape()}' for name, part in found.items()
  }
  wanted = {
    name: f'{_dtype_name(leaf.dtype)}{list(leaf.shape)}'
    for name, leaf in expected.items()
  }
  problems = [
    f'{name} is {described.get(name, "missing")}, the model has '
    f'{wanted.get(name, "no such array")}'
    for name in sorted(described.keys() | wanted.keys())
    if described.get(name) != wanted.get(name)
  ]
  if problems:
    more = len(problems) - SHOWN_PROBLEMS
    tail = [f'… and {more} more'] if more > 0 else []
    raise InputError(
      f'{path} does not fit the architecture in {DESCRIPTION}:\n  '
      + '\n  '.join(problems[:SHOWN_PROBLEMS] + tail)
    )


def _dtype_name(dtype: np.dtype) -> str:
  """Returns the name of a float dtype in safetensors."""
  return f'F{8 * np.dtype(dtype).itemsize}'
