"""One row of a source, and the interface of a source."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, Protocol

Wanted = Callable[[int], bool]
"""Whether the row at this position, from 0, is to be read."""


class Item(NamedTuple):
  """One image and its prompt, not yet checked.

  Attributes:
    uid: what the input calls it, '' if nothing.
    prompt: None or of another type where the input has no text.
    image: bytes or a path.
    error: why there is no image, '' if there is one.
  """

  uid: str
  prompt: Any
  image: Any
  error: str = ''


Load = Callable[[], Item]
"""Reads the image; threads may call several at once."""


class Reader(Protocol):
  """Reads one file, or a folder of images; nothing is held that grows with its rows."""

  def scan(self) -> tuple[int, str]:
    """Counts the rows without reading an image; also returns what tells it from others.

    Raises:
      InputError: it is damaged, or lacks a column.
    """
    ...

  def read(self, wanted: Wanted) -> Iterator[tuple[int, Load]]:
    """Yields position and row of those that are wanted, in order."""
    ...


def digest(parts: Iterable[str]) -> str:
  """Returns one digest of many strings."""
  state = hashlib.sha256()
  for part in parts:
    state.update(part.encode('utf-8', 'surrogateescape') + b'\0')
  return state.hexdigest()
