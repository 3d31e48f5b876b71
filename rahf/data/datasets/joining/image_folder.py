"""Finds images by uid in a folder or tar archive, and their prompts in a table."""

import os
import pathlib
from collections.abc import Collection, Iterator

from rahf.data.datasets.joining import prompt_table
from rahf.data.images.files import SUFFIXES, open_files


class ImageFolder:
  """The wanted uids found among files named <uid>.<png, jpg, jpeg or webp>.

  Attributes:
    locations: wanted uids that were found -> the file on disk and, for an archive, the
      path in it; in reading order. If a uid has only a file of an unsupported format,
      that is used, so that its error is reported.
    parallel: whether several threads may read at once.
    linked: symlinked folders, which are not searched.
    prompts: uid -> prompt of its first row in the table.
    unprompted: uid -> why the table's prompts for it are not used.
    repeated: uid -> which of several files is used.
    conflicts: uid -> the differing prompts.
  """

  def __init__(
    self, folder: os.PathLike | str, table: os.PathLike | str, wanted: Collection[str]
  ):
    """Lists the files of `folder`, which may be an archive, and reads the table.

    Raises:
      InputError: there is no image file, or the table is damaged or lacks a column.
    """
    self._files = open_files(folder)
    self.parallel, self.linked = self._files.parallel, self._files.linked
    self.locations: dict[str, tuple[pathlib.Path, pathlib.PurePath]] = {}
    self.prompts: dict[str, str] = {}
    self.unprompted: dict[str, str] = {}
    self.repeated: dict[str, str] = {}
    self.conflicts: dict[str, str] = {}
    self._roots = [
      os.path.abspath(root) for root in (folder, pathlib.Path(table).parent)
    ]
    wanted = set(wanted)
    self._find_images(wanted)
    self._find_prompts(table, wanted)

  def read(self, uids: Collection[str]) -> Iterator[tuple[str, bytes]]:
    """Yields (uid, unchanged image bytes)."""
    for uid in uids:
      yield uid, self._files.read(self.locations[uid][1])

  def _find_images(self, wanted: set[str]) -> None:
    unreadable = {}
    for path in self._files.paths:
      if path.stem not in wanted:
        continue
      location = self._files.file(path), path
      if path.suffix.lower() not in SUFFIXES:
        unreadable.setdefault(path.stem, location)
      elif path.stem in self.locations:
        first = self.locations[path.stem][1]
        self.repeated[path.stem] = f'{first} used, not {path}'
      else:
        self.locations[path.stem] = location
    for uid in self.locations.keys() & unreadable.keys():
      del unreadable[uid]
    self.locations |= unreadable

  def _find_prompts(self, table: os.PathLike | str, wanted: set[str]) -> None:
    rows, are_paths = [], False
    for row in prompt_table.read(table):
      are_paths |= not row.uid and prompt_table.has_folder(row.path)
      if prompt_table.uid_of(row) in wanted:
        rows.append(row)
    for row in rows:
      uid, prompt = prompt_table.uid_of(row), row.prompt
      if are_paths and not row.uid and not self._is_at(uid, row.path):
        image = self.locations[uid][1]
        self.unprompted[uid] = f'the table has one for {row.path}, not for {image}'
      elif prompt != self.prompts.setdefault(uid, prompt):
        self.conflicts[uid] = f'{self.prompts[uid]!r} used, not {prompt!r}'

  def _is_at(self, uid: str, path: str) -> bool:
    """Returns whether an image is at the given path, or was not found at all."""
    if uid not in self.locations:
      return True
    file, inside = self.locations[uid]
    if file == inside:
      names = prompt_table.names_of_path(os.path.abspath(file), *self._roots)
    else:
      names = prompt_table.with_and_without_extension(os.path.normpath(inside))
    # A uid is one image, whatever its format.
    named = prompt_table.with_and_without_extension(prompt_table.normal(path))
    return not set(named).isdisjoint(names)


def read_prompts(table: os.PathLike | str) -> Iterator[tuple[str, str]]:
  """Yields the uid and the prompt of each row of a table; see `prompt_table`.

  Raises:
    InputError: the table is damaged or lacks a column.
  """
  for row in prompt_table.read(table):
    yield prompt_table.uid_of(row), row.prompt
