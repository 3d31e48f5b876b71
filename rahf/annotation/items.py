"""Reads what people are asked about: images with prompts, or a study's pairs.

A table that prompts come from may have a column `model`, which nobody who answers sees.
"""

import hashlib
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from tqdm import tqdm

from rahf.annotation.settings import COMPARE, PREFER, RICH
from rahf.data import label_words
from rahf.data.datasets.joining import prompt_table
from rahf.data.datasets.joining.image_folder import ImageFolder
from rahf.data.images import codec, files
from rahf.errors import InputError
from rahf.fileio import table_rows
from rahf.learning import image_requests
from rahf.learning.study_folder import QUESTIONS


class Item(NamedTuple):
  """Something to ask about; see `tables.ITEMS`."""

  uid: str
  prompt: str
  images: list[dict[str, str]]
  rater: int | None = None


class Found(NamedTuple):
  """Items in the order of their table, and what was left out and why."""

  items: list[Item]
  left_out: dict[str, str]


def uid_of(prompt: str) -> str:
  """Returns the uid of a prompt's pool of images."""
  return hashlib.sha256(prompt.encode()).hexdigest()[:16]


def read_images(task: str, folder: pathlib.Path, table: pathlib.Path) -> Found:
  """Returns the items of a rich or prefer project.

  Rich projects have one item for each image, prefer projects one for each prompt, with
  all its images.

  Raises:
    InputError: the folder or the table cannot be read, or there is no item.
  """
  if not folder.is_dir():
    raise InputError(f'--images {folder}: no such folder')
  rows = list(prompt_table.read(table, 'model'))
  uids = dict.fromkeys(map(prompt_table.uid_of, rows))
  models = {prompt_table.uid_of(row): row.extra or '' for row in rows}
  source = ImageFolder(folder, table, uids)
  items, left_out = [], {}
  for uid in tqdm(uids, 'Reading images', leave=False, disable=None):
    if problem := _problem(task, source, uid):
      left_out[uid] = problem
      continue
    path = source.locations[uid][0]
    file = path.absolute().relative_to(folder.absolute()).as_posix()
    try:
      digest = _digest(folder, file)
    except InputError as error:
      left_out[uid] = str(error)
      continue
    image = {'uid': uid, 'file': file, 'model': models[uid], 'sha256': digest}
    items.append(Item(uid, source.prompts[uid], [image]))
  if task == PREFER:
    items = list(_pools(items, left_out))
  if not items:
    uid, reason = next(iter(left_out.items()), ('', 'the table has no rows'))
    raise InputError(f'{table} has no image to ask about; first, {uid}: {reason}')
  return Found(items, left_out)


def read_study(folder: pathlib.Path) -> Found:
  """Returns the questions of a study that `python -m rahf.improve study make` wrote.

  Raises:
    InputError: it is not a study, or an image is missing or cannot be read.
  """
  path, items = folder / QUESTIONS, []
  if not path.is_file():
    raise InputError(
      f'--images {folder} has no {QUESTIONS}; give the folder that `python -m '
      'rahf.improve study make` wrote'
    )
  columns = ('question', 'rater', 'prompt', 'left', 'right')
  digests: dict[str, str] = {}
  for place, row in table_rows.rows(path, columns):
    number, rater, prompt, *pair = map(str, row)
    where = table_rows.where(path, place)
    if not rater.isdecimal():
      raise InputError(f'{where}: rater is {rater!r:.40}, not a number')
    for name in set(pair) - digests.keys():
      try:
        digests[name] = _digest(folder, name)
      except InputError as error:
        raise InputError(f'{where}: {name}: {error}') from None
    images = [
      {'uid': name, 'file': name, 'model': '', 'sha256': digests[name]} for name in pair
    ]
    items.append(Item(number, prompt, images, int(rater)))
  if not items:
    raise InputError(f'{path} has no questions')
  return Found(items, {})


def read_drawn(table: pathlib.Path) -> Found:
  """Returns the items of prompts whose images a generator draws.

  Raises:
    InputError: the table cannot be read, or has no prompts.
  """
  requests = image_requests.read_requests(table, 1, 0, name='--prompts')
  prompts = dict.fromkeys(one.request.prompt.strip() for one in requests)
  return Found([Item(uid_of(prompt), prompt, []) for prompt in prompts], {})


def read(
  task: str,
  images: pathlib.Path,
  prompts: pathlib.Path | None,
  *,
  drawn: bool = False,
) -> Found:
  """Returns the items of a project.

  Raises:
    InputError: the input cannot be used, or a flag is missing.
  """
  if task == COMPARE:
    if prompts is not None:
      raise InputError('--prompts is not for --task=compare: the study has prompts')
    return read_study(images)
  if prompts is None:
    raise InputError(f'--task={task} needs --prompts, a table of uid and prompt')
  return read_drawn(prompts) if drawn else read_images(task, images, prompts)


def _problem(task: str, source: ImageFolder, uid: str) -> str:
  """Returns why an image cannot be asked about, '' if it can."""
  if uid not in source.prompts:
    return source.unprompted.get(uid, 'it has no prompt')
  if uid not in source.locations:
    return 'it has no PNG, JPEG or WebP file'
  if uid in source.conflicts:
    return f'it has several prompts: {source.conflicts[uid]}'
  if task == RICH and not label_words.label_spans(source.prompts[uid]):
    return f'its prompt {source.prompts[uid]!r:.80} has no words'
  return ''


def inside(folder: pathlib.Path, name: str) -> pathlib.Path:
  """Returns the path of a file that lies in a folder, links followed.

  Raises:
    InputError: it lies outside.
    OSError: the file does not exist.
  """
  root = folder.resolve()
  path = (root / name).resolve(strict=True)
  if not path.is_relative_to(root):
    raise InputError(f'{name} lies outside the folder of images')
  return path


def _digest(folder: pathlib.Path, name: str) -> str:
  """Returns the SHA-256 of an image in a folder that can be decoded.

  Raises:
    InputError: it cannot be read.
  """
  try:
    data = files.read(inside(folder, name))
    codec.decode_image(data)
  except (InputError, codec.ImageError, OSError) as error:
    raise InputError(str(error)) from None
  return hashlib.sha256(data).hexdigest()


def _pools(items: list[Item], left_out: dict[str, str]) -> Iterator[Item]:
  """Yields an item for each prompt with at least two images."""
  pools: dict[str, list[Mapping[str, Any]]] = {}
  for item in items:
    pools.setdefault(item.prompt, []).extend(item.images)
  for prompt, images in pools.items():
    if len(images) < 2:
      left_out[images[0]['uid']] = f'its prompt {prompt!r:.80} has no other image'
    else:
      yield Item(uid_of(prompt), prompt, images)
