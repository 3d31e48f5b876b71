"""Reads the headers of files of arrays: safetensors, or PyTorch's own format.

Of a directory in Hugging Face's layout, in one or several files.
"""

import functools
import os
from collections.abc import Callable, Mapping

import jax.numpy as jnp
import numpy as np
import safetensors
from etils import epath

from rahf.errors import InputError
from rahf.fileio.local_file import LocalFile, local_file, refuse_pointer
from rahf.pretrained.hf_config import read_json
from rahf.pretrained.source import Weight
from rahf.pretrained.torch_archive import open_torch
from rahf.pretrained.torch_legacy import is_legacy, open_legacy

SINGLE, INDEX = 'model.safetensors', 'model.safetensors.index.json'
PICKLE, PICKLE_INDEX = 'pytorch_model.bin', 'pytorch_model.bin.index.json'
DIFFUSERS = 'diffusion_pytorch_model.safetensors'
DTYPES = {
  'F64': 'float64',
  'F32': 'float32',
  'F16': 'float16',
  'BF16': 'bfloat16',
  'I64': 'int64',
}

# Arrays by their name in the file, and in the file's layout.
Tensors = Mapping[str, Weight]


def read_tensors(directory: epath.Path, *, pickles: bool = True) -> dict[str, Weight]:
  """Reads the headers of the weight files in a directory.

  Args:
    pickles: whether files in PyTorch's own format are read, too.

  Raises:
    InputError: there are none, or they differ from the index.
  """
  found = _read_either(directory, SINGLE, INDEX, read_safetensors)
  names = f'neither {SINGLE} nor {INDEX}'
  if pickles and found is None:
    found = _read_either(directory, PICKLE, PICKLE_INDEX, read_torch)
    names += f' nor {PICKLE} nor {PICKLE_INDEX}'
  if found is None:
    raise InputError(
      f'{directory} has {names}; load the model with transformers and save it with '
      'save_pretrained'
    )
  return found


def read_diffusers(directory: epath.Path) -> dict[str, Weight]:
  """Reads the headers of diffusers' safetensors in a directory.

  Raises:
    InputError: there are none, or they differ from the index.
  """
  index = f'{DIFFUSERS}.index.json'
  found = _read_either(directory, DIFFUSERS, index, read_safetensors)
  if found is None:
    raise InputError(
      f'{directory} has neither {DIFFUSERS} nor {index}; load the model with diffusers '
      'and save it with save_pretrained'
    )
  return found


def _read_either(
  directory: epath.Path,
  single: str,
  index: str,
  read: Callable[[epath.Path], dict[str, Weight]],
) -> dict[str, Weight] | None:
  """Reads one file, or those of an index; None if there is neither."""
  if (directory / single).exists():
    return read(directory / single)
  if (directory / index).exists():
    return _read_sharded(directory / index, read)
  return None


def _read_sharded(
  index: epath.Path, read: Callable[[epath.Path], dict[str, Weight]]
) -> dict[str, Weight]:
  directory, places = index.parent, read_json(index).get('weight_map')
  if not isinstance(places, dict) or not all(
    isinstance(v, str) for v in places.values()
  ):
    raise InputError(f'{index} has no weight_map from names to files')
  tensors, files = {}, sorted(set(places.values()))
  for file_name in files:
    if os.path.basename(file_name) != file_name:
      raise InputError(
        f'{index} refers to {file_name!r}, which is outside its directory'
      )
    if not (directory / file_name).exists():
      raise InputError(
        f'{index} refers to {file_name}, which is missing; download it as well'
      )
  for file_name in files:
    found = read(directory / file_name)
    listed = {name for name, place in places.items() if place == file_name}
    if wrong := sorted(listed ^ found.keys()):
      raise InputError(
        f'{directory / file_name} and {index.name} differ in {", ".join(wrong[:5])}; '
        'download both again'
      )
    tensors |= found
  return tensors


def read_safetensors(path: epath.Path) -> dict[str, Weight]:
  """Reads the header of a safetensors file.

  Raises:
    InputError: it is damaged, or holds arrays of other types than `DTYPES`.
  """
  refuse_pointer(path)
  file, tensors = local_file(path), {}
  try:
    with safetensors.safe_open(file.path, framework='numpy') as archive:
      for name in archive.keys():  # noqa: SIM118, not a mapping
        part = archive.get_slice(name)
        dtype = DTYPES.get(part.get_dtype())
        if dtype is None:
          raise InputError(
            f'{path}: {name} is of type {part.get_dtype()}; only '
            f'{", ".join(DTYPES)} can be read: save the model in one of these'
          )
        shape = tuple(part.get_shape())
        values = functools.partial(_read, file, name)
        tensors[name] = Weight(name, shape, jnp.dtype(dtype), values)
  except safetensors.SafetensorError as error:
    raise InputError(
      f'{path} is not a safetensors file, or is truncated: {error}; copy it again'
    ) from None
  return tensors


def _read(file: LocalFile, name: str) -> np.ndarray:
  # Reopened for each array: pages of a file that stays mapped would accumulate.
  with safetensors.safe_open(file.path, framework='numpy') as archive:
    return archive.get_tensor(name)


def read_torch(path: epath.PathLike) -> dict[str, Weight]:
  """Reads the header of a file in PyTorch's own format, of any version."""
  tensors = open_legacy(path) if is_legacy(path) else open_torch(path)
  return {
    name: Weight(name, tensor.shape, tensor.storage.dtype, tensor.read)
    for name, tensor in tensors.items()
  }


def read_weights(path: epath.Path) -> dict[str, Weight]:
  """Reads the header of a file of any format, which its first bytes tell."""
  with path.open('rb') as file:
    archive = file.read(4) == b'PK\x03\x04'
  of_torch = archive or is_legacy(path)
  return read_torch(path) if of_torch else read_safetensors(path)
