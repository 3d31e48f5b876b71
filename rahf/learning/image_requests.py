"""Reads which images to generate: prompts one a line, or a table of them."""

import os
import pathlib
import sys
from collections.abc import Sequence
from numbers import Real
from typing import Any, NamedTuple

from rahf.errors import InputError
from rahf.fileio import table_rows
from rahf.fileio.table_files import PROMPTS, shown
from rahf.inference.image_generator import (
  MAX_SEED,
  ImageGenerator,
  Request,
  check_request,
  check_text,
)
from rahf.learning.prompt_templates import read_prompts

_COLUMNS = ('seed', 'original', 'file_name')
# What names of files in the folder of the results begin with.
RESERVED = ('images.csv', 'generate.json', 'contact_sheet', '.lock')
MAX_NAME = 200  # Bytes of a part; file systems take 255, and writing needs some.


class ImageRequest(NamedTuple):
  """An image to generate, and where.

  Attributes:
    request: what the generator is given.
    original: the prompt that it is a candidate for; another than the generator's if a
      template was used.
    file_name: relative to the folder of the results.
  """

  request: Request
  original: str
  file_name: str


def read_requests(
  path: pathlib.Path,
  count: int,
  seed: int,
  negative: str = '',
  *,
  name: str = '--input',
) -> list[ImageRequest]:
  """Returns the images to generate, by prompt and number.

  Args:
    path: of a text file with a prompt a line; or of a table with a column `prompt` or
      `caption`, and if wanted `seed`, `original` and `file_name`, such as `rahf.best
      prompts` writes.
    count: images of each prompt.
    seed: of the noise, where the table has none.
    negative: text that guidance leads away from.
    name: of the argument that gave the path, for errors.

  Raises:
    InputError: there is no such file, a value cannot be used, or a file name occurs
      twice.
  """
  check_text(negative, '--negative_prompt')
  named = f'{name}={path}' if name.startswith('--') else f'{name} {path}'
  if path.suffix.lower() in table_rows.SUFFIXES:
    rows = _table(path, seed)
  else:
    rows = [(prompt, seed, prompt, '') for prompt in read_prompts(path, name)]
  if not rows:
    raise InputError(f'{named} has no prompts')
  if count > 1 and any(file for *_, file in rows):
    raise InputError(
      f'{named} has a column file_name, which names one image of each row; '
      'leave out --images_per_prompt, or the column'
    )
  digits = [len(str(n - 1)) for n in (len(rows), count)]
  found = [
    ImageRequest(
      Request(prompt, row_seed, number, negative),
      original,
      file or f'images/{row:0{digits[0]}d}-{number:0{digits[1]}d}.png',
    )
    for row, (prompt, row_seed, original, file) in enumerate(rows)
    for number in range(count)
  ]
  _check_names(named, found)
  return found


def _table(path: pathlib.Path, seed: int) -> list[tuple[str, int, str, str]]:
  names = table_rows.columns(path)
  prompt_column = next((name for name in PROMPTS if name in names), PROMPTS[0])
  found = []
  for place, (prompt, own_seed, original, name) in table_rows.rows(
    path, [prompt_column], _COLUMNS
  ):
    where = table_rows.where(path, place)
    number = seed if own_seed in (None, '') else _seed(own_seed, where)
    original, name = original or prompt, name or ''
    try:
      check_request(Request(prompt, number))
      check_text(original, 'its original')
      _check_name(name)
    except InputError as error:
      raise InputError(f'{where}: {error}') from None
    found.append((prompt, number, original, name))
  return found


def _seed(value: Any, where: str) -> int:
  """Returns the seed in a cell: a whole number, or its digits."""
  if isinstance(value, str) and value.strip().isdecimal():
    return int(value)
  whole = isinstance(value, Real) and not isinstance(value, bool) and value % 1 == 0
  if not whole:
    raise InputError(
      f'{where}: seed is {shown(value)}; give a whole number from 0 to {MAX_SEED}'
    )
  return int(value)


def _check_name(name: Any) -> None:
  """Raises InputError unless a file name, if there is one, can be written to."""
  if name == '':
    return
  check_text(name, 'its file_name')
  path = pathlib.PurePosixPath(name)
  if path.is_absolute() or '..' in path.parts or path.suffix.lower() != '.png':
    raise InputError(
      f'the file name {name!r:.300} must be a relative path that ends in .png'
    )
  if '\0' in name or max(len(os.fsencode(part)) for part in path.parts) > MAX_NAME:
    raise InputError(
      f'the file name {name!r:.300} cannot be one: its parts must have at most '
      f'{MAX_NAME} bytes, none of which is zero'
    )
  if path.parts[0].startswith(RESERVED):
    raise InputError(
      f'the file name {name!r:.300} begins like a file of the results '
      f'({", ".join(RESERVED)}); choose another'
    )


def _check_names(named: str, requests: list[ImageRequest]) -> None:
  """Raises InputError unless each file occurs once."""
  seen, folders = set(), set()
  for one in requests:
    name = pathlib.PurePosixPath(one.file_name)
    if name in seen:
      raise InputError(
        f'{named}: the file name {one.file_name!r} occurs twice (rows without one get '
        'images/ROW-NUMBER.png)'
      )
    seen.add(name)
    folders.update(name.parents)
  if both := seen & folders:
    raise InputError(f'{named}: {min(both)} is a file and a folder of others')


def warn_of_long_prompts(
  generator: ImageGenerator, requests: Sequence[ImageRequest]
) -> None:
  """Says on stderr how many prompts the generator does not read to their end."""
  texts = [one.request.prompt for one in requests]
  texts += {one.request.negative for one in requests} - {''}
  if cut := generator.truncated([*dict.fromkeys(texts)]):
    print(
      f'Warning: {len(cut):,} prompts are longer than the model reads and lose their '
      f'end, the first {cut[0]!r:.200}',
      file=sys.stderr,
    )
