"""Finds a prepared data set and maps functions over its records."""

import concurrent.futures
import os
import pathlib
from collections.abc import Callable
from typing import TypeVar

import tqdm

from rahf.data.schema import DATASET_INFO
from rahf.data.storage import dataset_info
from rahf.data.storage.records import RecordSplit
from rahf.errors import InputError

_Result = TypeVar('_Result')


def find(path: os.PathLike | str) -> tuple[pathlib.Path, list[str]]:
  """Returns the prepared directory at or below `path`, and its splits' names.

  Raises:
    InputError: there is none, or more than one.
  """
  path = pathlib.Path(path)
  if not path.is_dir():
    raise InputError(f'{path}: no such folder')
  found = sorted(
    file.parent
    for file in path.rglob(DATASET_INFO)
    # Hidden folders are unfinished data sets.
    if not any(part.startswith('.') for part in file.relative_to(path).parts)
  )
  if len(found) != 1:
    names = ', '.join(map(str, found)) or 'no dataset_info.json below it'
    raise InputError(
      f'{path}: give one directory that `python -m rahf.data prepare` has written; '
      f'found {names}'
    )
  return found[0], [*dataset_info.read(found[0]).splits]


def map_records(
  split: RecordSplit, function: Callable[[RecordSplit, int], _Result]
) -> list[_Result]:
  """Returns function(split, position) for every record, with a progress bar.

  Calls run in parallel threads (image decoding releases Python's GIL); a record is in
  memory only during its call.
  """
  with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    results = pool.map(lambda position: function(split, position), range(len(split)))
    bar = tqdm.tqdm(results, desc=f'{split.name:5}', total=len(split), unit='record')
    return list(bar)
