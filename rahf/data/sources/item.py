"""The rows of a source and the interface of its readers."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

Wanted = Callable[[int], bool]
"""Returns whether to read the row at this position, from 0."""


class Item(NamedTuple):
  """One image and its prompt, not validated.

  Attributes:
    uid: the input's name for the image, '' if it has none.
    prompt: None or of another type if the input has no text there.
    image: bytes or a path.
    error: why there is no image, '' if there is one.
    extra: of the further column that `open_source` was asked for; None if the input has
      no such column, or no value there.
  """

  uid: str
  prompt: Any
  image: Any
  error: str = ''
  extra: Any = None


Load = Callable[[], Item]
"""Reads the image; several threads may call such functions at once."""


class Reader(Protocol):
  """Reads one file, or a folder of images, in constant memory."""

  def scan(self) -> tuple[int, str]:
    """Returns the number of rows and a fingerprint, without reading images.

    Raises:
      InputError: the file is damaged or lacks a column.
    """
    ...

  def read(self, wanted: Wanted) -> Iterator[tuple[int, Load]]:
    """Yields the position and row of all wanted rows, in order."""
    ...


@runtime_checkable
class TextReader(Protocol):
  """A reader that can do without reading the images."""

  def read_texts(self) -> Iterator[tuple[int, Item]]:
    """Yields the position of each row, and the row without its image."""
    ...


def digest(parts: Iterable[str]) -> str:
  """Returns a single digest of many strings."""
  state = hashlib.sha256()
  for part in parts:
    state.update(part.encode('utf-8', 'surrogateescape') + b'\0')
  return state.hexdigest()
