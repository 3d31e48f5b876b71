"""Policy gradients: probabilities are exact, and advantages go where they belong."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rahf.errors import InputError
from rahf.learning import policy_gradient
from rahf.learning.policy_gradient import Drawn
from rahf.models.muse import SamplingConfig

MASK = 3  # Of the codes 0, 1 and 2.
WEIGHTS = np.random.default_rng(0).normal(size=(4, 4, 4, 3))
SAMPLING = SamplingConfig(steps=2, schedule='linear')


def predict(tokens):
  """Logits of four tokens that depend on all tokens that are not masked."""
  return jnp.einsum('bjc,jcik->bik', jax.nn.one_hot(tokens, 4), jnp.asarray(WEIGHTS))


def all_images(step):
  tokens = jnp.array([*itertools.product(range(3), repeat=4)])
  return Drawn(tokens, jnp.broadcast_to(jnp.asarray(step), tokens.shape))


@pytest.mark.parametrize('step', [(0, 0, 1, 1), (1, 0, 1, 0)])
def test_probabilities_of_all_images_add_up_to_1(step):
  found = policy_gradient.likelihood(predict, predict, all_images(step), 2, MASK)
  total = jnp.exp(found.log_probability.sum(1)).sum()
  np.testing.assert_allclose(total, 1, rtol=1e-5)
  np.testing.assert_allclose(found.divergence, 0, atol=1e-6)


def test_images_are_drawn_as_often_as_they_are_probable():
  keys = jax.random.split(jax.random.key(0), 20_000)
  drawn = policy_gradient.draw_in_random_order(predict, keys, SAMPLING, 4, MASK)
  assert ((drawn.step == 0).sum(1) == 2).all()
  # All six orders occur equally often.
  orders, counts = np.unique(drawn.step, axis=0, return_counts=True)
  assert len(orders) == 6
  np.testing.assert_allclose(counts / counts.sum(), 1 / 6, atol=0.015)
  mixed = np.zeros(81)
  for order in orders:
    found = policy_gradient.likelihood(predict, predict, all_images(order), 2, MASK)
    mixed += np.exp(found.log_probability.sum(1)) / 6
  place = np.asarray(drawn.tokens) @ np.array([27, 9, 3, 1])
  found = np.bincount(place, minlength=81) / len(place)
  np.testing.assert_allclose(found, mixed, atol=5 * np.sqrt(mixed / len(place)).max())


def test_divergence_is_that_of_all_codes():
  def other(tokens):
    return jnp.zeros((*tokens.shape, 3))

  images = all_images((0, 0, 1, 1))
  found = policy_gradient.likelihood(predict, other, images, 2, MASK).divergence
  # Of the first step, where nothing is known yet; the other model is uniform.
  p = jax.nn.softmax(predict(jnp.full((1, 4), MASK)))[0, 0]
  expected = jnp.sum(p * jnp.log(p)) + np.log(3)
  np.testing.assert_allclose(found[:, 0], expected, rtol=1e-5)


@pytest.mark.parametrize(('schedule', 'steps'), [('cosine', 8), ('linear', 5)])
def test_every_token_is_drawn_once(schedule, steps):
  config = SamplingConfig(steps=steps, schedule=schedule)
  found = policy_gradient.step_of_rank(config, 256)
  assert found[0] == 0
  assert found[-1] == steps - 1
  assert (np.diff(found) >= 0).all()
  if schedule == 'cosine':  # Few at first, when little is known.
    assert (np.diff(np.bincount(found)) >= 0).all()


def test_advantages_compare_within_the_group():
  found = policy_gradient.advantages(jnp.array([[0.1, 0.3], [0.9, 0.9]]))
  np.testing.assert_allclose(found, [[-1, 1], [0, 0]], atol=2e-3)


def test_a_map_pools_onto_its_tokens():
  maps = np.zeros((2, 8, 8), np.float32)
  maps[1, 4:6, 6:] = 1.0  # The third of four rows, the last column.
  found = policy_gradient.blame(jnp.asarray(maps), 4)
  expected = np.full(16, -1 / 16)
  expected[11] = 15 / 16
  np.testing.assert_allclose(found, [np.zeros(16), expected])
  policy_gradient.check_grid(8, 4)
  with pytest.raises(InputError, match='8 x 8 px, which 3 x 3 tokens do not divide'):
    policy_gradient.check_grid(8, 3)


def test_neighbours_are_of_the_same_group():
  values = jnp.arange(6.0)[:, None]
  found = policy_gradient.of_neighbours(values, 3)
  assert found[:, 0].tolist() == [2, 0, 1, 5, 3, 4]
