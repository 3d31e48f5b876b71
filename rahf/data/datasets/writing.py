"""Writes records as a prepared data set."""

import contextlib
import hashlib
import io
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterable, Mapping
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
    InputError: it is there already and may not be replaced, or is something else.
  """
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


def write(folder: pathlib.Path, splits: Mapping[str, Iterable[schema.Record]]) -> None:
  """Writes the records of each split as shards below `folder`, replacing what is there.

  Args:
    folder: of `target`.
    splits: records of one split may depend on how those before were consumed; each is
      gone through once.
  """
  if folder.exists():
    shutil.rmtree(folder)
  tfds.disable_progress_bar()
  # TFDS prints sizes that it does not know.
  with contextlib.redirect_stdout(io.StringIO()):
    builder = _Builder(
      name=folder.parent.name,
      version=folder.name,
      features=features.record_features(),
      split_datasets={
        split: ((record.uid, record._asdict()) for record in records)
        for split, records in splits.items()
      },
      data_dir=folder.parents[1],
    )
    with tempfile.TemporaryDirectory() as unused:
      builder.download_and_prepare(download_dir=unused)
  manifest.write(folder)
