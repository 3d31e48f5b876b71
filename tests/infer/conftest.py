"""One model and one compiled program, shared by these tests."""

import pathlib

import jax
import pytest
from inference_files import COUNT, PART, image_of, prompt_of

import rahf
import tiny_directory
from rahf import infer
from rahf.infer import Job
from rahf.inference.feedback import Feedback


@pytest.fixture(scope='session')
def directory(tmp_path_factory) -> pathlib.Path:
  return tiny_directory.write(tmp_path_factory.mktemp('models'), threshold=0.25)


@pytest.fixture(scope='session')
def model(directory):
  return rahf.load(directory, batch_size=PART, devices=jax.devices())


@pytest.fixture
def job(directory, model, tmp_path, monkeypatch):
  """Returns a function that makes a job; all jobs share one compiled model."""
  monkeypatch.setattr(infer, 'load', lambda *_, **__: model)
  monkeypatch.setattr(infer, 'PART_ROWS', PART)

  def make(given: pathlib.Path | str, **options) -> Job:
    out = options.pop('output', tmp_path / 'out')
    return Job(str(directory), str(given), str(out), batch_size=1, **options)

  return make


@pytest.fixture(scope='session')
def expected(model) -> list[Feedback]:
  """The model's results for the same images, scored from memory."""
  numbers = range(COUNT)
  return model.score([*map(image_of, numbers)], [*map(prompt_of, numbers)])
