"""Checks that a checkpoint holds the arrays that were saved."""

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

_REMEDY = 'copy it again, or continue training, which passes it over'
# What a checkpoint's metadata say besides; of the time before format 1 nothing.
FORMAT = 1
# Of each array, by path: its dtype and shape in words, and its checksum.
Arrays = dict[str, tuple[str, int]]


class DamagedCheckpointError(InputError):
  """A checkpoint is not what was saved."""


def marks(state: Any) -> dict[str, Any]:
  """Returns what is saved with a checkpoint to know it again."""
  return {'format': FORMAT, 'rahf': __version__, 'arrays': _marked(state)}


def _marked(state: Any) -> Arrays:
  sums = checksums(state)
  return {path: (text, sums[path]) for path, text in _describe(state).items()}


def saved(where: epath.Path) -> Arrays:
  """Returns what a checkpoint's metadata say of its arrays; of old ones nothing.

  Raises:
    DamagedCheckpointError: the metadata cannot be read.
    InputError: a newer version wrote it.
  """
  with reading(where):
    # Orbax takes a file that it cannot read for an empty one.
    there = strict_json.read(where / METADATA).get('custom_metadata') or {}
    if there.get('format', 0) > FORMAT:
      raise InputError(
        f'{where} has format {there["format"]}, written by rahf {there.get("rahf")}; '
        f'this is rahf {__version__}, which reads format {FORMAT}: update it'
      )
    arrays = there.get('arrays', {})
    found = {path: (str(text), int(number)) for path, (text, number) in arrays.items()}
  if not found:
    print(f'{where} has no checksums, since an old version wrote it: read unchecked.')
  return found


@contextlib.contextmanager
def reading(where: epath.Path) -> Iterator[None]:
  """Turns whatever the readers below Orbax make of spoilt bytes into one error."""
  try:
    yield
  except InputError:
    raise
  except Exception as error:
    reason = ' '.join(str(error.__cause__ or error).split())[:300]
    raise DamagedCheckpointError(
      f'{where} cannot be read ({reason}); {_REMEDY}'
    ) from None


def tree(where: epath.Path, metadata: Any) -> Any:
  """Returns the tree of descriptions in an item's metadata, as Orbax gives them."""
  if metadata is None:
    raise DamagedCheckpointError(f'{where} is not complete; {_REMEDY}')
  return getattr(metadata, 'tree', metadata)


def check_arrays(where: epath.Path, stored: Any, abstract: Any, saved: Arrays) -> None:
  """Compares descriptions, before any array is read.

  Args:
    stored: what the checkpoint's storage lists.
    abstract: what the model expects.
    saved: what `saved` returned; tells damage from another model.

  Raises:
    DamagedCheckpointError: storage and metadata contradict each other.
    InputError: an array is missing, unknown, or of another shape or dtype.
  """
  expected, found = _describe(abstract), _describe(stored)
  if saved and found != {path: text for path, (text, _) in saved.items()}:
    raise DamagedCheckpointError(
      f'{where}: what it lists is not what was saved; {_REMEDY}'
    )
  for path in sorted(expected.keys() | found.keys()):
    if expected.get(path) != found.get(path):
      raise InputError(
        f'{where}: {path} is {found.get(path, "missing")}, but the model has '
        f'{expected.get(path, "no such array")}; was it written with another config?'
      )


def check_sums(where: epath.Path, state: Any, saved: Arrays) -> None:
  """Raises DamagedCheckpointError if an array is not as it was saved."""
  if not saved:
    return
  changed = [path for path, mark in _marked(state).items() if saved.get(path) != mark]
  if changed:
    raise DamagedCheckpointError(
      f'{where}: {changed[0]} is not as it was saved, by its checksum, the first of '
      f'{len(changed)} such arrays; {_REMEDY}'
    )


def _describe(tree: Any) -> dict[str, str]:
  """Maps the path of each array to its dtype and shape in words."""
  return {
    path: f'{np.dtype(leaf.dtype).name}{list(leaf.shape)}'
    for path, leaf in by_path(tree).items()
  }
