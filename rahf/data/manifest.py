"""manifest.json beside a data set's shards: how large each is, and its checksum.

TFRecords have checksums of every record, but a file cut between two records is a valid
one, and so is one of another version.
"""

import hashlib
import json
import os
import pathlib

import tqdm

from rahf.errors import InputError

NAME = 'manifest.json'


def write(folder: os.PathLike | str) -> None:
  """Writes size and SHA-256 of every shard in a prepared directory."""
  folder = pathlib.Path(folder)
  shards = {
    path.name: {'bytes': path.stat().st_size, 'sha256': _digest(path)}
    for path in sorted(folder.glob('*.tfrecord*'))
  }
  partial = folder / f'.{NAME}.{os.getpid()}'
  partial.write_text(json.dumps({'shards': shards}, indent=2) + '\n')
  partial.replace(folder / NAME)


def check(folder: os.PathLike | str) -> list[str]:
  """Returns a sentence for each shard that is not as it was written.

  Without a manifest, as in data sets that others prepared, there is nothing to say.

  Raises:
    InputError: the manifest cannot be read.
  """
  folder = pathlib.Path(folder)
  path = folder / NAME
  if not path.exists():
    return []
  try:
    shards = json.loads(path.read_text())['shards']
    expected = {name: (one['bytes'], one['sha256']) for name, one in shards.items()}
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise InputError(f'{path} cannot be read ({error!r}); copy it again') from None
  problems = []
  for name, (size, digest) in tqdm.tqdm(expected.items(), 'checksums', unit='shard'):
    shard = folder / name
    if not shard.exists():
      problems.append(f'{shard} is missing; copy it again')
    elif shard.stat().st_size != size:
      problems.append(
        f'{shard} has {shard.stat().st_size} bytes, not {size}; copy it again'
      )
    elif _digest(shard) != digest:
      problems.append(f'{shard} is not as it was written (SHA-256); copy it again')
  there = {shard.name for shard in folder.glob('*.tfrecord*')}
  problems += [
    f'{folder / name} is not in {NAME}; take it out of the way'
    for name in sorted(there - expected.keys())
  ]
  return problems


def _digest(path: pathlib.Path) -> str:
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()
