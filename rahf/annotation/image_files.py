"""Reads the images of items, from the project's folder only."""

from typing import NamedTuple

import sqlalchemy as sa

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
    InputError: the file has vanished, is not an image, or lies outside the folder.
  """
  with project.store.read() as connection:
    images = connection.scalar(sa.select(ITEMS.c.images).where(ITEMS.c.id == item))
  if images is None or not 0 <= number < len(images):
    return None
  root = project.images.resolve()
  try:
    path = (root / images[number]['file']).resolve(strict=True)
    if not path.is_relative_to(root):
      # A link could have been put there since the project began.
      raise InputError('the image lies outside the folder of images')
    data = files.read(path)
  except OSError:
    raise InputError('the image cannot be read; tell whoever runs this') from None
  for start, kind in _KINDS.items():
    if data.startswith(start):
      return ImageFile(data, kind)
  raise InputError('the image is not a PNG, JPEG or WEBP file')
