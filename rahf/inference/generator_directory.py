"""Reads a Muse: a directory of `--mode=export`, or of aMUSEd."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath
from flax import traverse_util
from ml_collections import ConfigDict

from rahf import config as config_lib
from rahf.data.clip_tokenizer import ClipTokenizer
from rahf.errors import InputError
from rahf.fileio import paths
from rahf.inference.generator import ROWS, Generator
from rahf.models import muse as muse_lib
from rahf.models.muse import MuseConfig
from rahf.pretrained import muse_directory
from rahf.pretrained.formats import open_source
from rahf.pretrained.source import Source
from rahf.runtime.tree import by_path


def load_generator(
  path: str | os.PathLike,
  *,
  rows: int = ROWS,
  sampling: Mapping[str, Any] | None = None,
  devices: Sequence[jax.Device] | None = None,
) -> Generator:
  """Loads a Muse: a directory of `--mode=export`, or of aMUSEd.

  Args:
    rows: that a device computes at once.
    sampling: fields of `SamplingConfig` that differ from those of the model, such as
      {'steps': 24}.
    devices: to split batches over; None for the first device of this process.

  Raises:
    InputError: there is no such model, it is damaged or has no transformer, or a
      setting is not valid.
  """
  folder = paths.find(path, 'the path')
  source = open_source(folder)
  config = _config(source, folder, sampling or {})
  muse = config_lib.muse_config(config)
  params = _read_params(source, muse)
  text = muse.text
  tokenizer = ClipTokenizer(
    folder / muse_directory.TOKENIZER, 'huggingface', text.text_length
  )
  if tokenizer.size != text.vocab_size:
    raise InputError(
      f'{folder / muse_directory.TOKENIZER} has {tokenizer.size:,} tokens, but the '
      f'text encoder has {text.vocab_size:,}; copy the model again'
    )
  return Generator(
    muse,
    config_lib.sampling_config(config),
    params,
    tokenizer,
    folder,
    f'{source.kind}, {muse.image_size} px, in JAX',
    rows=rows,
    devices=devices,
  )


def read_config(path: str | os.PathLike) -> ConfigDict:
  """Returns the default config with a Muse's own sizes and sampling; reads no arrays.

  Raises:
    InputError: there is no such model, it is damaged, or is not a Muse.
  """
  folder = paths.find(path, 'the path')
  source = open_source(folder)
  if 'muse.transformer.width' not in source.settings:
    raise InputError(f'{path} is a {source.kind}, not a Muse with a transformer')
  return _config(source, folder, {})


def _config(
  source: Source, folder: epath.Path, sampling: Mapping[str, Any]
) -> ConfigDict:
  """Returns the default config with the model's own sizes and sampling."""
  config = config_lib.default_config()
  given = {}
  if (folder / muse_directory.DESCRIPTION).exists():
    given = muse_directory.read_description(folder)['sampling']
  try:
    for field, value in source.settings.items():
      section, name = field.rsplit('.', 1)
      value = tuple(value) if isinstance(value, list) else value
      _section(config, section)[name] = value
    for name, value in {**given, **sampling}.items():
      config.sampling[name] = tuple(value) if isinstance(value, list) else value
  except (KeyError, AttributeError) as error:
    raise InputError(
      f'{folder}: a setting does not exist here ({error!s:.200}); update rahf'
    ) from None
  except TypeError as error:
    raise InputError(
      f'{folder}: a setting is of another type than here: {error!s:.200}'
    ) from None
  config_lib.validate(config)
  return config


def _section(config: ConfigDict, path: str) -> ConfigDict:
  for name in path.split('.'):
    config = config[name]
  return config


def _read_params(source: Source, muse: MuseConfig) -> dict[str, Any]:
  """Reads all parameters as nested arrays.

  Raises:
    InputError: one is missing, superfluous or of another shape.
  """
  abstract = by_path(muse_lib.abstract_params(muse))
  shapes = {path: leaf.shape for path, leaf in abstract.items()}
  found = {path: weight.shape for path, weight in source.weights.items()}
  if found != shapes:
    path = min(p for p in shapes.keys() | found if found.get(p) != shapes.get(p))
    if not any(name.startswith('transformer/') for name in found):
      raise InputError(
        f'{source.path} is an autoencoder only and cannot make images; give the export '
        "of a run with config.task = 'generator'"
      )
    raise InputError(
      f'{source.path} does not fit its description: {path} is '
      f'{found.get(path, "missing")}, but should be {shapes.get(path, "absent")}'
    )
  arrays = {
    path: np.asarray(weight.read(), np.float32)
    for path, weight in source.weights.items()
  }
  return traverse_util.unflatten_dict(arrays, sep='/')
