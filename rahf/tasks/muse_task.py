"""What the two tasks that train a Muse have in common."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from rahf.data.schema import ImageBatch
from rahf.models.muse import MuseConfig
from rahf.training.batch_spec import of_rows


@dataclasses.dataclass(frozen=True)
class MuseTask:
  """A Muse without a loss; the common part of a `training.task.Task`."""

  config: ConfigDict
  muse: MuseConfig
  trains = True

  @property
  def dtype(self) -> str:
    return self.muse.dtype

  def batch_shapes(
    self,
    rows: int,
    sharding: jax.sharding.Sharding | None = None,
    *,
    train: bool = False,
  ) -> ImageBatch:
    del train
    size, array = self.muse.image_size, of_rows(rows, sharding)
    return ImageBatch(
      index=array(jnp.int32),
      image=array(jnp.float32, size, size, 3),
      text=array(jnp.int32, self.muse.text.text_length),
      truncated=array(jnp.bool_),
    )

  def count_labels(self, batch: ImageBatch) -> Array:
    return jnp.float32(len(batch.index))


def from_signed(image: Float[Array, 'B H W 3']) -> Float[Array, 'B H W 3']:
  """Scales images from [-1, 1] to the [0, 1] that a Muse takes."""
  return (image + 1) / 2
