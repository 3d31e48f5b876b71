"""Reads the images of items, from the project's folder only."""

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

import sqlalchemy as sa

from rahf.annotation.items import inside
from rahf.annotation.project import Project
from rahf.annotation.tables import ITEMS
from rahf.data.images import files
from rahf.errors import InputError

# How files of the three formats start.
_KINDS = {b'\x89PNG': 'image/png', b'\xff\xd8\xff': 'image/jpeg', b'RIFF': 'image/webp'}


class ImageFile(NamedTuple):
  """The bytes of an image, and their media type."""

  data: bytes
  kind: str


def read(project: Project, item: int, number: int) -> ImageFile | None:
  """Returns an image of an item; None if there is none.

  Raises:
    InputError: as for `read_unchanged`.
  """
  with project.store.read() as connection:
    images = connection.scalar(sa.select(ITEMS.c.images).where(ITEMS.c.id == item))
  if images is None or not 0 <= number < len(images):
    return None
  data = read_unchanged(project, images[number])
  for start, kind in _KINDS.items():
    if data.startswith(start):
      return ImageFile(data, kind)
  raise InputError('the image is not a PNG, JPEG or WEBP file')


def read_unchanged(project: Project, image: Mapping[str, str]) -> bytes:
  """Returns the bytes of an image, which are those that people are asked about.

  Args:
    image: one of an item's `images`.

  Raises:
    InputError: the file has vanished or changed, or lies outside the folder.
  """
  name = image['file']
  try:
    # A link could have been put there since the project began.
    data = files.read(inside(project.images, name))
  except OSError as error:
    raise InputError(
      f'{name} cannot be read ({error.strerror}); restore the image'
    ) from None
  if hashlib.sha256(data).hexdigest() != image['sha256']:
    raise InputError(f'{name} has changed since the project began; restore the image')
  return data
