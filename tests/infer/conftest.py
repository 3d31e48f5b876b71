"""One model and one compiled program for all of these tests."""

import pathlib

import jax
import pytest
import util
from etils import epath
from inference_files import COUNT, PART, image_of, prompt_of

import rahf
import tiny_model
from rahf import export, infer
from rahf.data.tokenizer import Tokenizer
from rahf.infer import Job
from rahf.model_directory import Description
from rahf.models.rahf import RAHF


@pytest.fixture(scope='session')
def directory(tmp_path_factory) -> pathlib.Path:
  """A model of random parameters."""
  folder = tmp_path_factory.mktemp('models')
  tokenizer = Tokenizer(util.train_model(folder / 'spiece', '_0'))
  config = tiny_model.tiny()
  description = Description(config, 7, 40, 48, threshold=0.25)
  params = tiny_model.make_params(RAHF(config))
  export.write(epath.Path(folder / 'model'), description, params, tokenizer)
  return folder / 'model'


@pytest.fixture(scope='session')
def model(directory):
  return rahf.load(directory, batch_size=PART, devices=jax.devices())


@pytest.fixture
def job(directory, model, tmp_path, monkeypatch):
  """Makes a job; all share one compiled model."""
  monkeypatch.setattr(infer, 'load', lambda *_, **__: model)
  monkeypatch.setattr(infer, 'PART_ROWS', PART)

  def make(given: pathlib.Path | str, **options) -> Job:
    out = options.pop('output', tmp_path / 'out')
    return Job(str(directory), str(given), str(out), batch_size=1, **options)

  return make


@pytest.fixture(scope='session')
def expected(model) -> list[rahf.feedback.Feedback]:
  """By another path: from memory."""
  numbers = range(COUNT)
  return model.score([*map(image_of, numbers)], [*map(prompt_of, numbers)])
