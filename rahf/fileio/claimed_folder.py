"""A folder of results that the same command continues after a stop, and no other.

It holds a file with everything that the results depend on.
"""

import contextlib
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath

from rahf.errors import InputError
from rahf.fileio import atomic_write, locks, strict_json


@contextlib.contextmanager
def claimed(
  folder: pathlib.Path, file: str, settings: Mapping[str, Any], flag: str
) -> Iterator[None]:
  """Locks a folder for this process, and records the settings in it if it is new.

  Args:
    folder: created if it does not exist.
    file: name of the file for the settings.
    settings: everything that the results depend on, as JSON values.
    flag: that gave the folder, for errors.

  Raises:
    InputError: the folder is not empty and was not written by this command; it has
      results of other settings; or another process is writing to it.
  """
  if _belongs_to_others(folder, file):
    raise InputError(
      f'{flag}={folder} exists and was not written by this command; choose another '
      'folder'
    )
  with locks.locked(folder):
    _claim(folder, folder / file, settings, flag)
    yield


def _belongs_to_others(folder: pathlib.Path, file: str) -> bool:
  if not folder.exists() or (folder / file).exists():
    return False
  return not folder.is_dir() or any(path.name != '.lock' for path in folder.iterdir())


def _claim(
  folder: pathlib.Path, path: pathlib.Path, settings: Mapping[str, Any], flag: str
) -> None:
  text = json.dumps(settings, indent=2) + '\n'
  if not path.exists():
    atomic_write.write(path, text)
    return
  found = strict_json.read_own(epath.Path(path), f'choose another {flag}')
  wanted = json.loads(text)
  if changed := sorted(name for name in wanted if found.get(name) != wanted[name]):
    raise InputError(
      f'{flag}={folder} has results with other settings ({", ".join(changed)}); give '
      'the same command as before, or another folder'
    )
