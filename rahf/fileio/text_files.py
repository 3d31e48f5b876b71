"""Decodes text files: UTF-8, with or without a byte order mark."""

import io
import os
import re
from collections.abc import Iterator
from typing import BinaryIO

from rahf.fileio import lfs_pointer

# `surrogateescape` maps bytes that are not UTF-8 to these.
_UNDECODED = re.compile('[\udc80-\udcff]')
_UTF_16_MARKS = ('\udcff\udcfe', '\udcfe\udcff')


def decode(data: bytes) -> str:
  """Returns the text, without a byte order mark.

  Raises:
    ValueError: it is not UTF-8, or is a Git LFS pointer.
  """
  if lfs_pointer.is_pointer(data):
    raise ValueError('it is a Git LFS pointer: run `git lfs pull` in its clone')
  text = data.decode('utf-8-sig', 'surrogateescape')
  check(text)
  return text


def check(text: str) -> None:
  """Checks decoded text, including text decoded with `surrogateescape`.

  UTF-16 without a byte order mark can be valid UTF-8, but contains many NULs.

  Raises:
    ValueError: it is not UTF-8.
  """
  if text.startswith(_UTF_16_MARKS):
    raise ValueError('it is UTF-16; save it as UTF-8')
  if '\0' in text:
    raise ValueError('it has NUL characters, as in UTF-16; save it as UTF-8')
  if found := _UNDECODED.search(text):
    byte = ord(found[0]) - 0xDC00
    raise ValueError(
      f'byte 0x{byte:02x} after {text[: found.start()][-20:]!r} is not UTF-8; save it '
      'as UTF-8'
    )


def lines(file: BinaryIO, path: str | os.PathLike, *, newline: str) -> Iterator[str]:
  """Yields the lines of a file, unchecked, including line ends.

  Args:
    file: opened at its start.
    path: names it in the error.
    newline: as for `open`: a newline character only, or '' for any line end. Other line
      ends of `str.splitlines`, such as U+2028, are part of a line.

  Raises:
    InputError: the file is a Git LFS pointer.
  """
  lfs_pointer.check(path, file.read(len(lfs_pointer.START)))
  file.seek(0)
  yield from io.TextIOWrapper(file, 'utf-8-sig', 'surrogateescape', newline)
