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


def target_directory(
  data_dir: os.PathLike | str, name: str, version: str, overwrite: bool
) -> pathlib.Path:
  """Returns the output directory of a data set and checks that it may be written.

  Raises:
    InputError: it exists and may not be replaced, or is not a data set; or the name is
      not a valid folder name, or is reserved for generated data.
  """
  if not re.fullmatch(r'[A-Za-z0-9_][\w.-]*', name) or name == 'shapes':
    raise InputError(
      f'--name {name!r} must be letters, digits, _, - and ., not "shapes"'
    )
  folder = pathlib.Path(data_dir) / name / version
  if folder.exists() and not overwrite:
    raise InputError(f'{folder} exists; give --overwrite to replace it')
  if folder.exists() and not (folder / schema.DATASET_INFO).exists():
    raise InputError(
      f'{folder} exists but is not a prepared data set; move it away first'
    )
  return folder


def assign_split(prompt: str, dev: float, test: float) -> str:
  """Returns the split of all images of a prompt; depends on nothing else.

  Args:
    dev, test: shares of the prompts; the rest is for training.

  Raises:
    InputError: they leave nothing to train on.
  """
  if dev < 0 or test < 0 or dev + test >= 1:
    raise InputError(f'--dev {dev} and --test {test} leave nothing to train on')
  digest = hashlib.sha256(prompt.encode()).digest()
  position = int.from_bytes(digest[:8], 'big') / 2**64
  if position < test:
    return 'test'
  return 'dev' if position < test + dev else 'train'


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
  """Makes the records of all samples and writes them as a prepared data set.

  An existing data set is replaced only once everything is written. Until then, finished
  parts are kept in `.<name>-<version>.partial` next to it, from where the same call
  continues after an interruption.

  Args:
    folder: as returned by `target_directory`.
    samples: in an order that is efficient to read.
    make: makes their records.
    report: receives the lines and counts; written next to the shards.
    sources: option -> path that was read, for the report.
    overwrite: as for `target_directory`, which is checked again.
    inputs: files that records depend on, besides those of the samples.
    settings: settings that records depend on; stored in the manifest.
    workers: number of threads; None for one per core.
    finish: writes additional files into a folder, given the uids by split.

  Raises:
    InputError: a split has no usable record, a file is damaged, or another process is
      writing the same data set.
  """
  partial = folder.parents[1] / f'.{folder.parent.name}-{folder.name}.partial'
  with locks.locked(partial):
    target_directory(folder.parents[1], folder.parent.name, folder.name, overwrite)
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
        # May be left over from an earlier run.
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

  If anything fails, the parts are moved back.
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
