"""Masked sampling against closed forms."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rahf.errors import InputError
from rahf.models.muse.sampling import (
  Noise,
  SamplingConfig,
  draw_noise,
  first_step,
  mask_at_random,
  masked_shares,
  one_step,
  sample,
  temperatures,
)

MASK = 9
KEYS = jax.random.split(jax.random.key(0), 3)


def test_schedules():
  np.testing.assert_array_equal(masked_shares('linear', 4), [0.75, 0.5, 0.25, 0])
  cosine = [math.cos(math.pi / 2 * i / 4) for i in (1, 2, 3)]
  np.testing.assert_allclose(masked_shares('cosine', 4), [*cosine, 0], rtol=1e-6)
  np.testing.assert_array_equal(temperatures((2.0, 0.0), 5), [2, 1.5, 1, 0.5, 0])


def test_the_least_confident_are_masked_again():
  tokens = jnp.array([[MASK, 3, MASK, MASK, MASK]])
  # Code i with the probability .5, .9, .6 and .7.
  chances = np.full((1, 5, 6), 1e-6, np.float32)
  for place, chance in ((0, 0.5), (2, 0.9), (3, 0.6), (4, 0.7)):
    chances[0, place, [place, 5]] = chance, 1 - chance
  quiet = Noise(jnp.zeros((1, 5, 6)), jnp.zeros((1, 5)))

  def after(share, temperature=0.0, order=quiet.order):
    noise = quiet._replace(order=order)
    heat = jnp.asarray(temperature)
    step = one_step(jnp.log(chances), tokens, noise, jnp.array([share]), heat, MASK)
    assert step.guess.tolist() in ([[0, 3, 2, 3, 4]], [[5, 3, 2, 3, 4]])
    return [i for i in range(5) if step.tokens[0, i] == MASK]

  assert after(0.4) == [0, 3]
  assert after(0.59) == [0, 3]  # Rounded down.
  assert after(1.0) == [0, 3, 4]  # At least one fewer than before.
  assert after(0.01) == [0]  # At least one.
  assert after(0.0) == []
  # log .5 + 2 > log .9; a token that was given stays, whatever the noise.
  assert after(0.4, 2.0, jnp.array([[1.0, -99, 0, 0, 0]])) == [3, 4]


@pytest.mark.parametrize('masked', [0, 1])
def test_few_masked_tokens(masked):
  tokens = jnp.array([[MASK] * masked + [3] * (4 - masked)])
  noise = Noise(jnp.zeros((1, 4, 6)), jnp.zeros((1, 4)))
  step = one_step(
    jnp.zeros((1, 4, 6)), tokens, noise, jnp.array([0.5]), jnp.array(1.0), MASK
  )
  np.testing.assert_array_equal(step.tokens, tokens)


def test_each_image_has_its_own_share():
  """Of 16 tokens 12, 4 and none are masked, then half of those, then none."""
  start = jnp.full((3, 16), 2).at[0, 4:].set(MASK).at[1, 4:8].set(MASK)
  counts = []

  def predict(tokens):
    jax.debug.callback(lambda n: counts.append(n.tolist()), (tokens == MASK).sum(1))
    return jnp.zeros((*tokens.shape, 6))

  found = sample(
    predict,
    start,
    KEYS,
    config=SamplingConfig(steps=2, schedule='linear'),
    mask_id=MASK,
    codes=6,
    start_share=jnp.array([0.75, 0.25, 0]),
  )
  jax.effects_barrier()
  assert counts == [[12, 4, 0], [6, 2, 0]]
  np.testing.assert_array_equal(found[start != MASK], 2)
  assert (found != MASK).all()


def test_noise_depends_on_the_key_and_the_step_alone():
  together = draw_noise(KEYS, jnp.array(3), 4, 5)
  alone = draw_noise(KEYS[1:2], jnp.array(3), 4, 5)
  jax.tree.map(
    np.testing.assert_array_equal, alone, jax.tree.map(lambda x: x[1:2], together)
  )
  other = draw_noise(KEYS[1:2], jnp.array(4), 4, 5)
  assert (alone.codes != other.codes).all()
  assert (together.order[0] != together.order[1]).all()


def test_tokens_are_drawn_from_the_prediction():
  chances = jnp.array([0.5, 0.3, 0.2])
  found = sample(
    lambda tokens: jnp.broadcast_to(jnp.log(chances), (*tokens.shape, 3)),
    jnp.full((3, 1000), MASK),
    KEYS,
    config=SamplingConfig(steps=1),
    mask_id=MASK,
    codes=3,
  )
  # Four standard deviations.
  shares = np.bincount(found.ravel(), minlength=3) / 3000
  np.testing.assert_allclose(shares, chances, atol=4 * math.sqrt(0.25 / 3000))


def test_starting_from_an_image():
  tokens = jnp.zeros((3, 1000), jnp.int32)
  masked = mask_at_random(tokens, KEYS, 0.7, MASK) == MASK
  assert masked.mean() == pytest.approx(0.7, abs=4 * math.sqrt(0.21 / 3000))
  np.testing.assert_array_equal(
    mask_at_random(tokens[:1], KEYS[1:2], 0.7, MASK)[0] == MASK, masked[1]
  )
  assert [first_step(12, s) for s in (1.0, 0.5, 0.1)] == [0, 6, 11]


@pytest.mark.parametrize('strength', [0.0, 0.08, 1.1, -1.0])
def test_strengths_without_a_step(strength):
  with pytest.raises(InputError, match=r'of 12 steps; .* at least 1/12 for one step'):
    first_step(12, strength)
