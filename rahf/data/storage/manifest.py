"""manifest.json: the counts and checksums of a data set.

Data format:
  shards    name -> {"records": int, "bytes": int, "sha256": hexadecimal}
  settings  option -> value that the data were made with

TFRecords have a checksum for every record, but these cannot reveal a file truncated
between two records, or one from another version of the data.
"""

import hashlib
import json
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import tqdm
from etils import epath

from rahf.data.storage import dataset_info
from rahf.errors import InputError
from rahf.fileio import atomic_write, strict_json

NAME = 'manifest.json'
_SHARD = re.compile(r'\w[\w.-]*-([a-z_]+)\.tfrecord[\w.-]*')
# Of RichHF-18K.
RELEASE_RECORDS = {'train': 15_810, 'dev': 995, 'test': 955}


class Shard(NamedTuple):
  """Size and checksum of a shard."""

  records: int
  bytes: int
  sha256: str


class Manifest(NamedTuple):
  """The content of the file."""

  shards: dict[str, Shard]
  settings: dict[str, Any]


def describe(path: pathlib.Path, records: int) -> Shard:
  """Returns the manifest entry of a shard."""
  return Shard(records, path.stat().st_size, _digest(path))


def describe_all(folder: pathlib.Path) -> dict[str, Shard]:
  """Returns the manifest entries of all shards that TFDS wrote, by name."""
  return {
    name: describe(folder / name, count)
    for shards in dataset_info.read(folder).splits.values()
    for name, count in shards.items()
  }


def write(
  folder: os.PathLike | str,
  shards: Mapping[str, Shard],
  settings: Mapping[str, Any] | None = None,
) -> None:
  """Writes the manifest of a prepared directory."""
  content = {
    'shards': {name: shard._asdict() for name, shard in sorted(shards.items())},
    'settings': dict(settings or {}),
  }
  atomic_write.write(epath.Path(folder) / NAME, json.dumps(content, indent=2) + '\n')


def read(folder: os.PathLike | str) -> Manifest | None:
  """Returns the manifest, or None if there is none (data prepared by other tools).

  Raises:
    InputError: it cannot be read.
  """
  path = epath.Path(folder) / NAME
  if not path.exists():
    return None
  try:
    content = strict_json.read(path)
    shards = {name: Shard(**shard) for name, shard in content['shards'].items()}
    if elsewhere := [name for name in shards if not _SHARD.fullmatch(name)]:
      raise ValueError(f'{elsewhere[0]!r:.80} is not the name of a shard')
    if wrong := [s for s in shards.values() if type(s.records) is not int]:
      raise ValueError(f'{wrong[0]!r:.80} has no valid number of records')
    return Manifest(shards, dict(content['settings']))
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise InputError(
      f'{path} cannot be read ({error!r:.300}); copy it or prepare the data again'
    ) from None


def check(folder: os.PathLike | str) -> list[str]:
  """Returns a sentence for each missing, damaged or unexpected shard.

  Raises:
    InputError: the manifest cannot be read.
  """
  folder, manifest = pathlib.Path(folder), read(folder)
  if manifest is None:
    return []
  problems = []
  shards = tqdm.tqdm(manifest.shards.items(), 'checksums', unit='shard')
  for name, expected in shards:
    shard = folder / name
    if not shard.exists():
      problems.append(f'{shard} is missing; copy it again')
    elif (size := shard.stat().st_size) != expected.bytes:
      problems.append(f'{shard} has {size} bytes, not {expected.bytes}; copy it again')
    elif _digest(shard) != expected.sha256:
      problems.append(f'{shard} has a different SHA-256 checksum; copy it again')
  there = {shard.name for shard in folder.glob('*.tfrecord*')}
  return problems + [
    f'{folder / name} is not in {NAME}; move it away'
    for name in sorted(there - manifest.shards.keys())
  ]


def compare(folder: os.PathLike | str, records: Mapping[str, int]) -> list[str]:
  """Returns a sentence for each split whose number of records is not the manifest's.

  Args:
    records: number of records found, by split.

  Raises:
    InputError: the manifest cannot be read.
  """
  manifest = read(folder)
  expected = _by_split(manifest.shards) if manifest else {}
  return _differences(folder, records, expected, NAME)


def compare_with_release(
  folder: os.PathLike | str, records: Mapping[str, int]
) -> list[str]:
  """Like `compare`, for RichHF-18K prepared by other tools, without a manifest."""
  folder = epath.Path(folder)
  if folder.parent.name != 'richhf18k' or (folder / NAME).exists():
    return []
  return _differences(folder, records, RELEASE_RECORDS, 'the release')


def _differences(
  folder: os.PathLike | str,
  found: Mapping[str, int],
  expected: Mapping[str, int],
  source: str,
) -> list[str]:
  return [
    f'{folder}: {split} has {number:,} records, {source} {expected[split]:,}; copy or '
    'prepare the data again'
    for split, number in found.items()
    if number != expected.get(split, number)
  ]


def _by_split(shards: Mapping[str, Shard]) -> dict[str, int]:
  records: dict[str, int] = {}
  for name, shard in shards.items():
    split = _SHARD.fullmatch(name)[1]
    records[split] = records.get(split, 0) + shard.records
  return records


def _digest(path: pathlib.Path) -> str:
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()
