"""Loads pipelines of diffusers, and turns them into ones for inpainting.

Imports PyTorch and diffusers.
"""

import copy
import os
from typing import Any

import diffusers
import torch

from rahf.errors import InputError
from rahf.fileio import paths
from rahf.pretrained.amused import INDEX
from rahf.pretrained.hf_config import read_json

DTYPES = ('float32', 'bfloat16', 'float16')


def open_diffusers(
  path: str | os.PathLike, *, device: Any = None, dtype: str = 'float32'
) -> diffusers.DiffusionPipeline:
  """Loads a pipeline from a local directory, without its safety checker.

  Only safetensors are read, nothing is downloaded, and no code of the directory is run.

  Args:
    path: a directory with model_index.json.
    device: of PyTorch; None for the first GPU, or else the CPU.
    dtype: of all weights, 'float32', 'bfloat16' or 'float16'.

  Raises:
    InputError: there is no such directory, a file is missing or damaged, or its class
      is not one of diffusers.
  """
  folder = paths.find(path, 'the path')
  if dtype not in DTYPES:
    raise InputError(f'dtype = {dtype!r} is not one of {", ".join(DTYPES)}')
  if not paths.is_local(folder) or not (folder / INDEX).exists():
    raise InputError(f'{folder} is not a local directory with {INDEX}')
  index = read_json(folder / INDEX)
  name = index.get('_class_name')
  if not isinstance(name, str) or not hasattr(diffusers, name):
    raise InputError(
      f'{folder / INDEX}: diffusers {diffusers.__version__} has no class {name!r:.80}'
    )
  # A checker would blacken images. Pipelines without one warn of its names.
  checker = {'safety_checker': None, 'requires_safety_checker': False}
  try:
    pipeline = diffusers.DiffusionPipeline.from_pretrained(
      os.fspath(folder),
      local_files_only=True,
      use_safetensors=True,
      dtype=getattr(torch, dtype),
      **{name: value for name, value in checker.items() if name in index},
    )
  except (OSError, ValueError, TypeError, AttributeError, ImportError) as error:
    raise InputError(f'{folder} cannot be loaded as {name}: {error!s:.1000}') from error
  if device is None:
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
  return pipeline.to(device)


def for_inpainting(
  pipeline: diffusers.DiffusionPipeline,
) -> diffusers.DiffusionPipeline:
  """Makes a pipeline for inpainting of the parts of one for text to image.

  They are shared, but for the scheduler, whose settings aMUSEd's changes.

  Raises:
    InputError: there is none for its parts.
  """
  scheduler = copy.deepcopy(pipeline.scheduler)
  if is_amused(pipeline):
    # `AutoPipelineForInpainting` does not know it.
    parts = pipeline.components | {'scheduler': scheduler}
    return diffusers.AmusedInpaintPipeline(**parts)
  try:
    return diffusers.AutoPipelineForInpainting.from_pipe(pipeline, scheduler=scheduler)
  except ValueError:
    raise InputError(
      f'{type(pipeline).__name__} cannot inpaint; give a pipeline whose call takes a '
      'mask_image, such as StableDiffusionInpaintPipeline'
    ) from None


def is_amused(pipeline: diffusers.DiffusionPipeline) -> bool:
  """Returns whether a pipeline is one of aMUSEd's."""
  return type(pipeline).__name__.startswith('Amused')
