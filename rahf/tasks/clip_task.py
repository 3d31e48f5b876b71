"""What tasks that train a CLIP have in common."""

import dataclasses

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from rahf.models.baselines import ClipAlone
from rahf.models.clip import CLIPConfig
from rahf.training.task import Variables


@dataclasses.dataclass(frozen=True)
class ClipTask:
  """A CLIP without a loss; the common part of a `training.task.Task`."""

  config: ConfigDict
  clip_config: CLIPConfig
  trains = True

  @property
  def dtype(self) -> str:
    return self.clip_config.dtype

  def init(self, key: jax.Array) -> Variables:
    size = self.clip_config.image_size
    image = jnp.zeros((1, size, size, 3))
    end = jnp.full((1, 1), self.clip_config.vocab_size - 1)
    return ClipAlone(self.clip_config).init(key, image, end, train=False)
