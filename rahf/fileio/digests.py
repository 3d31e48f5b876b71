"""SHA-256 digests of a folder's files, stored with them and checked when reading."""

import dataclasses
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping

from etils import epath

from rahf.errors import InputError
from rahf.fileio import lfs_pointer

BLOCK = 2**20
POINTER_BYTES = 2000  # A Git LFS pointer has fewer.


@dataclasses.dataclass(frozen=True)
class Digest:
  """Size and checksum of a file.

  Attributes:
    bytes: its size.
    sha256: hexadecimal SHA-256 digest of its content.
  """

  bytes: int
  sha256: str


def digest(path: os.PathLike) -> Digest:
  """Returns the digest of a file, local or in a bucket."""
  size, sha256 = 0, hashlib.sha256()
  # Not hashlib.file_digest: files in a bucket may have no method but `read`.
  with epath.Path(path).open('rb') as file:
    while block := file.read(BLOCK):
      size += len(block)
      sha256.update(block)
  return Digest(size, sha256.hexdigest())


def joint(paths: Iterable[os.PathLike]) -> str:
  """Returns one SHA-256 of the contents of files in order, hexadecimal."""
  found = [digest(path).sha256 for path in paths]
  return hashlib.sha256(''.join(found).encode()).hexdigest()


def describe(folder: epath.Path) -> dict[str, Digest]:
  """Returns the digest of every file below a folder, by relative path."""
  return {name: digest(folder / name) for name in sorted(_names(folder))}


def _names(folder: epath.Path, prefix: str = '') -> Iterator[str]:
  for path in folder.iterdir():
    name = prefix + path.name
    if path.is_dir():
      yield from _names(path, f'{name}/')
    else:
      yield name


def check(
  path: epath.Path,
  name: str,
  expected: Mapping[str, Digest],
  copy: os.PathLike | None = None,
) -> None:
  """Checks that a file has not changed since it was written.

  Args:
    path: of the file, for errors.
    name: its key in `expected`.
    expected: digests by name; if empty, nothing is checked.
    copy: a local copy of the file, if it is not at `path`.

  Raises:
    InputError: the file has changed, or is not expected.
  """
  if not expected:
    return
  if name not in expected:
    raise InputError(
      f'{path} is not part of the exported model; export the model again'
    )
  found = digest(copy or path)
  if found == expected[name]:
    return
  if found.bytes < POINTER_BYTES:
    lfs_pointer.check(path, epath.Path(copy or path).read_bytes())
  problem = f'its SHA-256 is {found.sha256}, but was {expected[name].sha256}'
  if found.bytes != expected[name].bytes:
    problem = f'it has {found.bytes:,} bytes, but had {expected[name].bytes:,}'
  raise InputError(
    f'{path} is damaged: {problem} when it was exported; copy the file again, or '
    'export the model again'
  )
