"""PickScore's losses on preference pairs (Kirstain et al., 2023).

The softmax of the scores of two images is the probability that people prefer each. All
losses are in nats per pair; their weighted mean is minimised.

Axis letters: B batch, E width of CLIP's space.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

# A tie's cross-entropy is at least log 2; without this its loss is at least 0.
TIE_OFFSET = math.log(0.5)


class Features(NamedTuple):
  """Normalised features of pairs, and the scale of their cosines."""

  images: Float[Array, 'B 2 E']
  text: Float[Array, 'B E']
  scale: Float[Array, '']


class PairScores(NamedTuple):
  """The scores of both images of each pair; `index` is -1 in padding rows.

  Attributes:
    scores: exp(logit_scale) x cosine, higher is better.
    weight: 0 for dropped and padding rows.
    problem: what is wrong with the pair, a `preferences.pair_tally.Problem`.
  """

  index: Int[Array, 'B']
  scores: Float[Array, 'B 2']
  preference: Float[Array, 'B']
  weight: Float[Array, 'B']
  problem: Int[Array, 'B']


def scores_of(features: Features) -> Float[Array, 'B 2']:
  """Returns the score of each image for its prompt."""
  cosines = jnp.einsum('bie,be->bi', features.images, features.text)
  return features.scale * cosines


def pair_losses(
  scores: Float[Array, 'B 2'], preference: Float[Array, 'B']
) -> Float[Array, 'B']:
  """Returns the cross-entropy of each pair, less log 2 for ties.

  Args:
    preference: the probability that the first image is preferred.
  """
  labels = jnp.stack([preference, 1 - preference], -1)
  return optax.softmax_cross_entropy(scores, labels) + _tie_offset(preference)


def in_batch_losses(
  features: Features, preference: Float[Array, 'B'], used: Bool[Array, 'B']
) -> Float[Array, 'B']:
  """Returns the loss of each pair with the others of the batch as negatives.

  The mean of two cross-entropies: of each image, weighted by its label, against all
  prompts, and of each prompt against all images of the batch.

  Args:
    preference: the probability that the first image is preferred.
    used: False for rows that serve neither as pairs nor as negatives.
  """
  labels = jnp.stack([preference, 1 - preference], -1)
  logits = features.scale * jnp.einsum('bie,ce->bic', features.images, features.text)
  # Minus infinity for rows that are not used; their own loss has weight 0.
  ignored = jnp.where(used | jnp.eye(len(used), dtype=bool), 0, -jnp.inf)
  own = jnp.arange(len(used))
  of_images = -jax.nn.log_softmax(logits + ignored[:, None])[own, :, own]
  by_text = jnp.moveaxis(logits, 2, 0) + ignored[:, :, None]  # [text, row, side]
  log_p = jax.nn.log_softmax(by_text.reshape(len(used), -1)).reshape(by_text.shape)
  of_texts = -log_p[own, own]
  image_to_text = jnp.sum(labels * of_images, 1)
  text_to_image = jnp.sum(labels * of_texts, 1) + _tie_offset(preference)
  return (image_to_text + text_to_image) / 2


def _tie_offset(preference: Float[Array, 'B']) -> Float[Array, 'B']:
  return jnp.where(preference == 0.5, TIE_OFFSET, 0.0)
