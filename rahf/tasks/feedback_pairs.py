"""RAHF learns from labelled images and from preference pairs in the same batches.

The pairs have no maps, scores or words. Their loss is that of PickScore, with a
weighted sum of the scores of both images, by default the overall score, in the place of
PickScore's score.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from rahf.data.images import codec
from rahf.data.preferences.pair_order import check_lanes
from rahf.data.schema import SCORES, Batch, MixedBatch, PairBatch
from rahf.models.rahf import RAHF
from rahf.runtime import sharding as sharding_lib
from rahf.tasks.feedback import FeedbackTask
from rahf.training.batch_spec import pair_shapes
from rahf.training.losses import LabelSums
from rahf.training.preference_losses import pair_losses
from rahf.training.setup import Setup
from rahf.training.task import Session, Variables


class MixedCounts(NamedTuple):
  """What the losses are divided by: counts of labels, and the pairs' weights."""

  labels: LabelSums
  pairs: Float[Array, '']


class Losses(NamedTuple):
  """Mean losses; total is their weighted sum."""

  heatmap: Float[Array, '']
  score: Float[Array, '']
  sequence: Float[Array, '']
  preference: Float[Array, '']
  total: Float[Array, '']


@dataclasses.dataclass(frozen=True)
class FeedbackPairsTask(FeedbackTask):
  """RAHF, its loss, and that of pairs; a `training.task.Task`."""

  @property
  def title(self) -> str:
    return f'{super().title}, with preference pairs'

  def batch_shapes(
    self,
    rows: int,
    sharding: jax.sharding.Sharding | None = None,
    *,
    train: bool = False,
  ) -> Batch | MixedBatch:
    labelled = super().batch_shapes(rows, sharding)
    if not train:
      return labelled
    pairs, size = self.config.pairs.batch_size, self.config.model.image_size
    return MixedBatch(
      labelled, pair_shapes(pairs, size, labelled.text.shape[1:], sharding)
    )

  def count_labels(self, batch: MixedBatch) -> MixedCounts:
    return MixedCounts(
      super().count_labels(batch.labelled), jnp.sum(batch.pairs.weight)
    )

  def loss(
    self, variables: Variables, batch: MixedBatch, counts: MixedCounts, key: jax.Array
  ) -> tuple[Losses, Variables]:
    of_labels, of_pairs = jax.random.split(key)
    labelled, changed = super().loss(
      variables, batch.labelled, counts.labels, of_labels
    )
    losses = pair_losses(
      self._pair_scores(variables, batch.pairs, of_pairs), batch.pairs.preference
    )
    # Without any usable pair the loss is 0, not NaN.
    total_weight = jnp.where(counts.pairs > 0, counts.pairs, 1)
    preference = jnp.sum(losses * batch.pairs.weight) / total_weight
    total = labelled.total + self.config.loss.preference * preference
    return Losses(*labelled[:-1], preference, total), changed

  def _pair_scores(
    self, variables: Variables, pairs: PairBatch, key: jax.Array
  ) -> Float[Array, 'B 2']:
    """Returns the logits of both images of each pair."""
    images = codec.to_signed(pairs.images / 255)
    scores = self.model.apply(
      variables,
      images.reshape(-1, *images.shape[2:]),
      jnp.repeat(pairs.text, 2, axis=0),
      train=True,
      rngs={'dropout': key},
      method=RAHF.score,
    )
    weights = np.zeros(len(SCORES), np.float32)
    for name, weight in self.config.pairs.score_weights:
      weights[SCORES.index(name)] += weight
    return self.config.pairs.scale * (scores @ weights).reshape(-1, 2)

  def open(self, setup: Setup, workdir: epath.Path) -> Session:
    # Imported late: loading data needs TensorFlow, the model does not.
    from rahf.tasks.feedback_data import open_data
    from rahf.tasks.feedback_pairs_session import FeedbackPairsSession

    _check_pairs(self.config, setup)
    return FeedbackPairsSession(setup, open_data(self.config))


def _check_pairs(config: ConfigDict, setup: Setup) -> None:
  """Raises InputError unless devices, micro-batches and lanes divide the pairs."""
  size, lanes = config.pairs.batch_size, config.pairs.lanes
  sharding_lib.check_batch_size(
    'config.pairs.batch_size', size, setup.mesh, config.train.accumulate
  )
  check_lanes(lanes, size, 'config.pairs.batch_size')
