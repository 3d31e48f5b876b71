"""Writes a directory with a Muse (`pretrained/muse_directory.py`)."""

from typing import Any

from etils import epath
from ml_collections import ConfigDict

from rahf.data.clip_tokenizer import Vocabulary, write_vocabulary
from rahf.errors import InputError
from rahf.fileio import digests
from rahf.inference import model_files
from rahf.pretrained import muse_directory
from rahf.pretrained.muse_directory import CARD, DESCRIPTION, TOKENIZER, WEIGHTS


def check_target(folder: epath.Path) -> None:
  """Raises InputError if a folder exists and is not such a directory."""
  if not folder.exists() or (folder / DESCRIPTION).exists():
    return
  if not folder.is_dir() or any(folder.iterdir()):
    raise InputError(
      f'{folder} exists and is not an exported Muse; choose another with '
      '--config.export.dir'
    )


def write(
  folder: epath.Path,
  config: ConfigDict,
  step: int,
  params: Any,
  vocabulary: Vocabulary,
  card: str,
) -> None:
  """Writes a new directory.

  Args:
    params: nested NumPy arrays, of the autoencoder alone or of all parts.
    card: model card.
  """
  folder.mkdir(parents=True)
  model_files.write_params(folder / WEIGHTS, params)
  (folder / TOKENIZER).mkdir()
  write_vocabulary(folder / TOKENIZER, vocabulary)
  (folder / CARD).write_text(card)
  text = muse_directory.to_json(
    config.muse.to_dict(),
    config.sampling.to_dict(),
    step,
    digests.digest(folder / WEIGHTS),
  )
  (folder / DESCRIPTION).write_text(text)
