"""Expands prompts by templates and seeds, for Best of N.

The PickScore paper (Kirstain et al., 2023, section 6) makes 100 images of each prompt:
20 templates, one of which is the prompt itself, and 5 seeds. Its templates are not
published; those in `prompt_templates.txt` are our own.
"""

import csv
import pathlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TextIO

from rahf.errors import InputError
from rahf.fileio import text_files

PLACE = '{prompt}'
DEFAULT = pathlib.Path(__file__).with_name('prompt_templates.txt')
IMAGES = 'images'


class Row(NamedTuple):
  """An image to generate; the columns of the table.

  Attributes:
    original: the prompt that it is a candidate for.
    template: number of the template, from 0.
    prompt: what to give to the generator.
    seed: of its noise, from 0.
    file_name: where to write the image, relative to the folder of the table.
  """

  original: str
  template: int
  prompt: str
  seed: int
  file_name: str


def read_prompts(path: pathlib.Path, name: str = 'PROMPTS') -> list[str]:
  """Reads prompts, one a line; empty lines are skipped.

  Args:
    name: of the argument that gave the path, for errors.

  Raises:
    InputError: there is no such file, it is not UTF-8, is empty, or repeats a line.
  """
  return [text for _, text in _read_lines(path, name)]


def read_templates(path: pathlib.Path = DEFAULT) -> list[str]:
  """Reads templates, one a line, in which `{prompt}` stands for the prompt.

  Raises:
    InputError: as for `read_prompts`, or a line does not have `{prompt}` exactly once.
  """
  lines = _read_lines(path, '--templates')
  for number, line in lines:
    if (count := line.count(PLACE)) != 1:
      raise InputError(
        f'--templates={path}, line {number}: {line!r:.200} has {PLACE} {count} times, '
        f'not once; write {PLACE} where the prompt goes'
      )
  return [line for _, line in lines]


def expand(
  prompts: Sequence[str], templates: Sequence[str], seeds: int
) -> Iterator[Row]:
  """Yields all images to generate, by prompt, template and seed."""
  digits = [len(str(count - 1)) for count in (len(prompts), len(templates), seeds)]
  for number, original in enumerate(prompts):
    for template, text in enumerate(templates):
      prompt = text.replace(PLACE, original)
      for seed in range(seeds):
        numbers = zip((number, template, seed), digits, strict=True)
        name = '-'.join(f'{value:0{width}d}' for value, width in numbers)
        yield Row(original, template, prompt, seed, f'{IMAGES}/{name}.png')


def write_table(file: TextIO, rows: Iterator[Row]) -> None:
  """Writes CSV with a header."""
  writer = csv.writer(file, lineterminator='\n')
  writer.writerow(Row._fields)
  writer.writerows(rows)


def _read_lines(path: pathlib.Path, name: str) -> list[tuple[int, str]]:
  """Returns numbers and texts of the lines that are not empty."""
  where = f'{name}={path}' if name.startswith('--') else f'{name} {path}'
  if not path.is_file():
    problem = 'is a folder; give a file' if path.is_dir() else 'no such file'
    raise InputError(f'{where}: {problem}')
  found: dict[str, int] = {}
  with path.open('rb') as file:
    for number, line in enumerate(text_files.lines(file, path, newline=''), 1):
      try:
        text_files.check(line)
      except ValueError as error:
        raise InputError(f'{where}, line {number}: {error}') from None
      text = line.strip()
      if text and (first := found.setdefault(text, number)) != number:
        raise InputError(
          f'{where}: lines {first} and {number} are the same; remove one of them'
        )
  if not found:
    raise InputError(f'{where} is empty; write one text a line')
  return [(number, text) for text, number in found.items()]
