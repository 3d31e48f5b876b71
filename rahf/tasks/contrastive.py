"""The contrastive task: a CLIP learns which text belongs to which image.

Radford et al., 2021: symmetric cross-entropy over all pairs of images and texts of a
batch, the negatives of all devices included.

Axis letters: B batch, E width of the space.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from etils import epath
from flax import linen as nn
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict

from rahf.data.schema import Batch
from rahf.errors import InputError
from rahf.models.clip import CLIP, MEAN, STD, normalised
from rahf.runtime import sharding
from rahf.tasks import clip_data
from rahf.tasks.clip_task import ClipTask
from rahf.training.batch_spec import batch_shapes
from rahf.training.setup import Setup
from rahf.training.task import Session, Variables

# As in OpenAI's training: the scale of the cosines grows no further than 100.
MAX_LOGIT_SCALE = math.log(100)


class Losses(NamedTuple):
  """Mean cross-entropies in nats, and their mean."""

  image_to_text: Float[Array, '']
  text_to_image: Float[Array, '']
  total: Float[Array, '']


class Features(NamedTuple):
  """Normalised features of a batch; `index` is -1 in padding rows."""

  index: Int[Array, 'B']
  image: Float[Array, 'B E']
  text: Float[Array, 'B E']


@dataclasses.dataclass(frozen=True)
class ContrastiveTask(ClipTask):
  """A CLIP and its loss; a `training.task.Task`."""

  @classmethod
  def of(cls, config: ConfigDict) -> 'ContrastiveTask':
    if config.train.accumulate > 1:
      raise InputError(
        f'config.train.accumulate = {config.train.accumulate}, but the contrastive '
        'task compares all images and texts of a batch at once; use 1'
      )
    clip_data.check_sizes(config)
    return cls(config, clip_data.make_clip_config(config))

  @property
  def title(self) -> str:
    return f'CLIP, {self.clip_config.image_size} px'

  def batch_shapes(
    self,
    rows: int,
    sharding: jax.sharding.Sharding | None = None,
    *,
    train: bool = False,
  ) -> Batch:
    del train
    return batch_shapes(self.config, rows, sharding)

  def count_labels(self, batch: Batch) -> Array:
    return jnp.float32(len(batch.index))

  def loss(
    self, variables: Variables, batch: Batch, counts: Array, key: jax.Array
  ) -> tuple[Losses, Variables]:
    del counts, key  # The mean over the batch; there is no dropout.
    features = self.features(variables, batch)
    scale = jnp.minimum(variables['params']['clip']['logit_scale'], MAX_LOGIT_SCALE)
    logits = jnp.exp(scale) * features.image @ features.text.T
    return contrastive_losses(logits, batch.text[:, -1]), {}

  def features(self, variables: Variables, batch: Batch) -> Features:
    """Embeds images and texts."""
    params = {'params': variables['params']['clip']}
    model = CLIP(self.clip_config)
    pixels = ((batch.image + 1) / 2 - MEAN) / STD
    image = model.apply(params, pixels, method=CLIP.image_features)
    text = model.apply(params, batch.text[:, -1], method=CLIP.text_features)
    return Features(batch.index, normalised(image), normalised(text))

  def make_eval_step(
    self, gather: Callable[[Any], Any]
  ) -> Callable[[Variables, Batch], Features]:
    def eval_step(variables: Variables, batch: Batch) -> Features:
      with nn.logical_axis_rules(sharding.LOGICAL_AXIS_RULES):
        return self.features({'params': gather(variables['params'])}, batch)

    return eval_step

  def open(self, setup: Setup, workdir: epath.Path) -> Session:
    # Imported late: loading data needs TensorFlow, the model does not.
    from rahf.tasks.contrastive_session import open_session

    return open_session(setup, workdir)


def contrastive_losses(logits: Float[Array, 'B B'], text: Int[Array, 'B T']) -> Losses:
  """Returns the losses of images (rows) and texts (columns).

  Images with the same text have each other's: all are right answers, of equal weight.
  """
  same = jnp.all(text[:, None] == text[None], -1)
  right = same / same.sum(1, keepdims=True)
  image_to_text = optax.softmax_cross_entropy(logits, right).mean()
  text_to_image = optax.softmax_cross_entropy(logits.T, right).mean()
  return Losses(image_to_text, text_to_image, (image_to_text + text_to_image) / 2)
