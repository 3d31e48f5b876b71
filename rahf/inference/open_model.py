"""Opens any model: one that scores images, or one that makes them."""

import os

from etils import epath

from rahf.inference import open_scorer
from rahf.inference.clip_model import ClipModel
from rahf.inference.generator import Generator
from rahf.inference.generator_directory import load_generator
from rahf.inference.model import Model
from rahf.pretrained import amused, muse_directory


def load(path: str | os.PathLike, **options) -> Model | ClipModel | Generator:
  """Loads a model; nothing in its files is run as code.

  Args:
    path: of a RAHF or a CLIP, see `open_scorer.load`; or of a Muse, see
      `generator_directory.load_generator`.
    **options: of these functions.

  Raises:
    InputError: there is no such model, or it cannot be read.
  """
  if is_generator(path):
    return load_generator(path, **options)
  return open_scorer.load(path, **options)


def is_generator(path: str | os.PathLike) -> bool:
  """Returns whether a path seems to be the directory of a Muse."""
  if not isinstance(path, str | os.PathLike) or '://' in os.fspath(path):
    return False
  folder = epath.Path(path).expanduser()
  names = muse_directory.DESCRIPTION, amused.INDEX
  return any((folder / name).exists() for name in names)
