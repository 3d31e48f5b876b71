"""Detects Git LFS pointers, which a clone without LFS has in place of the data."""

import os

from rahf.errors import InputError

# The first bytes of every pointer, as many as are needed to recognise one.
START = b'version https://git-lfs.github.com/spec/'


def is_pointer(head: bytes) -> bool:
  """Returns whether a file that starts with these bytes is a Git LFS pointer."""
  return head.startswith(START)


def check(path: str | os.PathLike, head: bytes) -> None:
  """Raises InputError if a file that starts with these bytes is a Git LFS pointer.

  Args:
    path: names the file in the error.
    head: its first bytes, at least as many as START has.
  """
  if is_pointer(head):
    raise InputError(
      f'{path} is a Git LFS pointer, not the data: run `git lfs pull` in its clone'
    )
