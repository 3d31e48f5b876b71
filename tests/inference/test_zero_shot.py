"""A CLIP's answers by their definition, and calibration in closed form."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from PIL import Image

import clip_directory
from rahf.data.attributes.table import Attributes
from rahf.data.images import clip_image
from rahf.errors import InputError
from rahf.evaluation.image_features import extract
from rahf.inference import open_scorer
from rahf.inference.zero_shot import ZeroShot, calibrate, check_known
from rahf.models.clip import CLIP

QUESTIONS = {
  'colour': {'red': ['a red circle'], 'blue': ['a blue square', 'blue squares']},
  'size': {'small': ['small'], 'large': ['large'], 'other': ['a ring']},
}
COUNT = 5


@pytest.fixture(scope='module')
def model(tmp_path_factory):
  folder = clip_directory.write(tmp_path_factory.mktemp('clip') / 'clip')
  return open_scorer.load(folder)


@pytest.fixture(scope='module')
def asked(model):
  return ZeroShot(model, QUESTIONS)


@pytest.fixture(scope='module')
def pixels() -> np.ndarray:
  return np.random.default_rng(0).integers(0, 256, (COUNT, 40, 32, 3), np.uint8)


@pytest.fixture(scope='module')
def features(asked, pixels, tmp_path_factory):
  folder = tmp_path_factory.mktemp('images')
  for number, one in enumerate(pixels):
    Image.fromarray(one).save(folder / f'{number}.png')
  return extract(asked.extractor(), str(folder), batch_size=8)


def test_similarities_are_the_models_logits(model, asked, pixels, features):
  images = jnp.stack([clip_image.normalised(model.resize(one)) for one in pixels])
  texts = ['a red circle', 'a blue square', 'blue squares']
  tokens = jnp.asarray(np.stack([model.tokenise(text).text for text in texts]))
  module = CLIP(model.description.model)
  logits = np.asarray(module.apply({'params': model.params}, images, tokens))
  found = asked.similarities(features.features)['colour']
  np.testing.assert_allclose(found[:, 0], logits[:, 0], rtol=1e-4, atol=1e-4)
  # Two texts: the mean of both embeddings, scaled to length 1.
  embedded = np.asarray(
    module.apply({'params': model.params}, tokens[1:], method=CLIP.text_features)
  )
  unit = embedded / np.linalg.norm(embedded, axis=1, keepdims=True)
  length = np.linalg.norm(unit.mean(0))
  np.testing.assert_allclose(
    found[:, 1], logits[:, 1:].mean(1) / length, rtol=1e-4, atol=1e-4
  )


def test_answers_and_confidences(asked, features):
  similarities = asked.similarities(features.features)
  found = asked.answer(features.uids, similarities, {'colour': 2.0})
  assert found.uids == tuple(f'{number}.png' for number in range(COUNT))
  shares = scipy.special.softmax(similarities['colour'] / 2, axis=1)
  names = ['red', 'blue']
  assert found.answers['colour'] == tuple(names[i] for i in shares.argmax(1))
  np.testing.assert_allclose(found.confidences['colour'], shares.max(1))


def test_a_temperature_makes_confidence_as_high_as_accuracy():
  """With one logit difference d and a share p of right answers, T = d / logit(p)."""
  similarities = np.tile([8.0, 0.0], (100, 1))
  right = np.array([0] * 80 + [1] * 20)
  found = calibrate(similarities, right)
  assert found.temperature == pytest.approx(8 / np.log(4), rel=1e-4)
  assert found.accuracy == 0.8
  entropy = -(0.8 * np.log(0.8) + 0.2 * np.log(0.2))
  assert found.nats == pytest.approx(entropy, rel=1e-6)
  assert found.nats_before == pytest.approx(0.2 * 8 + np.log1p(np.exp(-8)), rel=1e-6)


def known(*colours) -> Attributes:
  uids = tuple(f'{number}.png' for number in range(len(colours)))
  return Attributes(uids, {'colour': colours}, {'colour': np.ones(len(colours))})


def test_only_known_answers_calibrate(asked, features):
  similarities = asked.similarities(features.features)
  found = asked.calibrate(similarities, known('red', '', 'blue', 'red', ''))
  assert {name: one.images for name, one in found.items()} == {'colour': 3}
  with pytest.raises(InputError, match=r"a\.csv: colour has the answer 'green', but"):
    check_known(QUESTIONS, known(*['green'] * COUNT), 'a.csv')
  with pytest.raises(InputError, match=r'a\.csv answers none of the questions colour'):
    check_known(QUESTIONS, known(*[''] * COUNT), 'a.csv')


def test_a_text_that_is_too_long(model):
  with pytest.raises(InputError, match=r"colour: the text 'red red .* is too long"):
    ZeroShot(model, {'colour': {'red': ['red ' * 100], 'blue': ['blue']}})
