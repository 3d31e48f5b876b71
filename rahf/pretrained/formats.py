"""Recognises a file of weights by its contents, and opens it."""

import os
import zipfile
from typing import Any

from etils import epath
from flax import traverse_util

from rahf.errors import InputError
from rahf.fileio import lfs_pointer, paths
from rahf.models.vit import ViTConfig
from rahf.pretrained.clip import NOTHING_KNOWN, Towers, is_clip, open_clip
from rahf.pretrained.huggingface import open_huggingface
from rahf.pretrained.rahf_torch import find_rahf_torch, open_rahf_torch
from rahf.pretrained.resnet import is_resnet, open_resnet
from rahf.pretrained.source import Source
from rahf.pretrained.t5x import find_t5x, open_t5x
from rahf.pretrained.vit_npz import open_vit_npz

KNOWN = (
  'a T5X checkpoint directory, a ViT release (.npz), a Hugging Face directory of a T5, '
  'ViT, CLIP or ResNet (config.json and model.safetensors), a CLIP of OpenAI or '
  'OpenCLIP, a ResNet of torchvision or timm, or the PyTorch RAHF checkpoint (a .pt '
  'file, or a directory of it)'
)


def open_source(
  path: epath.PathLike,
  vit: ViTConfig | None = None,
  towers: Towers = NOTHING_KNOWN,
) -> Source:
  """Opens weights of another project; reads names and shapes, but not the arrays.

  Args:
    path: a file or directory, local or in a bucket (gs://…).
    vit: has the number of attention heads, if it is of the width of the file's ViT and
      nothing else tells.
    towers: what to take of CLIP's two towers where its files do not say.

  Raises:
    InputError: it is missing, damaged, of a kind that is not known, or not safe to
      read.
  """
  path = paths.find(path, 'the path')
  if not _exists(path):
    raise InputError(f'{path} does not exist; it should be {KNOWN}')
  read = _open_directory if path.is_dir() else _open_file
  return read(path, vit, towers)


def _exists(path: epath.Path) -> bool:
  try:
    return path.exists()
  except Exception as error:  # Each client of a bucket has errors of its own.
    if '://' not in os.fspath(path):
      raise
    raise InputError(f'{path} cannot be reached: {error}') from error


def _open_directory(path: epath.Path, vit: ViTConfig | None, towers: Towers) -> Source:
  if found := find_t5x(path):
    return open_t5x(found)
  if (path / 'model.json').exists():
    raise InputError(
      f'{path} is a model that rahf exported, but training starts from weights of '
      'other projects; to score with it: python -m rahf.main --mode=infer '
      f'--model={path}'
    )
  if found := find_rahf_torch(path):
    return _open_rahf(found, vit)
  if is_clip(path):
    return open_clip(path, towers)
  if is_resnet(path):
    return open_resnet(path)
  if (path / 'config.json').exists():
    return open_huggingface(path)
  names = sorted(child.name for child in path.iterdir())
  if not names:
    raise InputError(f'{path} is an empty directory; it should be {KNOWN}')
  shown = ', '.join(names[:5]) + (', …' if len(names) > 5 else '')
  raise InputError(f'{path} holds {shown}, but should be {KNOWN}')


def _open_rahf(path: epath.Path, vit: ViTConfig | None) -> Source:
  if vit is None:
    return open_rahf_torch(path)
  return open_rahf_torch(path, vit_heads=vit.heads, vit_width=vit.width)


def _open_file(path: epath.Path, vit: ViTConfig | None, towers: Towers) -> Source:
  with path.open('rb') as stream:
    start = stream.read(len(lfs_pointer.START))
  lfs_pointer.check(path, start)
  if start[:4] == b'PK\x03\x04':
    try:
      with path.open('rb') as stream, zipfile.ZipFile(stream) as archive:
        names = archive.namelist()
    except zipfile.BadZipFile as error:
      raise InputError(
        f'{path} is damaged, perhaps cut off: {error}; copy it again'
      ) from None
    if any(name.endswith('/data.pkl') for name in names):
      if is_clip(path):
        return open_clip(path, towers)
      return open_resnet(path) if is_resnet(path) else _open_rahf(path, vit)
    if names and all(name.endswith('.npy') for name in names):
      return open_vit_npz(path)
    raise InputError(
      f'{path} is a zip archive of neither NumPy nor PyTorch arrays; it should be '
      f'{KNOWN}'
    )
  if start[:1] == b'\x80':
    raise InputError(
      f'{path} is a pickle, such as PyTorch before 1.6 wrote: it could run any code '
      'and is not read. Where its origin is trusted, load it in PyTorch and save its '
      'state dict with torch.save'
    )
  if start[8:9] == b'{':
    if is_clip(path):
      return open_clip(path, towers)
    if is_resnet(path):
      return open_resnet(path)
    raise InputError(
      f'{path} seems to be a safetensors file; give its directory, which must hold '
      'config.json too'
    )
  raise InputError(f'{path} is nothing that can be read; it should be {KNOWN}')


def load(path: epath.PathLike) -> dict[str, Any]:
  """Reads all weights of a source, without a model to check them against.

  Returns:
    Nested dicts of arrays in the names and layouts of our parameters, with the
    dtypes of the file.

  Raises:
    InputError: see `open_source`.
  """
  weights = open_source(path).weights
  arrays = {name: weight.read() for name, weight in weights.items()}
  return traverse_util.unflatten_dict(arrays, sep='/')
