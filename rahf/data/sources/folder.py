"""Reads a folder of images, with prompts from a table or from text files."""

import functools
import hashlib
import os
import pathlib
from collections.abc import Iterator

from rahf.data.datasets.joining.prompt_table import FilePrompts
from rahf.data.images import files
from rahf.data.images.files import version
from rahf.data.sources.item import Item, Load, Wanted
from rahf.errors import InputError
from rahf.fileio import text_files


class ImageFiles:
  """The image files below a folder, sorted; the uid is the path in the folder.

  Images of unsupported formats are rows, too, so that their error is reported.
  """

  def __init__(
    self,
    folder: pathlib.Path,
    table: pathlib.Path | None,
    *,
    images_only: bool = False,
    extra: str = '',
  ):
    """Reads the table; all its prompts are held in memory.

    Args:
      table: names of images and their prompts; see `prompt_table`. Without it, the
        prompt of cat.png is read from cat.txt.
      images_only: whether prompts are neither needed nor read.
      extra: a further column of the table; see `Item.extra`.

    Raises:
      InputError: the table is damaged, or has two prompts for one name.
    """
    self._folder, self._table, self._images_only = folder, table, images_only
    self._prompts = FilePrompts(table, folder, extra) if table else None

  def scan(self) -> tuple[int, str]:
    """See `item.Reader`.

    Raises:
      InputError: no image has a prompt.
    """
    count, with_prompt, state = 0, self._images_only, hashlib.sha256()
    for path in walk(self._folder):
      count += 1
      # One prompt is enough; do not look for others.
      with_prompt = with_prompt or self._has_prompt(path)
      state.update(os.fsencode(path.relative_to(self._folder)) + b'\0')
    if count and not with_prompt:
      raise self._no_prompt()
    if self._table:
      state.update(version(self._table).encode())
    return count, state.hexdigest()

  def read(self, wanted: Wanted) -> Iterator[tuple[int, Load]]:
    """See `item.Reader`."""
    for number, path in enumerate(walk(self._folder)):
      if wanted(number):
        yield number, functools.partial(self._load, path)

  def _has_prompt(self, path: pathlib.Path) -> bool:
    if not self._prompts:
      return _sidecar(path).is_file()
    try:
      return self._prompts.find(path) is not None
    except ValueError:
      return True

  def _no_prompt(self) -> InputError:
    if not self._prompts:
      return InputError(
        f'{self._folder}: no image has a text file next to it (cat.txt for cat.png); '
        'give a table of prompts with --prompts'
      )
    first = next(walk(self._folder)).relative_to(self._folder)
    named = self._prompts.example()
    return InputError(
      f'{self._folder}: no image has a prompt in {self._table}, '
      + (f'which starts with {named!r}' if named else 'which has none')
      + f'; the first image is {str(first)!r}. Paths in the table must be relative to '
      'the folder of the images or that of the table'
    )

  def _load(self, path: pathlib.Path) -> Item:
    uid = path.relative_to(self._folder).as_posix()
    if self._images_only:
      return Item(uid, None, path)
    prompt, error, extra = None, '', None
    try:
      if self._prompts:
        if found := self._prompts.find(path):
          prompt, extra = found
        else:
          error = f'no prompt in {self._table.name}'
      else:
        text = files.read(_sidecar(path), files.MAX_TEXT_BYTES)
        prompt = text_files.decode(text).strip()
    except (OSError, ValueError) as reason:
      error = f'its prompt cannot be read: {reason}'
    return Item(uid, prompt, path, error, extra)


def walk(folder: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields the image files in a folder and its subfolders, sorted within each."""
  return filter(files.is_image, files.walk(folder))


def _sidecar(path: pathlib.Path) -> pathlib.Path:
  return path.with_suffix('.txt')
