"""The generator task: a transformer learns to predict masked tokens of images.

The second of the two trainings of a Muse (Chang et al., 2023, section 2): of each image
a share cos(pi t / 2) of the tokens is masked, t uniform in [0, 1], and predicted from
the others and from the text; the loss is the cross-entropy of the masked ones. For one
image in ten the text is the empty one, so that guidance has something to lead away
from. The autoencoder is not trained.

Axis letters: B batch, N tokens of an image, T text tokens.
"""

import dataclasses
import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from etils import epath
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int, Key
from ml_collections import ConfigDict

from rahf.config import muse_config
from rahf.data.schema import ImageBatch
from rahf.errors import InputError
from rahf.models import muse as muse_lib
from rahf.models.muse import generator as model
from rahf.models.muse.text import emptied
from rahf.models.muse.transformer import Transformer
from rahf.runtime import sharding
from rahf.tasks.muse_task import MuseTask, from_signed
from rahf.training import lora
from rahf.training.setup import Setup
from rahf.training.task import Session, Variables

# The mean of cos(pi t / 2) over t: the share of all tokens that is masked on average.
MEAN_SHARE = 2 / math.pi


class Losses(NamedTuple):
  """Of the masked tokens.

  Both are sums over the masked tokens, divided by the number of tokens that are masked
  on average: the number in one batch depends on chance.

  Attributes:
    accuracy: share whose most probable code is right.
    total: cross-entropy in nats, of smoothed labels if `config.generator` says so.
  """

  accuracy: Float[Array, '']
  total: Float[Array, '']


class Predicted(NamedTuple):
  """Masked tokens of each image of a batch; `index` is -1 in padding rows.

  Attributes:
    nats: sum of the cross-entropies.
    right: number whose most probable code is right.
    masked: their number.
  """

  index: Int[Array, 'B']
  nats: Float[Array, 'B']
  right: Int[Array, 'B']
  masked: Int[Array, 'B']


