"""A folder of image files, with prompts from a table or from text files beside them."""

import functools
import hashlib
import os
import pathlib
from collections.abc import Iterator

from rahf.data.datasets import files
from rahf.data.datasets.files import SUFFIXES, version
from rahf.data.datasets.image_folder import read_prompts
from rahf.data.sources.item import Item, Load, Wanted
from rahf.errors import InputError


class ImageFiles:
  """The image files below a folder, by name; the uid is the path in the folder.

  Those whose name begins with a dot are passed over, and linked folders.
  """

  def __init__(self, folder: pathlib.Path, table: pathlib.Path | None):
    """Reads the table; all its prompts are held in memory.

    Args:
      table: uid, which is a file's name without extension, and prompt; see
        `read_prompts`. Without it cat.png has its prompt in cat.txt.

    Raises:
      InputError: the table is damaged, or has two prompts for one uid.
    """
    self._folder, self._table = folder, table
    self._prompts: dict[str, str] = {}
    for uid, prompt in read_prompts(table) if table else ():
      if self._prompts.setdefault(uid, prompt) != prompt:
        raise InputError(
          f'--prompts {table}: two prompts for {uid!r}; give a table with a column '
          '`image` of paths, as --input'
        )

  def scan(self) -> tuple[int, str]:
    """See `item.Reader`.

    Raises:
      InputError: not one image has a prompt.
    """
    count, with_prompt, state = 0, False, hashlib.sha256()
    for path in walk(self._folder):
      count += 1
      # As soon as one is found, the others are not looked for.
      with_prompt = with_prompt or self._has_prompt(path)
      state.update(os.fsencode(path.relative_to(self._folder)) + b'\0')
    if count and not with_prompt:
      raise InputError(
        f'{self._folder}: no image has a prompt in {self._table}, by its name without '
        'extension'
        if self._table
        else f'{self._folder}: no image has a text file beside it (cat.txt for '
        'cat.png); give a table of prompts by --prompts'
      )
    if self._table:
      state.update(version(self._table).encode())
    return count, state.hexdigest()

  def read(self, wanted: Wanted) -> Iterator[tuple[int, Load]]:
    """See `item.Reader`."""
    for number, path in enumerate(walk(self._folder)):
      if wanted(number):
        yield number, functools.partial(self._load, path)

  def _has_prompt(self, path: pathlib.Path) -> bool:
    return path.stem in self._prompts if self._table else _sidecar(path).is_file()

  def _load(self, path: pathlib.Path) -> Item:
    uid = path.relative_to(self._folder).as_posix()
    if self._table:
      error = '' if path.stem in self._prompts else f'no prompt in {self._table.name}'
      return Item(uid, self._prompts.get(path.stem), path, error)
    try:
      text = files.read(_sidecar(path), files.MOST_TEXT)
      prompt = text.decode('utf-8-sig').strip()
    except (OSError, ValueError) as error:
      return Item(uid, None, path, f'its prompt cannot be read: {error}')
    return Item(uid, prompt, path)


def walk(folder: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields the image files at and below a folder, each folder's names sorted."""
  with os.scandir(folder) as entries:
    found = sorted(entries, key=lambda entry: entry.name)
  for entry in found:
    if entry.name.startswith('.'):
      continue
    if entry.is_dir(follow_symlinks=False):
      yield from walk(pathlib.Path(entry.path))
    elif os.path.splitext(entry.name)[1].lower() in SUFFIXES:
      yield pathlib.Path(entry.path)


def _sidecar(path: pathlib.Path) -> pathlib.Path:
  return path.with_suffix('.txt')
