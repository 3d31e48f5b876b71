"""Opens any model that scores images: `rahf.load(path).score(images, prompts)`.

A directory with model.json is a RAHF that `--mode=export` wrote
(`inference/model_directory.py`); one with config.json, or a file, is a CLIP
(`inference/clip_directory.py`).
"""

import dataclasses
import os
from collections.abc import Sequence

import jax
from etils import epath

from rahf.errors import InputError
from rahf.fileio import digests
from rahf.inference import clip_directory, model_directory, model_files
from rahf.inference.clip_directory import ClipDescription
from rahf.inference.clip_model import ClipModel
from rahf.inference.model import Model
from rahf.inference.model_directory import Description
from rahf.models.sizes import DTYPES
from rahf.runtime import accelerator

SUPPORTED = 'a local directory, or one in a bucket (gs://…, s3://…)'


def load(
  path: str | os.PathLike,
  *,
  batch_size: int = 64,
  dtype: str | None = None,
  devices: Sequence[jax.Device] | None = None,
) -> Model | ClipModel:
  """Loads a RAHF from a model directory of `--mode=export`, or a CLIP.

  Nothing in it is run as code, and TensorFlow is not needed. `outputs` of the model
  says which scores, maps and words it gives, with ranges and directions.

  Args:
    path: of a local directory, or of one in a bucket (gs://…, s3://…), for which the
      client that etils.epath asks for must be installed. Of a CLIP: a Hugging Face
      directory, such as PickScore_v1, a directory of OpenCLIP, or a file of OpenAI or
      OpenCLIP, with its vocabulary in the same directory.
    batch_size: the largest number of images computed together. Smaller batches are
      padded to a quarter of it, a sixteenth and so on, or 1. Each size compiles once.
    dtype: compute dtype, 'float32' or 'bfloat16'; None for that of training, which for
      a CLIP is taken to be float32.
    devices: to split batches over; None for the first device of this process.

  Raises:
    InputError: there is no such model, it is damaged (files of a model directory are
      compared with their SHA-256), or this version cannot read it; or JAX was installed
      or set to use a GPU or TPU, finds none, and no devices are given.
    OSError: the GPU or TPU cannot be used now.
  """
  if devices is None:
    accelerator.start(accelerator.choose())
  folder = find(path)
  description = read_description(folder)
  if dtype is not None:
    if dtype not in DTYPES:
      raise InputError(f'dtype = {dtype!r} is not one of {", ".join(DTYPES)}')
    sizes = dataclasses.replace(description.model, dtype=dtype)
    description = dataclasses.replace(description, model=sizes)
  options = {'batch_size': batch_size, 'devices': devices}
  if isinstance(description, ClipDescription):
    return ClipModel(description, clip_directory.read_params(description), **options)
  tokenizer = model_files.read_tokenizer(folder, description)
  params = model_files.read_params(folder, description)
  return Model(description, params, tokenizer, **options)


def read_description(path: epath.Path) -> Description | ClipDescription:
  """Reads what a model says and how, but not its parameters.

  Args:
    path: that `find` returned.

  Raises:
    InputError: it is damaged, is another kind of model, or cannot be read by this
      version.
  """
  if (path / model_directory.DESCRIPTION).exists():
    return model_directory.read_description(path)
  return clip_directory.read_description(path)


def fingerprint(path: epath.Path, description: Description | ClipDescription) -> str:
  """Returns the SHA-256 of everything that the results of a model depend on."""
  names = (
    model_directory.DESCRIPTION,
    model_directory.TOKENIZER,
    model_directory.WEIGHTS,
  )
  # Older versions did not store digests of the files.
  return description.fingerprint or digests.joint(path / name for name in names)


def find(path: str | os.PathLike) -> epath.Path:
  """Returns the path of a model directory or a CLIP.

  Raises:
    InputError: there is no model, or it cannot be reached.
  """
  if not isinstance(path, str | os.PathLike):
    raise InputError(f'{path!r} is not the path of a model directory; give {SUPPORTED}')
  name = os.fspath(path)
  if not name:
    raise InputError(f'the path of a model is empty; give {SUPPORTED}')
  if '://' in name and not name.startswith(('gs://', 's3://')):
    raise InputError(f'{name} cannot be opened; give {SUPPORTED}')
  folder = epath.Path(path).expanduser()
  try:
    if is_model(folder):
      return folder
    exists = folder.exists()
  except Exception as error:  # Each bucket client has its own errors.
    if '://' not in name:
      raise
    raise InputError(f'{name} cannot be reached: {error}') from error
  if not exists:
    raise InputError(f'{name} does not exist; give {SUPPORTED}')
  if _is_workdir(folder):
    inside = folder / 'export'
    hint = (
      f'give {inside}' if is_model(inside) else 'export it first, with --mode=export'
    )
    raise InputError(f'{name} is a work directory, not a model directory; {hint}')
  raise InputError(
    f'{name} is not a model directory, it has no {model_directory.DESCRIPTION} (python '
    f'-m rahf.main --mode=export writes one) and no {clip_directory.CONFIG} or weights '
    'of a CLIP'
  )


def is_model(path: epath.Path) -> bool:
  """Returns whether a path seems to be a model directory or a CLIP."""
  if (path / model_directory.DESCRIPTION).exists():
    return True
  return path.exists() and not _is_workdir(path) and clip_directory.is_clip(path)


def _is_workdir(path: epath.Path) -> bool:
  return (path / 'checkpoints').exists()
