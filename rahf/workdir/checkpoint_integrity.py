"""Checks that a checkpoint still holds the arrays that were saved."""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from etils import epath

from rahf.errors import InputError
from rahf.fileio import strict_json
from rahf.runtime.tree import by_path
from rahf.version import __version__
from rahf.workdir.checksums import checksums
from rahf.workdir.ownership import METADATA

_REMEDY = 'copy it again, or continue training, which skips it'
# Version of our metadata in a checkpoint; the oldest checkpoints have none.
FORMAT = 1
# For each array, by path: its dtype and shape as text, and its checksum.
Arrays = dict[str, tuple[str, int]]


class DamagedCheckpointError(InputError):
  """A checkpoint has changed since it was saved, or cannot be read."""


def metadata(state: Any) -> dict[str, Any]:
  """Returns the metadata to save with a checkpoint: format, version and checksums."""
  return {'format': FORMAT, 'rahf': __version__, 'arrays': _arrays(state)}


def _arrays(state: Any) -> Arrays:
  sums = checksums(state)
  return {path: (text, sums[path]) for path, text in _describe(state).items()}


def read_arrays(checkpoint: epath.Path) -> Arrays:
  """Reads the metadata of a checkpoint's arrays; empty for the oldest checkpoints.

  Raises:
    DamagedCheckpointError: the metadata cannot be read.
    InputError: a newer version wrote it.
  """
  with wrapped_errors(checkpoint):
    # Not read through Orbax, which treats an unreadable file as empty.
    own = strict_json.read(checkpoint / METADATA).get('custom_metadata') or {}
    if own.get('format', 0) > FORMAT:
      raise InputError(
        f'{checkpoint} has format {own["format"]}, written by rahf {own.get("rahf")}; '
        f'this is rahf {__version__}, which reads format {FORMAT}: update it'
      )
    arrays = own.get('arrays', {})
    found = {path: (str(text), int(number)) for path, (text, number) in arrays.items()}
  if not found:
    print(
      f'{checkpoint} has no checksums: an old version wrote it. Reading it unchecked.'
    )
  return found


@contextlib.contextmanager
def wrapped_errors(checkpoint: epath.Path) -> Iterator[None]:
  """Turns any error from reading damaged files into DamagedCheckpointError."""
  try:
    yield
  except InputError:
    raise
  except Exception as error:
    reason = ' '.join(str(error.__cause__ or error).split())[:300]
    raise DamagedCheckpointError(
      f'{checkpoint} cannot be read ({reason}); {_REMEDY}'
    ) from None


def tree(checkpoint: epath.Path, metadata: Any) -> Any:
  """Returns the tree of array descriptions in Orbax's metadata of an item."""
  if metadata is None:
    raise DamagedCheckpointError(f'{checkpoint} is not complete; {_REMEDY}')
  return getattr(metadata, 'tree', metadata)


def check_arrays(
  checkpoint: epath.Path, stored: Any, abstract: Any, saved: Arrays
) -> None:
  """Compares names, shapes and dtypes before any array is read.

  Args:
    stored: the arrays in the checkpoint's storage.
    abstract: the arrays that the model expects.
    saved: from `read_arrays`; distinguishes damage from another model.

  Raises:
    DamagedCheckpointError: storage and metadata disagree.
    InputError: an array is missing, unknown, or of another shape or dtype.
  """
  expected, found = _describe(abstract), _describe(stored)
  if saved and found != {path: text for path, (text, _) in saved.items()}:
    raise DamagedCheckpointError(
      f'{checkpoint}: its arrays are not those that were saved; {_REMEDY}'
    )
  for path in sorted(expected.keys() | found.keys()):
    if expected.get(path) != found.get(path):
      raise InputError(
        f'{checkpoint}: {path} is {found.get(path, "missing")}, but the model has '
        f'{expected.get(path, "no such array")}; was it written with another config?'
      )


def check_sums(checkpoint: epath.Path, state: Any, saved: Arrays) -> None:
  """Raises DamagedCheckpointError if an array has changed since it was saved."""
  if not saved:
    return
  changed = [path for path, mark in _arrays(state).items() if saved.get(path) != mark]
  if changed:
    raise DamagedCheckpointError(
      f'{checkpoint}: the checksums of {len(changed)} arrays are wrong, the first '
      f'{changed[0]}; {_REMEDY}'
    )


def _describe(tree: Any) -> dict[str, str]:
  """Maps the path of each array to its dtype and shape as text."""
  return {
    path: f'{np.dtype(leaf.dtype).name}{list(leaf.shape)}'
    for path, leaf in by_path(tree).items()
  }
