"""Quantisers: a learned codebook, or rounding to a fixed grid.

Axis letters: N leading axes, D width of a code, K number of codes.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

# Weight of the commitment loss (van den Oord et al., 2017).
BETA = 0.25
# Weight of `rounding_loss`. On shapes, 0.25 froze two of three channels before the
# decoder had learned to use them, and 0.005 left the background noisy.
ROUNDING = 0.03


def nearest(
  latents: Float[Array, '*N D'], codebook: Float[Array, 'K D']
) -> Int[Array, '*N']:
  """Returns the code of least distance to each latent; at a tie the first."""
  # The square of the latent is the same for all codes.
  products = jnp.matmul(latents, codebook.T, precision=jax.lax.Precision.HIGHEST)
  distances = jnp.square(codebook).sum(-1) - 2 * products
  return jnp.argmin(distances, -1).astype(jnp.int32)


def straight_through(
  latents: Float[Array, '*N D'], codes: Float[Array, '*N D']
) -> Float[Array, '*N D']:
  """Returns the codes, whose gradient is passed on to the latents as it is."""
  return latents + jax.lax.stop_gradient(codes - latents)


def codebook_loss(
  latents: Float[Array, '*N D'], codes: Float[Array, '*N D']
) -> Float[Array, '']:
  """Returns the loss that draws learned codes to latents, and latents to codes.

  Args:
    latents: what the encoder made.
    codes: their nearest codes, with a gradient to the codebook.
  """
  of_codes = jnp.mean(jnp.square(jax.lax.stop_gradient(latents) - codes))
  return of_codes + _commitment(latents, codes, BETA)


def rounding_loss(
  latents: Float[Array, '*N D'], codes: Float[Array, '*N D']
) -> Float[Array, '']:
  """Returns the loss that draws latents to the levels that they are rounded to.

  FSQ uses all codes without it. But where an even background lies between codes, it
  becomes noise, which a transformer cannot predict.
  """
  return _commitment(latents, codes, ROUNDING)


def _commitment(latents: Array, codes: Array, weight: float) -> Float[Array, '']:
  return weight * jnp.mean(jnp.square(latents - jax.lax.stop_gradient(codes)))


def fsq_digits(
  latents: Float[Array, '*N D'], levels: tuple[int, ...]
) -> Int[Array, '*N D']:
  """Rounds each channel to one of its levels (FSQ; Mentzer et al., 2023).

  Channel i is squashed to (-1, 1) by a tanh, over which `levels[i]` levels are spread
  evenly, both ends included. The paper's levels are the same where their number is
  odd; where it is even, it shifts them so that one of them is 0.
  """
  steps = np.array(levels, np.float32) - 1
  digits = jnp.round((jnp.tanh(latents) + 1) / 2 * steps)
  return digits.astype(jnp.int32)


def fsq_token(digits: Int[Array, '*N D'], levels: tuple[int, ...]) -> Int[Array, '*N']:
  """Returns digits as one number; the first digit counts least."""
  return jnp.sum(digits * _places(levels), -1, dtype=jnp.int32)


def fsq_code(tokens: Int[Array, '*N'], levels: tuple[int, ...]) -> Float[Array, '*N D']:
  """Returns the code of each token: D numbers from -1 to 1."""
  sizes = np.array(levels, np.int32)
  digits = tokens[..., None] // _places(levels) % sizes
  return 2 * digits / (sizes - 1).astype(np.float32) - 1


def _places(levels: tuple[int, ...]) -> Int[np.ndarray, ' D']:
  return np.array([math.prod(levels[:i]) for i in range(len(levels))], np.int32)
