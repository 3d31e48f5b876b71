"""The autoencoder task with its data: evaluation and pictures."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jaxtyping import Array
from PIL import Image

from rahf.drawing import contact_sheet
from rahf.models.muse.autoencoder import Autoencoder
from rahf.runtime import sharding
from rahf.runtime.distributed import StopSignal
from rahf.tasks.muse_session import (
  MuseSession,
  decode_rows,
  open_images,
)
from rahf.tasks.pictures import shown_rows, tile
from rahf.tasks.split_evaluator import SplitEvaluator
from rahf.training.setup import Setup
from rahf.training.task import Variables


class AutoencoderSession(MuseSession):
  """The autoencoder task with its data; a `training.task.Session`."""

  def evaluator(self) -> 'AutoencoderEvaluator':
    step = self.setup.task.make_eval_step(self.setup.gather)
    return AutoencoderEvaluator(self.setup, self.data, step)


class AutoencoderEvaluator(SplitEvaluator):
  """Reconstructs the images of a split, and counts the codes that it uses."""

  headlines = ('reconstruction/psnr', 'codes/used')

  def measure(
    self, variables: Variables, split_name: str, stop: StopSignal
  ) -> dict[str, float]:
    """Returns the error and the use of the codes.

    reconstruction/mse of pixels in [0, 1], lower is better; reconstruction/psnr, the
    mean over images in dB, higher is better; codes/used, the share of codes that occur;
    codes/perplexity, the number of equally frequent codes of the same entropy.
    """
    size = self.setup.task.muse.autoencoder.codebook_size
    errors, counts = [], np.zeros(size)
    for found in self.outputs(variables, split_name, stop):
      errors += found.squared_error.tolist()
      counts += np.bincount(found.tokens.ravel(), minlength=size)
    share = counts[counts > 0] / counts.sum()
    errors = np.array(errors)
    return {
      'reconstruction/mse': float(errors.mean()),
      'reconstruction/psnr': float(-10 * np.log10(np.maximum(errors, 1e-10)).mean()),
      'codes/used': float(np.mean(counts > 0)),
      'codes/perplexity': float(np.exp(-np.sum(share * np.log(share)))),
    }

  def pictures(
    self, variables: Variables, split_name: str
  ) -> dict[str, list[Image.Image]]:
    """Returns a contact sheet of images and their reconstructions."""
    split = self.data.split(split_name)
    rows = shown_rows(split, self.setup.config.review.examples)
    if not rows:
      return {}
    images = decode_rows(self.data, split, rows)['image']
    found = self._reconstruct(variables, images.astype(np.float32) / 255)
    tiles = []
    for original, image in zip(images, jax.device_get(found), strict=True):
      tiles += [tile(original, 'original'), tile(image, 'reconstruction')]
    row = contact_sheet.Row(f'{split_name}: images and reconstructions', tiles)
    return {'reconstructions': [*contact_sheet.sheets([row])]}

  @functools.cached_property
  def _reconstruct(self) -> Callable:
    setup = self.setup
    model = Autoencoder(setup.task.muse.autoencoder, jnp.dtype(setup.task.dtype))

    def reconstruct(variables: Variables, images: Array) -> Array:
      params = setup.gather(variables['params'])['autoencoder']
      return jnp.clip(model.apply({'params': params}, images).image, 0, 1)

    return jax.jit(reconstruct, out_shardings=sharding.replicated(setup.mesh))


def open_session(setup: Setup, workdir: epath.Path) -> AutoencoderSession:
  """Opens data and vocabulary.

  Raises:
    InputError: one of them is missing, or does not fit the model.
  """
  return AutoencoderSession(setup, open_images(setup.config, setup.task.muse, workdir))
