"""The captions task: RAHF learns to describe images, before it learns from feedback.

The paper added the captioning of natural images to the mixture that its model was
pretrained on (section 4.1). Encoders and decoder learn from it; maps and scores do not.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from etils import epath
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from rahf.data.schema import Batch
from rahf.models.rahf import RAHF
from rahf.runtime import sharding
from rahf.tasks.feedback import FeedbackTask
from rahf.training.losses import token_mask
from rahf.training.setup import Setup
from rahf.training.task import Session, Variables


class Losses(NamedTuple):
  """The mean loss, cross-entropy per token of the captions in nats."""

  sequence: Float[Array, '']
  total: Float[Array, '']


class CaptionResult(NamedTuple):
  """What is evaluated of a batch.

  Attributes:
    index, truncated: copied from the batch.
    captions: decoded greedily; ids with an end, then 0.
    nats: cross-entropy of each caption under teacher forcing, a sum over its tokens.
    right: how many of its tokens are the most likely ones.
    tokens: how many it has.
  """

  index: Int[Array, 'B']
  truncated: Bool[Array, 'B']
  captions: Int[Array, 'B T']
  nats: Float[Array, 'B']
  right: Int[Array, 'B']
  tokens: Int[Array, 'B']


@dataclasses.dataclass(frozen=True)
class CaptionsTask(FeedbackTask):
  """RAHF and the loss of captions; a `training.task.Task`."""

  @property
  def title(self) -> str:
    return f'{super().title}, captions'

  def count_labels(self, batch: Batch) -> Float[Array, '']:
    return jnp.sum(token_mask(batch), dtype=jnp.float32)

  def loss(
    self,
    variables: Variables,
    batch: Batch,
    counts: Float[Array, ''],
    key: jax.Array,
  ) -> tuple[Losses, Variables]:
    logits, _ = self._decode(variables, batch, train=True, rngs={'dropout': key})
    mean = jnp.sum(_nats(logits, batch)) / jnp.maximum(counts, 1)
    return Losses(mean, mean), {}

  def _decode(
    self, variables: Variables, batch: Batch, *, train: bool, **options: Any
  ) -> tuple[Float[Array, 'B T V'], Any]:
    """Returns the logits of the captions, and the encoded images."""
    fused = self.model.apply(
      variables,
      batch.image,
      batch.text[:, -1:],
      train=train,
      method=RAHF.encode,
      **options,
    )
    logits = self.model.apply(
      variables, fused, batch.target, train=train, method=RAHF.logits, **options
    )
    return logits, fused

  def make_eval_step(
    self, gather: Callable[[Any], Any]
  ) -> Callable[[Variables, Batch], CaptionResult]:
    length = self.config.data.target_length

    def eval_step(variables: Variables, batch: Batch) -> CaptionResult:
      variables = {'params': gather(variables['params'])}
      with nn.logical_axis_rules(sharding.LOGICAL_AXIS_RULES):
        logits, fused = self._decode(variables, batch, train=False)
        captions = self.model.apply(
          variables, fused, length, method=RAHF.decode_greedily
        )
      mask = token_mask(batch)
      return CaptionResult(
        batch.index,
        batch.truncated,
        captions,
        jnp.sum(_nats(logits, batch), 1),
        jnp.sum((jnp.argmax(logits, -1) == batch.target) & mask, 1),
        jnp.sum(mask, 1),
      )

    return eval_step

  def open(self, setup: Setup, workdir: epath.Path) -> Session:
    del workdir
    # Imported late: loading data needs TensorFlow, the model does not.
    from rahf.tasks.captions_session import CaptionsSession
    from rahf.tasks.feedback_data import open_data

    return CaptionsSession(setup, open_data(self.config))


def _nats(logits: Float[Array, 'B T V'], batch: Batch) -> Float[Array, 'B T']:
  """Returns the cross-entropy of each token, 0 for padding."""
  nats = optax.softmax_cross_entropy_with_integer_labels(logits, batch.target)
  return nats * token_mask(batch)
