"""Quantisers against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np

from rahf.models.muse.quantiser import (
  codebook_loss,
  fsq_code,
  fsq_digits,
  fsq_token,
  nearest,
  straight_through,
)

LEVELS = (4, 3, 2)


def test_nearest_code():
  codebook = jnp.array([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]])
  latents = jnp.array([[[1.0, 0.9], [2.1, 0.0]], [[9.0, 8.0], [0.0, 2.1]]])
  assert nearest(latents, codebook).tolist() == [[0, 1], [1, 2]]


def test_a_token_is_a_number_of_its_digits():
  assert fsq_token(jnp.array([1, 2, 0]), LEVELS) == 1 + 2 * 4
  assert fsq_token(jnp.array([3, 2, 1]), LEVELS) == 4 * 3 * 2 - 1


def test_codes_are_spread_evenly_and_come_back():
  codes = fsq_code(jnp.arange(24), LEVELS)
  np.testing.assert_allclose(codes[:4, 0], [-1, -1 / 3, 1 / 3, 1], atol=1e-6)
  assert sorted(set(codes[:, 1].tolist())) == [-1, 0, 1]
  assert len({tuple(code) for code in codes.tolist()}) == 24
  # Levels at the ends are only approached by a tanh.
  latents = jnp.arctanh(0.99 * codes)
  assert fsq_token(fsq_digits(latents, LEVELS), LEVELS).tolist() == [*range(24)]


def test_digits_stay_in_range():
  latents = jnp.array([[-1e9, 1e9, 0.1], [1e9, -1e9, -0.1]])
  assert fsq_digits(latents, LEVELS).tolist() == [[0, 2, 1], [3, 0, 0]]


def test_straight_through():
  latents, codes = jnp.array([[0.2, 0.8]]), jnp.array([[0.0, 1.0]])
  factor = jnp.array([3.0, -2.0])
  value, gradients = jax.value_and_grad(
    lambda *args: jnp.sum(factor * straight_through(*args)), (0, 1)
  )(latents, codes)
  assert value == -2
  np.testing.assert_array_equal(gradients[0][0], factor)
  np.testing.assert_array_equal(gradients[1], 0)


def test_codebook_loss():
  latents, codes = jnp.array([[1.0, 2.0]]), jnp.array([[0.0, 4.0]])
  value, gradients = jax.value_and_grad(codebook_loss, (0, 1))(latents, codes)
  # The mean of 1 and 4, once for the codes and a quarter for the latents.
  assert value == 2.5 * 1.25
  np.testing.assert_allclose(gradients[0], [[0.25, -0.5]])
  np.testing.assert_allclose(gradients[1], [[-1.0, 2.0]])
