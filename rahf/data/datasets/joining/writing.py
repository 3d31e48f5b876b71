"""Writes records as a prepared data set."""

import contextlib
import hashlib
import os
import pathlib
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds

from rahf.data import schema
from rahf.data.datasets.joining import features, parts
from rahf.data.datasets.joining.parts import AnnotatedImage, Make, Part
from rahf.data.datasets.joining.report import Report
from rahf.data.storage import manifest
from rahf.errors import InputError
from rahf.fileio import locks

Finish = Callable[[pathlib.Path, Mapping[str, Sequence[str]]], None]


def target(
  data_dir: os.PathLike | str, name: str, version: str, overwrite: bool
) -> pathlib.Path:
  """Returns the directory that a data set will have, which is free.

  Raises:
    InputError: it is there already and may not be replaced, or is something else; or
      the name cannot be that of a folder, or stands for generated data.
  """
  if not re.fullmatch(r'[A-Za-z0-9_][\w.-]*', name) or name == 'shapes':
    raise InputError(
      f'--name {name!r} must be letters, digits, _, - and ., not "shapes"'
    )
  folder = pathlib.Path(data_dir) / name / version
  if folder.exists() and not overwrite:
    raise InputError(f'{folder} exists; give --overwrite to replace it')
  if folder.exists() and not (folder / 'dataset_info.json').exists():
    raise InputError(
      f'{folder} is not a prepared data set; take it out of the way first'
    )
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
  samples: Sequence[AnnotatedImage],
  make: Make,
  report: Report,
  *,
  sources: Mapping[str, os.PathLike | str | None],
  overwrite: bool = False,
  inputs: Sequence[pathlib.Path] = (),
  settings: Mapping[str, Any] | None = None,
  workers: int | None = None,
  finish: Finish = lambda folder, uids: None,
) -> None:
  """Joins samples to records and writes them as a prepared data set.

  What was there before is replaced when all is written, and stays if anything fails.
  Until then what is made lies in `.<name>-<version>.partial` beside it, where the same
  call continues after a kill.

  Args:
    folder: of `target`.
    samples: in the order in which they are read best.
    make: makes their records.
    report: gets the lines and counts; written beside the shards.
    sources: what was read, by option, for the report.
    overwrite: as for `target`; something may be there by now.
    inputs: files that records depend on besides those that samples are read from.
    settings: what else they depend on; kept in the manifest.
    workers: number of threads; None for one a core.
    finish: writes what else belongs there into a folder, given the uids by split.

  Raises:
    InputError: no record of a split is left, a file is damaged, or another process
      writes the same.
  """
  partial = folder.parents[1] / f'.{folder.parent.name}-{folder.name}.partial'
  with locks.locked(partial):
    target(folder.parents[1], folder.parent.name, folder.name, overwrite)
    workers, settings = workers or os.cpu_count() or 1, settings or {}
    made = parts.make_all(partial, samples, make, settings, inputs, workers)
    for part in made:
      report.lines += part.lines
      report.prepared.update({split: len(uids) for split, uids in part.uids.items()})
    report.check_prepared()
    uids = {
      split: [uid for part in made for uid in part.uids.get(split, ())]
      for split in schema.SPLITS
    }
    paths = {name: path and os.fspath(path) for name, path in sources.items()}
    with _assembled(partial, made, folder, settings) as complete:
      finish(complete, {split: found for split, found in uids.items() if found})
      report.write(complete / 'report.json', paths)
      folder.parent.mkdir(exist_ok=True)
      if folder.exists():
        # What is in the way may be left of an earlier time.
        shutil.rmtree(partial / 'replaced', ignore_errors=True)
        folder.rename(partial / 'replaced')
      complete.rename(folder)
    shutil.rmtree(partial)


@contextlib.contextmanager
def _assembled(
  partial: pathlib.Path,
  made: Sequence[Part],
  folder: pathlib.Path,
  settings: Mapping[str, Any],
) -> Iterator[pathlib.Path]:
  """Yields a folder with the parts as shards of a data set that TFDS can read.

  If anything fails, the parts are parts again.
  """
  complete, name = partial / 'complete', folder.parent.name
  shutil.rmtree(complete, ignore_errors=True)
  complete.mkdir()
  moved: list[tuple[pathlib.Path, pathlib.Path]] = []
  shards, infos = {}, []
  for split in schema.SPLITS:
    filled = [number for number, part in enumerate(made) if split in part.shards]
    for index, number in enumerate(filled):
      shard = f'{name}-{split}.tfrecord-{index:05d}-of-{len(filled):05d}'
      moved.append((parts.shard_path(partial, number, split), complete / shard))
      shards[shard] = made[number].shards[split]
    if filled:
      described = [made[number].shards[split] for number in filled]
      lengths = [shard.records for shard in described]
      size = sum(shard.bytes for shard in described)
      infos.append(
        tfds.core.SplitInfo(name=split, shard_lengths=lengths, num_bytes=size)
      )
  try:
    for part, shard in moved:
      part.rename(shard)
    manifest.write(complete, shards, settings)
    tfds.folder_dataset.write_metadata(
      data_dir=complete,
      features=features.record_features(),
      split_infos=infos,
      version=folder.name,
      check_data=False,
    )
    yield complete
  except BaseException:
    for part, shard in moved:
      if shard.exists():
        shard.rename(part)
    raise
