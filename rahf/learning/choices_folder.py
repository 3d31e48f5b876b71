"""The folder that `rahf.best choose` and `rahf.improve filter` write.

best.md             what choosing gained, and what could not be scored
choices.html        a page with all candidates of the first prompts and their scores
choices.csv         a row for each candidate, by prompt and rank
images/0000-1.png   the chosen images, byte for byte: number of the prompt, rank
images/metadata.csv their prompts, for training
contact_sheet.png   all candidates of the first prompts, the best first; more of them
                    in contact_sheet-2.png and so on
"""

import csv
import pathlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import BinaryIO

from tqdm import tqdm

from rahf.data.images import codec, inputs
from rahf.data.images.codec import ImageError
from rahf.data.sources.source import Source
from rahf.drawing import contact_sheet
from rahf.errors import InputError
from rahf.learning.best_of_n import VALUE, Candidate, Choice
from rahf.learning.score_expression import Expression

CHOICES, IMAGES, REPORT = 'choices.csv', 'images', 'best.md'
PAGE = 'choices.html'
# The name that Hugging Face's `imagefolder` looks for next to images.
METADATA = 'metadata.csv'


class Thumbnails:
  """Small pictures by position, on disk, since there may be a million."""

  def __init__(self, file: BinaryIO):
    """Writes them to an empty file that is open for reading and writing."""
    self._file = file
    self._places: dict[int, tuple[int, int]] = {}

  def add(self, position: int, picture: bytes) -> None:
    self._places[position] = self._file.seek(0, 2), len(picture)
    self._file.write(picture)

  def read(self, position: int) -> bytes:
    """Returns a picture, b'' if it was not added."""
    start, size = self._places.get(position, (0, 0))
    self._file.seek(start)
    return self._file.read(size)


def copy_images(
  folder: pathlib.Path, source: Source, choices: Sequence[Choice]
) -> dict[int, str]:
  """Copies the chosen images; returns their paths in the folder by position.

  Raises:
    InputError: the input changed after the images were scored.
  """
  digits = len(str(len(choices) - 1))
  names = {
    one.position: f'{number:0{digits}d}-{rank}'
    for number, choice in enumerate(choices)
    for rank, one in enumerate(choice.chosen, 1)
  }
  (folder / IMAGES).mkdir()
  paths = {}
  rows = source.read(names.__contains__)
  for position, load in tqdm(
    rows, 'Copying', len(names), unit='image', mininterval=1, disable=None
  ):
    item = load()
    try:
      is_file = isinstance(item.image, bytes)
      data = item.image if is_file else inputs.read_file(str(item.image))
      ending = codec.ENDINGS[codec.open_image(data).format]
    except ImageError as error:
      raise InputError(
        f'{item.uid} could be scored, but not copied afterwards ({error}); do not '
        'modify the images until the command is done'
      ) from None
    paths[position] = f'{IMAGES}/{names[position]}{ending}'
    (folder / paths[position]).write_bytes(data)
  return paths


def write_choices(
  folder: pathlib.Path,
  choices: Sequence[Choice],
  rest: Sequence[Candidate],
  expression: Expression,
  scores: Collection[str],
  files: Mapping[int, str],
) -> None:
  """Writes the table of all candidates.

  Columns: original, prompt, uid; every score; of a sum, weight times score of each
  term; value; rank in the prompt, from 1; chosen, yes or no; file, of a chosen image;
  error. Scores, value and rank of an image with an error are empty.

  Args:
    rest: images that say no prompt.
    scores: their names.
    files: of `copy_images`.
  """
  is_sum = len(expression.terms) > 1
  terms = [*map(str, expression.terms)] if is_sum else []
  # Characters that UTF-8 cannot encode occur in names of files.
  path = folder / CHOICES
  with path.open('w', encoding='utf-8', errors='replace', newline='') as file:
    writer = csv.writer(file, lineterminator='\n')
    names = ('original', 'prompt', 'uid', *scores, *terms, VALUE, 'rank', 'chosen')
    writer.writerow((*names, 'file', 'error'))
    for one, rank, chosen in _ordered(choices, rest):
      values = ['' for _ in (*scores, *terms, VALUE)]
      if not one.error:
        parts = expression.parts(one.scores) if is_sum else []
        numbers = [*(one.scores[name] for name in scores), *parts, one.value]
        values = [repr(float(number)) for number in numbers]
      names = (one.original, one.prompt, one.uid)
      end = (rank or '', 'yes' if chosen else 'no', files.get(one.position, ''))
      writer.writerow((*names, *values, *end, one.error))


def write_metadata(
  folder: pathlib.Path, choices: Sequence[Choice], files: Mapping[int, str]
) -> None:
  """Writes the prompts of the chosen images next to them, for training.

  Columns: file_name, prompt (the original), value.

  Args:
    files: of `copy_images`.
  """
  path = folder / IMAGES / METADATA
  with path.open('w', encoding='utf-8', errors='replace', newline='') as file:
    writer = csv.writer(file, lineterminator='\n')
    writer.writerow(('file_name', 'prompt', VALUE))
    for one in (one for choice in choices for one in choice.chosen):
      name = pathlib.PurePosixPath(files[one.position]).name
      writer.writerow((name, one.original, repr(float(one.value))))


def _ordered(
  choices: Sequence[Choice], rest: Sequence[Candidate]
) -> Iterator[tuple[Candidate, int, bool]]:
  """Yields candidates with their ranks, 0 for none, and whether they are chosen."""
  for choice in choices:
    for rank, one in enumerate(choice.ranked, 1):
      yield one, rank, rank <= choice.keep
    for one in choice.failed:
      yield one, 0, False
  for one in rest:
    yield one, 0, False


def write_sheets(
  folder: pathlib.Path, choices: Sequence[Choice], thumbnails: Thumbnails
) -> int:
  """Draws the candidates of these prompts; returns the number of sheets."""
  number = 0
  rows = (_row(choice, thumbnails) for choice in choices)
  for number, sheet in enumerate(contact_sheet.sheets(rows), 1):
    ending = f'-{number}' if number > 1 else ''
    sheet.save(folder / f'contact_sheet{ending}.png')
  return number


def _row(choice: Choice, thumbnails: Thumbnails) -> contact_sheet.Row:
  tiles = []
  for one, _, chosen in _ordered([choice], ()):
    caption = 'no scores' if one.error else f'{one.value:.4g}'
    note = pathlib.PurePosixPath(one.uid).name
    picture = thumbnails.read(one.position)
    tiles.append(contact_sheet.Tile(picture, caption, note, chosen))
  return contact_sheet.Row(choice.original, tiles)
