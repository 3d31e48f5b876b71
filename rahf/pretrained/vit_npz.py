"""Reads the .npz files of the Vision Transformer releases (augreg, in21k).

Older files number the parts of a block consecutively (`LayerNorm_2`, `MlpBlock_3`),
newer ones by kind, like our parameters.
"""

import contextlib
import functools
import math
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from etils import epath

from rahf.errors import InputError
from rahf.fileio.local_file import LocalFile, local_file
from rahf.pretrained.source import Source, Weight

OLDER_NAMES = {
  '/LayerNorm_2/': '/LayerNorm_1/',
  '/MlpBlock_3/': '/MlpBlock_0/',
  '/MultiHeadDotProductAttention_1/': '/MultiHeadDotProductAttention_0/',
}
IGNORED = {
  'head/': 'pretraining classifier',
  'pre_logits/': 'layer before the pretraining classifier',
}
KNOWN = re.compile(
  r'cls|embedding/(kernel|bias)'
  r'|Transformer/(posembed_input/pos_embedding|encoder_norm/(scale|bias)'
  r'|encoderblock_\d+/(LayerNorm_[01]/(scale|bias)|MlpBlock_0/Dense_[01]/(kernel|bias)'
  r'|MultiHeadDotProductAttention_0/(query|key|value|out)/(kernel|bias)))'
)


def open_vit_npz(path: epath.PathLike) -> Source:
  """Opens a release without reading its arrays.

  Raises:
    InputError: an array is a pickle, is unknown, or duplicates another.
  """
  file = local_file(epath.Path(path))
  weights, ignored = {}, {}
  for name, (shape, dtype) in _headers(file, path).items():
    reason = next((IGNORED[p] for p in IGNORED if name.startswith(p)), None)
    if reason:
      ignored[name] = reason
      continue
    ours = name
    for older, newer in OLDER_NAMES.items():
      ours = ours.replace(older, newer)
    if not KNOWN.fullmatch(ours):
      raise InputError(
        f'{path}: {name} {list(shape)} has no place in a ViT; releases of '
        'vision_transformer without convolutions (ViT-B_16 and the like) can be read'
      )
    ours = f'vit/{ours}'
    if ours in weights:
      raise InputError(
        f'{path} contains both {weights[ours].name} and {name}, which are the same '
        'parameter; remove one of them'
      )
    read = functools.partial(_read, file, path, name)
    weights[ours] = Weight(name, shape, dtype, read)
  return Source(
    kind='ViT release (.npz)',
    path=str(path),
    weights=weights,
    ignored=ignored,
    settings=vit_settings(weights, path),
  )


def _headers(file: LocalFile, path: epath.PathLike) -> dict[str, tuple[tuple, Any]]:
  """Returns the shape and dtype of each array from its header."""
  headers = {}
  with _report_damage(path), zipfile.ZipFile(file.path) as archive:
    for member in archive.namelist():
      name = member.removesuffix('.npy')
      with archive.open(member) as stream:
        try:
          version = np.lib.format.read_magic(stream)
          read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
          }[version]
          shape, _, dtype = read(stream)
          size = archive.getinfo(member).file_size - stream.tell()
          if not dtype.hasobject and size != math.prod(shape) * dtype.itemsize:
            raise ValueError(f'{size} bytes are not {list(shape)} of {dtype}')
        except (KeyError, ValueError) as error:
          raise InputError(f'{path}: {member} is not a NumPy array: {error}') from None
      if dtype.hasobject:
        raise InputError(
          f'{path}: {name} is a pickle, which could run any code; it is not read'
        )
      headers[name] = shape, _real_dtype(dtype)
  return headers


def _real_dtype(dtype: np.dtype) -> np.dtype:
  """Returns bfloat16 for NumPy's void type of two bytes, as which it is saved."""
  return np.dtype(jnp.bfloat16) if dtype == np.dtype('V2') else dtype


def _read(file: LocalFile, path: epath.PathLike, name: str) -> np.ndarray:
  with _report_damage(path), np.load(file.path, allow_pickle=False) as archive:
    array = archive[name]
  return array.view(_real_dtype(array.dtype))


@contextlib.contextmanager
def _report_damage(path: epath.PathLike) -> Iterator[None]:
  try:
    yield
  except (zipfile.BadZipFile, zlib.error) as error:
    raise InputError(f'{path} is damaged: {error}; copy it again') from None


def vit_settings(weights: Mapping[str, Weight], path: epath.PathLike) -> dict[str, Any]:
  """Returns the settings that a ViT's arrays determine, and those of all releases.

  Raises:
    InputError: there is no ViT among the weights of `path`.
  """
  blocks = {p.split('/')[2] for p in weights if '/encoderblock_' in p}
  first = 'vit/Transformer/encoderblock_0'
  try:
    query = weights[f'{first}/MultiHeadDotProductAttention_0/query/kernel'].shape
    patch = weights['vit/embedding/kernel'].shape
    mlp = weights[f'{first}/MlpBlock_0/Dense_0/kernel'].shape
  except KeyError as error:
    raise InputError(f'{path} does not contain a ViT: it has no {error}') from None
  if len(query) != 3 or len(patch) != 4 or len(mlp) != 2:
    raise InputError(
      f'{path} does not contain a ViT: its kernels have shapes {query}, {patch}, {mlp}'
    )
  return {
    'vit.patch': patch[0],
    'vit.width': query[0],
    'vit.layers': len(blocks),
    'vit.heads': query[1],
    'vit.mlp': mlp[1],
    'vit.class_token': 'vit/cls' in weights,
    'vit.norm_epsilon': 1e-6,
    'vit.gelu': 'tanh',
  }
