"""The generator task with its data: weights, evaluation and samples to look at."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jaxtyping import Array
from PIL import Image

from rahf.config import sampling_config
from rahf.drawing import contact_sheet
from rahf.errors import InputError
from rahf.models import muse as muse_lib
from rahf.models.muse import generator as model
from rahf.models.muse.text import emptied
from rahf.pretrained import loading
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

# Pictures of each prompt, one for each seed from 0 on.
SAMPLES = 4


class GeneratorSession(MuseSession):
  """The generator task with its data; a `training.task.Session`."""

  def plan_weights(self) -> loading.Plan:
    plan = super().plan_weights()
    if any(path.startswith('autoencoder/') for path in plan.fresh):
      raise InputError(
        'config.init.muse must be a model with a trained autoencoder: the export of a '
        "run with config.task = 'autoencoder', or an aMUSEd directory"
      )
    return plan

  def evaluator(self) -> 'GeneratorEvaluator':
    step = self.setup.task.make_eval_step(self.setup.gather)
    return GeneratorEvaluator(self.setup, self.data, step)


class GeneratorEvaluator(SplitEvaluator):
  """Predicts masked tokens of a split, and draws its prompts."""

  headlines = ('tokens/cross_entropy', 'tokens/accuracy')

  def measure(
    self, variables: Variables, split_name: str, stop: StopSignal
  ) -> dict[str, float]:
    """Returns the cross-entropy in nats and the accuracy per masked token.

    Masks are drawn as in training, but those of an image are always the same.
    """
    nats = right = masked = 0.0
    for found in self.outputs(variables, split_name, stop):
      nats += found.nats.sum(dtype=np.float64)
      right += found.right.sum()
      masked += found.masked.sum()
    return {
      'tokens/cross_entropy': float(nats / masked),
      'tokens/accuracy': float(right / masked),
    }

  def pictures(
    self, variables: Variables, split_name: str
  ) -> dict[str, list[Image.Image]]:
    """Returns contact sheets: images, reconstructions, samples of their prompts."""
    split = self.data.split(split_name)
    rows = shown_rows(split, self.setup.config.review.examples)
    if not rows:
      return {}
    shown = decode_rows(self.data, split, rows)
    originals = shown['image'].astype(np.float32) / 255
    reconstructed, *samples = jax.device_get(
      self._draw(variables, originals, shown['text'])
    )
    sheet = [
      contact_sheet.Row(
        split[row].prompt,
        [
          tile(shown['image'][i], 'original'),
          tile(reconstructed[i], 'reconstruction'),
          *(tile(one[i], f'sample {seed}') for seed, one in enumerate(samples)),
        ],
      )
      for i, row in enumerate(rows)
    ]
    return {'samples': [*contact_sheet.sheets(sheet)]}

  def _draw(
    self, variables: Variables, images: np.ndarray, text: np.ndarray
  ) -> list[jax.Array]:
    """Returns reconstructions, then samples for each seed."""
    muse = self.setup.task.muse
    reconstruct, draw = self._jitted
    params = variables['params']
    found = [reconstruct(params, images)]
    size = muse.image_size
    prompt = muse_lib.Prompt(
      text,
      emptied(jnp.asarray(text[:1]), muse.text.vocab_size - 1),
      muse_lib.micro_conditions(len(text), size, size),
    )
    for seed in range(SAMPLES):
      keys = jax.vmap(jax.random.key)(np.full(len(text), seed))
      found.append(draw(params, prompt, keys))
    return found

  @functools.cached_property
  def _jitted(self) -> tuple[Callable, Callable]:
    """The functions that reconstruct images and draw prompts."""
    task, gather = self.setup.task, self.setup.gather
    muse = task.muse
    sampling = sampling_config(self.setup.config)

    def reconstruct(params: Any, images: Array) -> Array:
      params = gather(params)
      return model.decode(muse, params, model.encode(muse, params, images))

    def draw(params: Any, prompt: muse_lib.Prompt, keys: Array) -> Array:
      params = task.model_params({'params': gather(params)})
      return model.generate(muse, params, prompt, keys, sampling=sampling).image

    replicated = sharding.replicated(self.setup.mesh)
    return tuple(jax.jit(f, out_shardings=replicated) for f in (reconstruct, draw))


def open_session(setup: Setup, workdir: epath.Path) -> GeneratorSession:
  """Opens data and vocabulary.

  Raises:
    InputError: one of them is missing, or does not fit the model.
  """
  return GeneratorSession(setup, open_images(setup.config, setup.task.muse, workdir))
