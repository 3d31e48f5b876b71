"""A model directory of the tiny model with random parameters."""

import pathlib

import util
from etils import epath

import tiny_model
from rahf import export
from rahf.data.tokenizer import Tokenizer
from rahf.model_directory import Description
from rahf.models.rahf import RAHF


def write(folder: pathlib.Path) -> epath.Path:
  """Returns a new model directory below a folder."""
  tokenizer = Tokenizer(util.train_model(folder / 'pieces', '_0'))
  config = tiny_model.tiny()
  params = tiny_model.make_params(RAHF(config))
  path = epath.Path(folder / 'model')
  export.write(path, Description(config, 7, 40, 48), params, tokenizer)
  return path
