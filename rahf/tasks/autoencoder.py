"""The autoencoder task: images as grids of tokens, and back.

The first of the two trainings of a Muse. Mean squared error of the reconstruction, and
the losses that draw latents to codes and learned codes to latents (van den Oord et al.,
2017). aMUSEd's was also trained with a perceptual and an adversarial loss, which
need other networks and are left out.

Axis letters: B batch, H W image size, h w size of the grid of tokens.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from etils import epath
from flax import linen as nn
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict

from rahf.config import muse_config
from rahf.data.schema import ImageBatch
from rahf.models.muse import quantiser
from rahf.models.muse.autoencoder import Autoencoder, Reconstruction
from rahf.runtime import sharding
from rahf.tasks.muse_task import MuseTask, from_signed
from rahf.training.setup import Setup
from rahf.training.task import Session, Variables


class Losses(NamedTuple):
  """Mean squared error of pixels in [0, 1], loss of the codes, and their sum."""

  reconstruction: Float[Array, '']
  codebook: Float[Array, '']
  total: Float[Array, '']


class Reconstructed(NamedTuple):
  """Images of a batch after the autoencoder; `index` is -1 in padding rows."""

  index: Int[Array, 'B']
  image: Float[Array, 'B H W 3']
  tokens: Int[Array, 'B h w']
  squared_error: Float[Array, 'B']


@dataclasses.dataclass(frozen=True)
class AutoencoderTask(MuseTask):
  """The autoencoder of a Muse and its loss; a `training.task.Task`."""

  @classmethod
  def of(cls, config: ConfigDict) -> 'AutoencoderTask':
    return cls(config, muse_config(config))

  @property
  def title(self) -> str:
    config = self.muse.autoencoder
    return (
      f'autoencoder, {self.muse.image_size} px to {self.muse.grid} x {self.muse.grid} '
      f'of {config.codebook_size:,} tokens'
    )

  def init(self, key: jax.Array) -> Variables:
    side = self.muse.autoencoder.side
    variables = self._model.init(key, jnp.zeros((1, side, side, 3)))
    return {'params': {'autoencoder': variables['params']}}

  def loss(
    self, variables: Variables, batch: ImageBatch, counts: Array, key: jax.Array
  ) -> tuple[Losses, Variables]:
    del key
    image = from_signed(batch.image)
    found = self._reconstruct(variables, image)
    # Each micro-batch gives its share of the batch's mean.
    share = len(image) / counts
    reconstruction = share * jnp.mean(jnp.square(found.image - image))
    rounded = bool(self.muse.autoencoder.levels)
    loss = quantiser.rounding_loss if rounded else quantiser.codebook_loss
    codebook = share * loss(found.latents, found.codes)
    return Losses(reconstruction, codebook, reconstruction + codebook), {}

  def make_eval_step(
    self, gather: Callable[[Any], Any]
  ) -> Callable[[Variables, ImageBatch], Reconstructed]:
    def eval_step(variables: Variables, batch: ImageBatch) -> Reconstructed:
      with nn.logical_axis_rules(sharding.LOGICAL_AXIS_RULES):
        image = from_signed(batch.image)
        found = self._reconstruct({'params': gather(variables['params'])}, image)
        clipped = jnp.clip(found.image, 0, 1)
        error = jnp.mean(jnp.square(clipped - image), (1, 2, 3))
        return Reconstructed(batch.index, clipped, found.tokens, error)

    return eval_step

  def open(self, setup: Setup, workdir: epath.Path) -> Session:
    # Imported late: loading data needs TensorFlow, the model does not.
    from rahf.tasks.autoencoder_session import open_session

    return open_session(setup, workdir)

  @property
  def _model(self) -> Autoencoder:
    return Autoencoder(self.muse.autoencoder, jnp.dtype(self.dtype))

  def _reconstruct(self, variables: Variables, image: Array) -> Reconstruction:
    return self._model.apply({'params': variables['params']['autoencoder']}, image)
