"""Paths given by users, local or in a bucket."""

import os

from etils import epath

from rahf.errors import InputError


def find(path: str | os.PathLike, name: str) -> epath.Path:
  """Returns a path as etils opens it.

  Args:
    name: of the flag or setting that gives it, for errors.

  Raises:
    InputError: it is empty, or of a kind that nobody knows.
  """
  if not os.fspath(path):
    raise InputError(f'{name} is empty; give a path')
  try:
    return epath.Path(path).expanduser()
  except KeyError:  # So etils says that it has no such scheme.
    raise InputError(
      f'{name} = {path}: nothing that can be opened begins like this; give a local '
      'path, or one in a bucket (gs://…, s3://…)'
    ) from None
