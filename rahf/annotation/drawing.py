"""Draws the images of prompts, for preferences: a process of its own beside the server.

Each prompt gets a pool of images. It is ready for people once all of them are drawn, as
the order of a pool depends on its size.
"""

import hashlib
import pathlib
import time
from typing import Any

import sqlalchemy as sa

from rahf.annotation.items import uid_of
from rahf.annotation.people import Person
from rahf.annotation.project import Project
from rahf.annotation.tables import ITEMS
from rahf.data.images import codec
from rahf.errors import InputError
from rahf.fileio import atomic_write, text_files
from rahf.inference.image_generator import ImageGenerator, Request
from rahf.inference.scorer import check_prompt

# The folder in that of the images.
FOLDER = 'drawn'
# Prompts of one annotator that wait to be drawn, and characters of one.
MOST_WAITING, LONGEST_PROMPT = 3, 1000
# Seconds between looks for new prompts.
_PAUSE = 1.0


def add_prompt(project: Project, person: Person, prompt: str) -> bool:
  """Adds an annotator's own prompt; returns whether it is ready already.

  Raises:
    InputError: the project does not draw; the prompt cannot be used; or this annotator
      waits for too many.
  """
  if not project.settings.drawn:
    raise InputError('this project does not take prompts')
  try:
    check_prompt(prompt)
    text_files.check(prompt)
  except ValueError as error:
    raise InputError(str(error)) from None
  prompt = prompt.strip()
  if len(prompt) > LONGEST_PROMPT:
    raise InputError(f'a prompt has at most {LONGEST_PROMPT} characters')
  with project.store.write(lock=True) as connection:
    known = connection.execute(
      sa.select(ITEMS.c.ready).where(ITEMS.c.uid == uid_of(prompt))
    ).one_or_none()
    if known is not None:
      return known.ready
    mine = ITEMS.c.asked_by == person.id, ~ITEMS.c.ready
    waiting = connection.scalar(sa.select(sa.func.count()).where(*mine))
    if waiting >= MOST_WAITING:
      raise InputError(f'{waiting} of your prompts wait to be drawn; try again later')
    last = connection.scalar(sa.select(sa.func.max(ITEMS.c.position)))
    connection.execute(
      sa.insert(ITEMS).values(
        uid=uid_of(prompt),
        prompt=prompt,
        position=(last or 0) + 1,
        images=[],
        ready=False,
        asked_by=person.id,
        # People who type a prompt want to see it soon.
        priority=1.0,
        completed=0,
      )
    )
  return False


def draw(
  project: Project,
  generator: ImageGenerator,
  *,
  name: str,
  each: int,
  once: bool,
) -> int:
  """Draws pools until none waits, or for ever; returns the number of images.

  A process that was stopped continues; pools that it had not finished are drawn again.

  Args:
    name: of the generator, for those who read the answers.
    each: images of each prompt.
    once: end when no prompt waits.

  Raises:
    InputError: the project does not draw, or an image cannot be written.
  """
  if not project.settings.drawn:
    raise InputError('the project has its own images; start one with --drawn')
  count = 0
  while True:
    item = _next(project)
    if item is not None:
      _draw_pool(project, generator, item, name, each)
      count += each
      print(f'Drawn: {item.prompt!r:.80}', flush=True)
    elif once:
      return count
    else:
      time.sleep(_PAUSE)


def _next(project: Project) -> Any:
  query = (
    sa.select(ITEMS)
    .where(~ITEMS.c.ready)
    .order_by(ITEMS.c.priority.desc(), ITEMS.c.position)
    .limit(1)
  )
  with project.store.read() as connection:
    return connection.execute(query).one_or_none()


def _draw_pool(
  project: Project, generator: ImageGenerator, item: Any, name: str, each: int
) -> None:
  folder = project.images / FOLDER
  folder.mkdir(parents=True, exist_ok=True)
  requests = [
    Request(item.prompt, project.settings.seed, number) for number in range(each)
  ]
  images = []
  for number, pixels in enumerate(generator.draw(requests)):
    uid = f'{item.uid}-{number}'
    file = pathlib.PurePosixPath(FOLDER, f'{uid}.png')
    data = codec.encode_png(pixels)
    atomic_write.write(project.images / file, data)
    digest = hashlib.sha256(data).hexdigest()
    images.append({'uid': uid, 'file': str(file), 'model': name, 'sha256': digest})
  with project.store.write(lock=True) as connection:
    connection.execute(
      sa.update(ITEMS).where(ITEMS.c.id == item.id).values(images=images, ready=True)
    )
