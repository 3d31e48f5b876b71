"""The training loss: heatmap MSE, score MSE and teacher-forced cross-entropy.

Errors are kept as sums and labels as counts. Both can be added, so that micro-batches
give exactly the loss of their batch, and padded batches the loss of a split.

Axis letters: B batch, H W map size, T target tokens, V vocabulary.
"""

from typing import NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from rahf.data.schema import Batch
from rahf.models.rahf import PAD_ID, Outputs


class LabelSums(NamedTuple):
  """Error sums or label counts: per map, per score, and of all target tokens."""

  maps: Float[Array, '2']
  scores: Float[Array, '4']
  tokens: Float[Array, '']


class Losses(NamedTuple):
  """Mean losses; total is their weighted sum."""

  heatmap: Float[Array, '']
  score: Float[Array, '']
  sequence: Float[Array, '']
  total: Float[Array, '']


def count_labels(batch: Batch) -> LabelSums:
  """Counts the annotated maps and scores, and the tokens of annotated targets."""
  return LabelSums(
    maps=jnp.sum(batch.map_mask, 0, jnp.float32),
    scores=jnp.sum(batch.score_mask, 0, jnp.float32),
    tokens=jnp.sum(token_mask(batch), dtype=jnp.float32),
  )


def sum_errors(outputs: Outputs, batch: Batch) -> LabelSums:
  """Sums the errors of a batch: mean squares per map, squares per score, nats.

  Outputs that a model does not predict (None) contribute 0, and the caller masks
  their labels.
  """
  sums = LabelSums(jnp.zeros(2), jnp.zeros(4), jnp.zeros(()))
  if outputs.maps is not None:
    pixel_errors = jnp.mean(jnp.square(outputs.maps - batch.maps), axis=(2, 3))
    sums = sums._replace(maps=jnp.sum(pixel_errors * batch.map_mask, 0))
  if outputs.scores is not None:
    score_errors = jnp.square(outputs.scores - batch.scores)
    sums = sums._replace(scores=jnp.sum(score_errors * batch.score_mask, 0))
  if outputs.logits is not None:
    nats = optax.softmax_cross_entropy_with_integer_labels(outputs.logits, batch.target)
    sums = sums._replace(tokens=jnp.sum(nats * token_mask(batch)))
  return sums


def weighted_losses(errors: LabelSums, counts: LabelSums, weights) -> Losses:
  """Turns sums into the loss (paper section 4.3).

  Args:
    errors: of the batch, or of one micro-batch of it.
    counts: of the whole batch. A type without labels contributes 0.
    weights: `config.loss`, with the fields heatmap, score and sequence.

  Returns:
    heatmap: sum over map types of the mean pixel MSE.
    score: sum over score types of the mean MSE.
    sequence: cross-entropy per target token in nats, with EOS, without padding.
  """
  means = [
    error / jnp.maximum(count, 1) for error, count in zip(errors, counts, strict=True)
  ]
  heatmap, score, sequence = (jnp.sum(mean) for mean in means)
  total = (
    weights.heatmap * heatmap + weights.score * score + weights.sequence * sequence
  )
  return Losses(heatmap, score, sequence, total)


def token_mask(batch: Batch) -> Bool[Array, 'B T']:
  """True at target tokens that count: annotated, and not padding."""
  return (batch.target != PAD_ID) & batch.keyword_mask[:, None]
