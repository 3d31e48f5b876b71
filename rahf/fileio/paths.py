"""Resolves paths given by users, local or in a bucket."""

import os
import sys

from etils import epath

from rahf.errors import InputError


def find(path: str | os.PathLike, name: str) -> epath.Path:
  """Returns the path, with ~ expanded.

  Args:
    name: of the flag or setting, for errors.

  Raises:
    InputError: it is empty, or has an unknown scheme.
  """
  if not os.fspath(path):
    raise InputError(f'{name} is empty; give a path')
  try:
    return epath.Path(path).expanduser()
  except KeyError:  # etils raises this for unknown schemes.
    raise InputError(
      f'{name} = {path}: unknown kind of URL; give a local path, or one in a bucket '
      '(gs://…, s3://…)'
    ) from None


def new(path: str | os.PathLike, name: str) -> epath.Path:
  """Returns the path of an output, which is never written over anything.

  Args:
    name: of the flag, for errors.

  Raises:
    InputError: as for `find`; it exists, or its folder does not.
  """
  found = find(path, name)
  if found.exists():
    raise InputError(f'{name}={found} exists; delete it, or choose another name')
  # Buckets have no folders.
  if is_local(found) and not found.parent.is_dir():
    raise InputError(f'{name}={found}: the folder {found.parent} does not exist')
  return found


def absolute(path: epath.Path) -> epath.Path:
  """Returns an absolute path; one in a bucket is so already.

  `epath.Path.absolute` would turn gs://bucket/x into a local path below the current
  folder.
  """
  return path.absolute() if is_local(path) else path


def is_local(path: epath.Path) -> bool:
  """Returns whether a path is on this machine, not in a bucket."""
  return '://' not in os.fspath(path)


def read_errors() -> tuple[type[Exception], ...]:
  """Returns what reading a file can raise; TensorFlow has its own errors for buckets.

  For `except`, so that TensorFlow is only looked up when something was raised.
  """
  tensorflow = sys.modules.get('tensorflow')
  return (OSError, tensorflow.errors.OpError) if tensorflow else (OSError,)
