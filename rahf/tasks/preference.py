"""The preference task: a CLIP learns which of two images people prefer (PickScore).

Kirstain et al., 2023: the score of an image is exp(logit_scale) x the cosine of image
and prompt, and the softmax of two scores the probability that people prefer one.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from etils import epath
from flax import linen as nn
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from rahf.data.schema import PairBatch
from rahf.errors import InputError
from rahf.models.clip import CLIP, MEAN, STD, normalised
from rahf.runtime import sharding
from rahf.tasks import clip_data
from rahf.tasks.clip_task import ClipTask
from rahf.training.batch_spec import pair_shapes
from rahf.training.preference_losses import (
  Features,
  PairScores,
  in_batch_losses,
  pair_losses,
  scores_of,
)
from rahf.training.setup import Setup
from rahf.training.task import Session, Variables


class Losses(NamedTuple):
  """Mean loss in nats per pair, weighted by `PairBatch.weight`."""

  total: Float[Array, '']


@dataclasses.dataclass(frozen=True)
class PreferenceTask(ClipTask):
  """A CLIP and its loss on pairs; a `training.task.Task`."""

  @classmethod
  def of(cls, config: ConfigDict) -> 'PreferenceTask':
    if config.pairs.in_batch_negatives and config.train.accumulate > 1:
      raise InputError(
        f'config.train.accumulate = {config.train.accumulate}, but with '
        'config.pairs.in_batch_negatives all pairs of a batch are compared at once; '
        'use 1'
      )
    return cls(config, clip_data.make_clip_config(config))

  @property
  def title(self) -> str:
    return f'PickScore, {self.clip_config.image_size} px'

  def batch_shapes(
    self,
    rows: int,
    sharding: jax.sharding.Sharding | None = None,
    *,
    train: bool = False,
  ) -> PairBatch:
    del train
    clip = self.clip_config
    return pair_shapes(rows, clip.image_size, (clip.text_length,), sharding)

  def count_labels(self, batch: PairBatch) -> Array:
    return jnp.sum(batch.weight)

  def loss(
    self, variables: Variables, batch: PairBatch, counts: Array, key: jax.Array
  ) -> tuple[Losses, Variables]:
    del key  # There is no dropout.
    features = self.features(variables, batch)
    if self.config.pairs.in_batch_negatives:
      losses = in_batch_losses(features, batch.preference, batch.weight > 0)
    else:
      losses = pair_losses(scores_of(features), batch.preference)
    # A batch whose pairs are all dropped has loss 0, not NaN.
    total = jnp.sum(losses * batch.weight) / jnp.where(counts > 0, counts, 1)
    return Losses(total), {}

  def features(self, variables: Variables, batch: PairBatch) -> Features:
    """Embeds images and prompts."""
    params = variables['params']['clip']
    model = CLIP(self.clip_config)
    pixels = (batch.images.reshape(-1, *batch.images.shape[2:]) / 255 - MEAN) / STD
    images = model.apply({'params': params}, pixels, method=CLIP.image_features)
    text = model.apply({'params': params}, batch.text, method=CLIP.text_features)
    images = normalised(images).reshape(len(batch.text), 2, -1)
    return Features(images, normalised(text), jnp.exp(params['logit_scale']))

  def make_eval_step(
    self, gather: Callable[[Any], Any]
  ) -> Callable[[Variables, PairBatch], PairScores]:
    def eval_step(variables: Variables, batch: PairBatch) -> PairScores:
      with nn.logical_axis_rules(sharding.LOGICAL_AXIS_RULES):
        features = self.features({'params': gather(variables['params'])}, batch)
      return PairScores(
        batch.index,
        scores_of(features),
        batch.preference,
        batch.weight,
        batch.problem,
      )

    return eval_step

  def open(self, setup: Setup, workdir: epath.Path) -> Session:
    # Imported late: reading pairs needs pyarrow, the model does not.
    from rahf.tasks.preference_session import open_session

    return open_session(setup, workdir)
