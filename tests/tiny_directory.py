"""Writes a model directory of the tiny model with random parameters."""

import pathlib
from typing import Any

import util
from etils import epath

import tiny_model
from rahf.data.tokenizer import Tokenizer
from rahf.inference import write_directory
from rahf.inference.model_directory import Description
from rahf.models.rahf import RAHF

LENGTH, TARGET = 40, 48


def write(
  folder: pathlib.Path, variant: str = 'multi_head', **about: Any
) -> pathlib.Path:
  """Writes a new model directory inside a folder and returns it.

  Args:
    about: further fields of its description.
  """
  tokenizer = Tokenizer(util.train_model(folder / 'pieces', '_0'))
  config = tiny_model.tiny(variant)
  params = tiny_model.make_params(RAHF(config))
  description = Description(config, 7, LENGTH, TARGET, **about)
  write_directory.write(epath.Path(folder / 'model'), description, params, tokenizer)
  return folder / 'model'
