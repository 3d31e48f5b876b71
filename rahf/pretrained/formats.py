"""Detects the format of pretrained weights by their content, and opens them."""

import dataclasses
import os
import zipfile
from typing import Any

from etils import epath
from flax import traverse_util

from rahf.errors import InputError
from rahf.fileio import lfs_pointer, paths
from rahf.models.vit import ViTConfig
from rahf.pretrained import muse_directory, rahf_directory
from rahf.pretrained.amused import INDEX, open_amused
from rahf.pretrained.clip import (
  CLIP_ARRAYS,
  NO_HINTS,
  Hints,
  clip_config,
  open_clip,
  openclip_weights,
)
from rahf.pretrained.huggingface import open_huggingface
from rahf.pretrained.inception import INCEPTION_ARRAYS, open_inception
from rahf.pretrained.rahf_directory import open_rahf_directory
from rahf.pretrained.rahf_torch import find_rahf_torch, open_rahf_torch
from rahf.pretrained.resnet import RESNET_ARRAYS, open_resnet
from rahf.pretrained.source import Source
from rahf.pretrained.t5x import find_t5x, open_t5x
from rahf.pretrained.tensors import read_weights
from rahf.pretrained.torch_legacy import is_legacy
from rahf.pretrained.vit_npz import open_vit_npz

KNOWN = (
  'a T5X checkpoint directory, a ViT release (.npz), a Hugging Face directory of a T5, '
  'ViT, CLIP or ResNet (config.json and model.safetensors), a CLIP of OpenAI or '
  "OpenCLIP, a ResNet of torchvision or timm, FID's Inception of pytorch-fid, an "
  'aMUSEd in the layout of diffusers (with model_index.json), the PyTorch RAHF '
  'checkpoint (a .pt file, or its directory), or what --mode=export wrote'
)


def open_source(
  path: epath.PathLike,
  vit: ViTConfig | None = None,
  hints: Hints = NO_HINTS,
) -> Source:
  """Opens pretrained weights; reads names and shapes, but not the arrays.

  Args:
    path: a file or directory, local or in a bucket (gs://…).
    vit: gives the number of attention heads, if it has the width of the file's ViT and
      the file does not tell.
    hints: gives heads and activations of a CLIP whose files do not tell.

  Raises:
    InputError: it is missing, damaged, of an unknown kind, or not safe to read.
  """
  path = paths.find(path, 'the path')
  if not _exists(path):
    raise InputError(
      f'{path} does not exist; nothing is downloaded. It should be {KNOWN}'
    )
  read = _open_directory if path.is_dir() else _open_file
  return read(path, vit, hints)


def _exists(path: epath.Path) -> bool:
  try:
    return path.exists()
  except Exception as error:  # Each bucket client has its own exceptions.
    if '://' not in os.fspath(path):
      raise
    raise InputError(f'{path} cannot be reached: {error}') from error


def _open_directory(path: epath.Path, vit: ViTConfig | None, hints: Hints) -> Source:
  if (path / muse_directory.DESCRIPTION).exists():
    return muse_directory.open_muse_directory(path)
  if found := find_t5x(path):
    return open_t5x(found)
  if (path / rahf_directory.DESCRIPTION).exists():
    return open_rahf_directory(path)
  if found := find_rahf_torch(path):
    return _open_rahf(found, vit)
  if (path / INDEX).exists():
    return open_amused(path)
  if (path / 'config.json').exists():
    return open_huggingface(path)
  if weights := openclip_weights(path):
    return open_clip(weights, hints)
  names = sorted(child.name for child in path.iterdir())
  if not names:
    raise InputError(f'{path} is an empty directory; it should be {KNOWN}')
  shown = ', '.join(names[:5]) + (', …' if len(names) > 5 else '')
  raise InputError(f'{path} contains {shown}, but should be {KNOWN}')


def _open_rahf(path: epath.Path, vit: ViTConfig | None) -> Source:
  if vit is None:
    return open_rahf_torch(path)
  return open_rahf_torch(path, vit_heads=vit.heads, vit_width=vit.width)


def _open_file(path: epath.Path, vit: ViTConfig | None, hints: Hints) -> Source:
  with path.open('rb') as stream:
    start = stream.read(len(lfs_pointer.START))
  lfs_pointer.check(path, start)
  if start[:4] == b'PK\x03\x04':
    try:
      with path.open('rb') as stream, zipfile.ZipFile(stream) as archive:
        names = archive.namelist()
    except zipfile.BadZipFile as error:
      raise InputError(
        f'{path} is damaged, perhaps truncated: {error}; copy it again'
      ) from None
    if any(name.endswith('/data.pkl') for name in names):
      return _open_single(path, hints) or _open_rahf(path, vit)
    if names and all(name.endswith('.npy') for name in names):
      return open_vit_npz(path)
    raise InputError(
      f'{path} is a zip archive, but not of NumPy or PyTorch arrays; it should be '
      f'{KNOWN}'
    )
  if is_legacy(path):
    return _open_single(path, hints) or _open_rahf(path, vit)
  if start[:1] == b'\x80':
    raise InputError(
      f'{path} is a pickle, but not one that torch.save wrote: it could run any code '
      'and is not read. If you trust its origin, load it and save its state dict with '
      'torch.save'
    )
  if start[8:9] == b'{':
    if source := _open_single(path, hints):
      return source
    raise InputError(
      f'{path} seems to be a safetensors file; give its directory, which must also '
      'contain config.json'
    )
  raise InputError(f'{path} has an unknown format; it should be {KNOWN}')


def _open_single(path: epath.Path, hints: Hints) -> Source | None:
  """Opens a CLIP, ResNet or Inception; None if it is something else or damaged."""
  try:
    names = read_weights(path).keys()
  except InputError:  # The other readers explain what is wrong.
    return None
  if names >= CLIP_ARRAYS:
    return open_clip(path, hints)
  if names >= INCEPTION_ARRAYS:
    return open_inception(path)
  return open_resnet(path) if names >= RESNET_ARRAYS else None


def clip_settings(path: epath.PathLike, gelu: str = '') -> dict[str, Any]:
  """Returns the sizes of a CLIP as `config.clip` has them; reads no arrays.

  Args:
    path: its weights, of any kind.
    gelu: its activation, if its files do not state it.

  Raises:
    InputError: see `open_source`; or it is not a CLIP, or states another activation.
  """
  hints = {name: dataclasses.replace(h, gelu=gelu) for name, h in NO_HINTS.items()}
  source = open_source(path, hints=hints)
  if 'clip.vision.width' not in source.settings:
    raise InputError(f'{path} is a {source.kind}, not a CLIP')
  config = clip_config(source)
  if gelu and gelu != config.vision.gelu:
    raise InputError(
      f'{path} states the activation {config.vision.gelu!r}, not {gelu!r}; leave it out'
    )
  return dataclasses.asdict(config)


def load(path: epath.PathLike) -> dict[str, Any]:
  """Reads all weights of a source, without checking them against a model.

  Returns:
    Nested dicts of arrays with our parameters' names and layouts, and the file's
    dtypes. Statistics of batch norms are in 'batch_stats'.

  Raises:
    InputError: see `open_source`.
  """
  arrays = {name: a.read() for name, a in open_source(path).arrays.items()}
  return traverse_util.unflatten_dict(arrays, sep='/')
