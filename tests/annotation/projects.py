"""Projects of a few images, and people who answer."""

import csv
import pathlib
import secrets
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import sqlalchemy as sa

from rahf.annotation import items, people, project
from rahf.annotation.answering import Answer
from rahf.annotation.people import Person
from rahf.annotation.project import Project
from rahf.annotation.settings import Settings
from rahf.data.images.codec import encode_png

PROMPT = 'a red cat, asleep'


def write_table(folder: pathlib.Path, rows: Iterable[Mapping[str, str]]) -> None:
  rows = list(rows)
  with (folder / 'prompts.csv').open('w', newline='') as file:
    writer = csv.DictWriter(file, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)


def write_images(folder: pathlib.Path, count: int, prompts: int = 0) -> pathlib.Path:
  """Writes images 00.png, …, and their table; returns the folder of images.

  Args:
    prompts: number of different prompts; 0 for one for each image.
  """
  images = folder / 'images'
  images.mkdir(parents=True, exist_ok=True)
  rows = []
  for number in range(count):
    pixels = np.random.default_rng(number).integers(0, 255, (60, 80, 3), np.uint8)
    (images / f'{number:02}.png').write_bytes(encode_png(pixels))
    prompt = PROMPT if not prompts else f'{PROMPT} {number % prompts}'
    rows.append({'uid': f'{number:02}', 'prompt': prompt, 'model': f'm{number % 3}'})
  write_table(folder, rows)
  return images


def make(
  root: pathlib.Path,
  count: int,
  task: str = 'rich',
  *,
  prompts: int = 0,
  url: str = '',
  folder: str = 'project',
) -> Project:
  """Returns a new project; gold questions and repeats are off."""
  images = write_images(root, count, prompts)
  found = items.read(task, images, root / 'prompts.csv')
  store = project.open_store(root / folder, url, new=True)
  wanted = Settings(task, str(images), answers=2, gold=0)
  return project.create(store, wanted, found.items)


def enter(made: Project, name: str) -> Person:
  person = people.of_session(made.store, people.enter_with_name(made.store, name))
  assert person
  return person


def rich_value(number: int = 0, **changes: Any) -> dict[str, Any]:
  return {
    'implausibility_points': [[0.25, 0.5]],
    'misalignment_points': [],
    'misaligned_words': [number % 4],
    'scores': dict(zip(('plausibility', 'alignment'), (2, 3), strict=True))
    | {'aesthetics': 4, 'overall': 1 + number % 5},
    'nothing': ['misalignment_points'],
    **changes,
  }


def answer(value: Any = None, **changes: Any) -> Answer:
  value = rich_value() if value is None else value
  return Answer(secrets.token_hex(16), value, **{'seconds': 1.5, **changes})


def rows(made: Project, table: sa.Table) -> list:
  """Returns what a table has, in order."""
  with made.store.read() as connection:
    return connection.execute(sa.select(table).order_by(table.c.id)).all()
