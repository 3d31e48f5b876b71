"""Writes records as a prepared data set."""

import contextlib
import hashlib
import io
import os
import pathlib
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar

import tensorflow_datasets as tfds

from rahf.data import manifest, schema
from rahf.data.datasets import features
from rahf.errors import InputError


class _Builder(tfds.dataset_builders.AdhocBuilder, skip_registration=True):
  """Nothing is downloaded.

  TFDS would look for checksums beside the class by way of importlib_resources, which it
  does not declare.
  """

  url_infos: ClassVar = {}


def target(
  data_dir: os.PathLike | str, name: str, version: str, overwrite: bool
) -> pathlib.Path:
  """Returns the directory that a data set will have, which is free.

  Raises:
    InputError: it is there already and may not be replaced, or is something else; or
      the name is no name of a folder, or stands for generated data.
  """
  if not re.fullmatch(r'[A-Za-z0-9_][\w.-]*', name) or name == 'shapes':
    raise InputError(
      f'--name {name!r} must be letters, digits, _, - and ., not "shapes"'
    )
  folder = pathlib.Path(data_dir) / name / version
  if folder.exists() and not overwrite:
    raise InputError(f'{folder} exists; give --overwrite to replace it')
  if folder.exists() and not (folder / 'dataset_info.json').exists():
    raise InputError(f'{folder} is no prepared data set; take it out of the way first')
  return folder


def split_of(prompt: str, dev: float, test: float) -> str:
  """Returns the split of all images of a prompt, which depends on nothing else.

  Args:
    dev, test: shares of the prompts; the rest is for training.

  Raises:
    InputError: they leave nothing to train on.
  """
  if dev < 0 or test < 0 or dev + test >= 1:
    raise InputError(f'--dev {dev} and --test {test} leave nothing to train on')
  digest = hashlib.sha256(prompt.encode()).digest()
  place = int.from_bytes(digest[:8], 'big') / 2**64
  if place < test:
    return 'test'
  return 'dev' if place < test + dev else 'train'


def write(
  folder: pathlib.Path,
  splits: Mapping[str, Iterable[schema.Record]],
  finish: Callable[[pathlib.Path], None],
) -> None:
  """Writes the records of each split as shards below `folder`.

  What was there before is replaced when all is written, and stays if anything fails.

  Args:
    folder: of `target`.
    splits: gone through once, in this order.
    finish: writes what else belongs there into the folder that it is given.
  """
  name, version, data_dir = folder.parent.name, folder.name, folder.parents[1]
  data_dir.mkdir(parents=True, exist_ok=True)
  tfds.disable_progress_bar()
  with tempfile.TemporaryDirectory(prefix=f'.{name}-', dir=data_dir) as aside:
    # TFDS prints sizes that it does not know.
    with contextlib.redirect_stdout(io.StringIO()):
      builder = _Builder(
        name=name,
        version=version,
        features=features.record_features(),
        split_datasets={
          split: ((record.uid, record._asdict()) for record in records)
          for split, records in splits.items()
        },
        data_dir=aside,
      )
      builder.download_and_prepare(download_dir=f'{aside}/downloads')
    made = pathlib.Path(aside) / name / version
    manifest.write(made)
    finish(made)
    folder.parent.mkdir(exist_ok=True)
    if folder.exists():
      folder.rename(pathlib.Path(aside) / 'replaced')
    made.rename(folder)
