"""A second task: autoencoding generated pictures, with batch norm and dropout.

It shows that the trainer is independent of the first task. As a config file:
python -m rahf.main --config=tests/toy_task.py --workdir=…
"""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import linen as nn
from ml_collections import ConfigDict

from rahf.config import default_config
from rahf.fileio import atomic_write
from rahf.pretrained.loading import Plan
from rahf.runtime import sharding
from rahf.runtime.tree import by_path
from rahf.tasks import TASKS
from rahf.training.setup import Setup

SIZE, EXAMPLES = 16, 24


class Losses(NamedTuple):
  pixels: jax.Array
  total: jax.Array


class Autoencoder(nn.Module):
  @nn.compact
  def __call__(self, image: jax.Array, *, train: bool) -> jax.Array:
    x = nn.Conv(8, (4, 4), (4, 4))(image)
    x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.5)(x))
    x = nn.Dropout(0.1, deterministic=not train)(x)
    return nn.ConvTranspose(3, (4, 4), (4, 4))(x)


@dataclasses.dataclass(frozen=True)
class AutoencoderTask:
  """See `training.task.Task`."""

  config: ConfigDict
  model: Autoencoder = Autoencoder()
  title: str = 'autoencoder'
  trains: bool = True
  dtype: str = 'float32'

  def init(self, key: jax.Array) -> Any:
    return self.model.init(key, jnp.zeros((1, SIZE, SIZE, 3)), train=False)

  def batch_shapes(self, rows: int, sharding=None) -> dict[str, jax.ShapeDtypeStruct]:
    shape = (rows, SIZE, SIZE, 3)
    return {'image': jax.ShapeDtypeStruct(shape, jnp.float32, sharding=sharding)}

  def count_labels(self, batch: Any) -> jax.Array:
    return jnp.float32(len(batch['image']))

  def loss(self, variables, batch, counts, key) -> tuple[Losses, Any]:
    image = batch['image']
    drawn, changed = self.model.apply(
      variables, image, train=True, mutable=['batch_stats'], rngs={'dropout': key}
    )
    pixels = jnp.sum(jnp.mean(jnp.square(drawn - image), (1, 2, 3))) / counts
    return Losses(pixels, pixels), changed

  def open(self, setup: Setup, workdir: epath.Path) -> 'AutoencoderSession':
    del workdir
    return AutoencoderSession(setup, self.model)


@dataclasses.dataclass(frozen=True)
class AutoencoderSession:
  """See `training.task.Session`."""

  setup: Setup
  model: Autoencoder

  def describe(self, splits) -> str:
    return f'Autoencoder: {self.setup.describe()}; {", ".join(splits)}'

  def plan_weights(self) -> Plan:
    params = by_path(self.setup.states.abstract.params)
    return Plan({}, params, {}, frozenset(), tuple(params))

  def write_description(self, workdir: epath.Path, plan: Plan) -> None:
    (workdir / 'model_card.md').write_text('An autoencoder.\n')

  def train_batches(self, start_step: int) -> Iterator[dict[str, np.ndarray]]:
    size = self.setup.config.train.batch_size
    for step in itertools.count(start_step):
      yield {'image': draw(size, step)}

  def evaluator(self) -> 'AutoencoderEvaluator':
    return AutoencoderEvaluator(self)


class AutoencoderEvaluator:
  """See `training.task.Evaluator`."""

  headlines = ('loss/total',)

  def __init__(self, session: AutoencoderSession):
    self._session = session
    replicated = sharding.replicated(session.setup.mesh)
    self._measure = jax.jit(self._error, out_shardings=replicated)

  def _error(self, variables, image: jax.Array) -> jax.Array:
    drawn = self._session.model.apply(variables, image, train=False)
    return jnp.mean(jnp.square(drawn - image))

  def compile(self) -> None:
    pass

  def splits_before(self, split: str) -> tuple[str, ...]:
    return ()

  def evaluate(self, variables, workdir, step, split, stop, board):
    stop.check()
    error = float(self._measure(variables, draw(EXAMPLES, 10**6)))
    text = f'{split}: {error}\n'
    (workdir / 'eval').mkdir(exist_ok=True)
    atomic_write.write(workdir / f'eval/{split}-{step}.md', text)
    return {'loss/total': error}, text


def draw(rows: int, step: int) -> np.ndarray:
  """Returns pictures with one rectangle each, float32 in [0, 1]."""
  random = np.random.default_rng(step)
  images = np.ones((rows, SIZE, SIZE, 3), np.float32)
  for image in images:
    top, left = random.integers(0, SIZE // 2, 2)
    image[top : top + 6, left : left + 6] = random.random(3)
  return images


TASKS['toy'] = AutoencoderTask


def get_config() -> ConfigDict:
  config = default_config()
  config.task = 'toy'
  config.optimizer.update(warmup_steps=2, learning_rate=0.01)
  config.train.update(
    steps=8, batch_size=16, accumulate=2, log_every=1, checkpoint_every=2, average=0.9
  )
  config.eval.update(every=4, batch_size=8)
  return config