@dataclasses.dataclass(frozen=True)
class GeneratorTask(MuseTask):
  """A Muse whose transformer is trained; a `training.task.Task`."""

  @classmethod
  def of(cls, config: ConfigDict) -> 'GeneratorTask':
    check_frozen(config)
    return cls(config, muse_config(config))

  @property
  def title(self) -> str:
    return f'Muse, {self.muse.image_size} px'

  def init(self, key: jax.Array) -> Variables:
    params = muse_lib.init_params(self.muse, key)
    if rank := self.config.generator.lora_rank:
      params |= {lora.NAME: lora.init(params, rank, key)}
    return {'params': params}

  def model_params(self, variables: Variables) -> Any:
    """Returns the parameters of a Muse, with LoRA's changes if there are any."""
    return lora.merged(variables['params'], self.config.generator.lora_scale)

  def loss(
    self, variables: Variables, batch: ImageBatch, counts: Array, key: jax.Array
  ) -> tuple[Losses, Variables]:
    options = self.config.generator
    keys = jax.random.split(key, 4)
    tokens = self.encode(variables, batch)
    masked = random_mask(keys[0], *tokens.shape)
    end = self.muse.text.vocab_size - 1
    text = drop_texts(keys[1], batch.text, options.text_dropout, end)
    logits = self.predict(variables, tokens, masked, text, keys[2])
    labels = jax.nn.one_hot(tokens, logits.shape[-1])
    labels = optax.smooth_labels(labels, options.label_smoothing)
    nats = optax.softmax_cross_entropy(logits, labels)
    right = logits.argmax(-1) == tokens
    number = counts * tokens.shape[1] * MEAN_SHARE
    return Losses(*(jnp.sum(one * masked) / number for one in (right, nats))), {}

  def make_eval_step(
    self, gather: Callable[[Any], Any]
  ) -> Callable[[Variables, ImageBatch], Predicted]:
    """See `training.task.Task`; the mask of an image depends on its index alone."""

    def eval_step(variables: Variables, batch: ImageBatch) -> Predicted:
      with nn.logical_axis_rules(sharding.LOGICAL_AXIS_RULES):
        variables = {'params': gather(variables['params'])}
        tokens = self.encode(variables, batch)
        masked = jax.vmap(
          lambda i: random_mask(jax.random.key(i), 1, tokens.shape[1])[0]
        )(batch.index)
        logits = self.predict(variables, tokens, masked, batch.text)
        nats = optax.softmax_cross_entropy_with_integer_labels(logits, tokens)
        right = logits.argmax(-1) == tokens
        return Predicted(
          batch.index,
          jnp.sum(nats * masked, 1),
          jnp.sum(right & masked, 1),
          masked.sum(1),
        )

    return eval_step

  def encode(self, variables: Variables, batch: ImageBatch) -> Int[Array, 'B N']:
    """Returns the tokens of the images, without a gradient."""
    tokens = model.encode(self.muse, variables['params'], from_signed(batch.image))
    return jax.lax.stop_gradient(tokens).reshape(len(tokens), -1)

  def predict(
    self,
    variables: Variables,
    tokens: Int[Array, 'B N'],
    masked: Bool[Array, 'B N'],
    text: Int[Array, 'B T'],
    dropout: Key[Array, ''] | None = None,
  ) -> Float[Array, 'B N K']:
    """Returns the logits of all tokens.

    Args:
      dropout: its key in training; None without dropout.
    """
    params, size = self.model_params(variables), self.muse.image_size
    features = model.encode_text(self.muse, params, text)
    shown = jnp.where(masked, self.muse.transformer.mask_id, tokens)
    logits = Transformer(self.muse.transformer, jnp.dtype(self.dtype)).apply(
      {'params': params['transformer']},
      shown.reshape(-1, self.muse.grid, self.muse.grid),
      features.hidden,
      features.pooled,
      muse_lib.micro_conditions(len(tokens), size, size),
      train=dropout is not None,
      rngs=None if dropout is None else {'dropout': dropout},
    )
    return logits.reshape(*tokens.shape, -1)

  def open(self, setup: Setup, workdir: epath.Path) -> Session:
    # Imported late: loading data needs TensorFlow, the model does not.
    from rahf.tasks.generator_session import open_session

    return open_session(setup, workdir)


def check_frozen(config: ConfigDict) -> None:
  """Raises InputError unless the optimizer leaves alone what is not trained."""
  trained = ['lora/'] if config.generator.lora_rank else ['transformer/', 'text/']
  for part in ('autoencoder/', 'transformer/', 'text/'):
    if part not in trained and not is_frozen(part, config):
      raise InputError(
        f'config.optimizer.freeze = {config.optimizer.freeze!r} must contain '
        f"'^{part}': this run does not train the {part[:-1]}, which weight decay "
        'would change'
      )


def is_frozen(part: str, config: ConfigDict) -> bool:
  """Returns whether the optimizer leaves a part as it is, such as 'autoencoder/'."""
  return any(re.search(pattern, part) for pattern in config.optimizer.freeze)


def drop_texts(
  key: Key[Array, ''], text: Int[Array, 'B T'], rate: float, end: int
) -> Int[Array, 'B T']:
  """Empties a share `rate` of the texts, chosen at random."""
  dropped = jax.random.bernoulli(key, rate, (len(text), 1))
  return jnp.where(dropped, emptied(text, end), text)


def random_mask(key: Key[Array, ''], images: int, positions: int) -> Bool[Array, 'B N']:
  """Draws which tokens of each image are masked, at least one of each."""
  of_share, of_order = jax.random.split(key)
  t = jax.random.uniform(of_share, (images, 1))
  number = jnp.maximum(1, jnp.round(positions * jnp.cos(math.pi / 2 * t)))
  order = jax.random.uniform(of_order, (images, positions)).argsort(1).argsort(1)
  return order < number
