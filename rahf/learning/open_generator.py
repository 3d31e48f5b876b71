"""Opens any image generator: a Muse in JAX, other pipelines of diffusers in PyTorch."""

import os
from collections.abc import Sequence
from typing import Any

import jax

from rahf.errors import InputError
from rahf.fileio import paths
from rahf.inference.generator_directory import load_generator
from rahf.inference.image_generator import ImageGenerator, Inpainter
from rahf.pretrained import amused, muse_directory
from rahf.pretrained.hf_config import read_json


def open_generator(
  path: str | os.PathLike,
  *,
  rows: int,
  steps: int = 0,
  guidance: float = 0.0,
  devices: Sequence[jax.Device] | None = None,
) -> ImageGenerator:
  """Opens the directory of a Muse, or of another pipeline of diffusers.

  Args:
    rows: images that a device draws at once.
    steps, guidance: of the sampling; 0 for those of the model.
    devices: of JAX, for a Muse; None for the first. PyTorch has its own, see
      `diffusers_pipeline.open_diffusers`.

  Raises:
    InputError: there is no such model, it cannot be read or does not make images of
      prompts, it does not take a setting, or PyTorch and diffusers are not installed.
  """
  return _open('DiffusersGenerator', path, rows, steps, guidance, devices)


def open_inpainter(
  path: str | os.PathLike,
  *,
  rows: int,
  steps: int = 0,
  guidance: float = 0.0,
  devices: Sequence[jax.Device] | None = None,
) -> Inpainter:
  """Opens a model that inpaints; see `open_generator`."""
  return _open('DiffusersInpainter', path, rows, steps, guidance, devices)


def _open(
  bridge: str,
  path: str | os.PathLike,
  rows: int,
  steps: int,
  guidance: float,
  devices: Sequence[jax.Device] | None,
) -> Any:
  """Opens a Muse, which does both, or wraps a pipeline in a class of the bridge."""
  name = other_pipeline(path)
  if name is None:
    _check_draws(path)
    changes = {'steps': steps, 'guidance': guidance}
    sampling = {field: value for field, value in changes.items() if value}
    return load_generator(path, rows=rows, sampling=sampling, devices=devices)
  try:
    from rahf.learning import diffusers_bridge
    from rahf.learning.diffusers_pipeline import open_diffusers
  except ModuleNotFoundError as error:
    raise InputError(
      f'{path} is a {name} of diffusers, which needs {error.name}: pip install '
      '"rahf[diffusers]"'
    ) from error
  changes = {'num_inference_steps': steps, 'guidance_scale': guidance}
  settings = {field: value for field, value in changes.items() if value}
  wrap = getattr(diffusers_bridge, bridge)
  return wrap(open_diffusers(path), rows=rows, settings=settings, folder=path)


def _check_draws(path: str | os.PathLike) -> None:
  """Raises InputError for a folder that is certainly not a generator."""
  folder = paths.find(path, 'the path')
  if not folder.exists():
    raise InputError(f'{path} does not exist; give the folder of an image generator')
  if not folder.is_dir() or not any(
    (folder / name).exists() for name in (muse_directory.DESCRIPTION, amused.INDEX)
  ):
    raise InputError(
      f'{path} is not an image generator; give the export of a Muse (with '
      f'{muse_directory.DESCRIPTION}), or a directory of diffusers (with '
      f'{amused.INDEX})'
    )


def other_pipeline(path: str | os.PathLike) -> str | None:
  """Returns the class of a directory of diffusers; None for a Muse or anything else."""
  folder = paths.find(path, 'the path')
  if (folder / muse_directory.DESCRIPTION).exists():
    return None
  if not (folder / amused.INDEX).exists():
    return None
  name = str(read_json(folder / amused.INDEX).get('_class_name'))
  return None if name in amused.PIPELINES else name
