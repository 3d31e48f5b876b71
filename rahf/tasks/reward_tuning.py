"""The reward tuning task: a Muse learns to draw what RAHF scores higher (GRPO).

Each step draws a group of images of every prompt, RAHF scores them, and tokens of
images that score above their group's mean become more probable. With a dense reward,
tokens where the heatmap is low get more of it than those where it is high.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from etils import epath
from flax import linen as nn
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict

from rahf.config import muse_config, sampling_config
from rahf.data.schema import PromptBatch
from rahf.errors import InputError
from rahf.inference import model_directory, open_scorer
from rahf.inference.model_directory import Description
from rahf.inference.step import scores_and_maps
from rahf.learning import policy_gradient
from rahf.learning.policy_gradient import Predict
from rahf.learning.score_expression import Expression, parse
from rahf.models import muse as muse_lib
from rahf.models.init import init_variables
from rahf.models.muse import generator as model
from rahf.models.muse.text import emptied
from rahf.models.rahf import RAHF
from rahf.runtime import sharding
from rahf.tasks.generator import GeneratorTask, check_frozen
from rahf.tasks.reward_variables import REWARD, START, STARTED
from rahf.training.batch_spec import of_rows
from rahf.training.setup import Setup
from rahf.training.task import Session, Variables


class Losses(NamedTuple):
  """What a step minimises, and what it says of the images that it drew.

  Attributes:
    reward: mean over the images, higher is better.
    spread: mean over the groups of the rewards' standard deviation; without one there
      is nothing to learn.
    divergence: from the model at the start, in nats per token.
  """

  total: Float[Array, '']
  reward: Float[Array, '']
  spread: Float[Array, '']
  divergence: Float[Array, '']


class Drawn(NamedTuple):
  """An image of each prompt; `index` is -1 in padding rows.

  Attributes:
    tokens: of the image.
    reward: of the image.
    scores: all of RAHF's, in the order of `scores` of the task.
  """

  index: Int[Array, 'B']
  tokens: Int[Array, 'B N']
  reward: Float[Array, 'B']
  scores: Float[Array, 'B 4']


@dataclasses.dataclass(frozen=True)
class RewardTuningTask(GeneratorTask):
  """A Muse that RAHF rewards; a `training.task.Task`.

  Attributes:
    description: of the RAHF.
    by: the reward.
  """

  description: Description
  by: Expression

  @classmethod
  def of(cls, config: ConfigDict) -> 'RewardTuningTask':
    check_frozen(config)
    muse, options = muse_config(config), config.reward
    if not options.model:
      raise InputError('config.reward.model is empty; give the directory of a RAHF')
    folder = open_scorer.find(options.model)
    if not (folder / model_directory.DESCRIPTION).exists():
      raise InputError(f'config.reward.model = {folder} is not a RAHF; export one')
    description = model_directory.read_description(folder)
    if options.dense:
      policy_gradient.check_grid(description.image_size, muse.grid)
    by = parse(options.by, description.outputs.scores, 'config.reward.by')
    return cls(config, muse, description, by)

  @property
  def scores(self) -> tuple[str, ...]:
    return tuple(self.description.outputs.scores)

  def init(self, key: jax.Array) -> Variables:
    found = super().init(key)
    start = {name: found['params'][name] for name in STARTED}
    reward = init_variables(RAHF(self.description.model), key)['params']
    return {**found, START: start, REWARD: reward}

  def batch_shapes(
    self,
    rows: int,
    sharding: jax.sharding.Sharding | None = None,
    *,
    train: bool = False,
  ) -> PromptBatch:
    del train
    lengths = self.description.model.texts, self.description.text_length
    array = functools.partial(of_rows(rows, sharding), jnp.int32)
    return PromptBatch(array(), array(self.muse.text.text_length), array(*lengths))

  def count_labels(self, batch: PromptBatch) -> Array:
    return jnp.float32(len(batch.index))

  def loss(
    self, variables: Variables, batch: PromptBatch, counts: Array, key: jax.Array
  ) -> tuple[Losses, Variables]:
    options, prompts = self.config.reward, len(batch.index)
    batch = jax.tree.map(lambda x: jnp.repeat(x, options.group, 0), batch)
    sampling, mask_id = sampling_config(self.config), self.muse.transformer.mask_id
    params = self.model_params(variables)
    still = jax.lax.stop_gradient(params)
    drawn = policy_gradient.draw_in_random_order(
      self._predict(still, batch.text),
      jax.random.split(key, len(batch.index)),
      sampling,
      self.muse.grid**2,
      mask_id,
    )
    values, maps = self._judge(variables, still, drawn.tokens, batch.score_text)
    rewards = self._reward(values).reshape(prompts, options.group)
    advantage = policy_gradient.advantages(rewards).reshape(-1, 1)
    advantage = advantage - options.dense * self._blame(maps)
    found = policy_gradient.likelihood(
      self._predict(params, batch.text),
      self._predict({**still, **variables[START]}, batch.text),
      drawn,
      sampling.steps,
      mask_id,
    )
    policy = -(advantage * found.log_probability).mean(1)
    divergence = found.divergence.mean(1)
    total = policy + options.divergence * divergence
    sums = Losses(
      *(jnp.sum(one) for one in (total, rewards, rewards.std(1), divergence))
    )
    images = counts * options.group
    return Losses(
      total=sums.total / images,
      reward=sums.reward / images,
      spread=sums.spread / counts,
      divergence=sums.divergence / images,
    ), {name: variables[name] for name in (START, REWARD)}

  def make_eval_step(
    self, gather: Callable[[Any], Any]
  ) -> Callable[[Variables, PromptBatch], Drawn]:
    """See `training.task.Task`; a prompt's noise depends on its index alone."""

    def eval_step(variables: Variables, batch: PromptBatch) -> Drawn:
      with nn.logical_axis_rules(sharding.LOGICAL_AXIS_RULES):
        params = self.model_params({'params': gather(variables['params'])})
        drawn = muse_lib.generate(
          self.muse,
          params,
          self._prompt(batch.text),
          jax.vmap(jax.random.key)(batch.index),
          sampling=sampling_config(self.config),
        )
        tokens = drawn.tokens.reshape(len(batch.index), -1)
        values, _ = self._judge(variables, params, tokens, batch.score_text)
        scores = jnp.stack([values[name] for name in self.scores], 1)
        return Drawn(batch.index, tokens, self._reward(values), scores)

    return eval_step

  def open(self, setup: Setup, workdir: epath.Path) -> Session:
    from rahf.tasks.reward_tuning_session import open_session

    return open_session(setup)

  def _prompt(self, text: Int[Array, 'B T']) -> muse_lib.Prompt:
    size, end = self.muse.image_size, self.muse.text.vocab_size - 1
    micro = muse_lib.micro_conditions(len(text), size, size)
    return muse_lib.Prompt(text, emptied(text[:1], end), micro)

  def _predict(self, params: Any, text: Int[Array, 'B T']) -> Predict:
    """Reads the prompts, and returns the function from tokens to logits."""
    sampling, grid = sampling_config(self.config), self.muse.grid
    guided = model.guided_logits(self.muse, params, self._prompt(text), sampling)

    def predict(tokens: Int[Array, 'B N']) -> Float[Array, 'B N K']:
      logits = guided(tokens.reshape(-1, grid, grid))
      return logits.reshape(*tokens.shape, -1)

    return predict

  def _judge(
    self,
    variables: Variables,
    params: Any,
    tokens: Int[Array, 'B N'],
    score_text: Int[Array, 'B K L'],
  ) -> tuple[dict[str, Float[Array, 'B']], dict[str, Float[Array, 'B H W']]]:
    """Returns RAHF's scores and maps of images that are given as tokens."""
    grid = tokens.reshape(-1, self.muse.grid, self.muse.grid)
    images = model.decode(self.muse, params, grid)
    return scores_and_maps(
      self.description.model, variables[REWARD], images, score_text
    )

  def _reward(self, values: dict[str, Float[Array, 'B']]) -> Float[Array, 'B']:
    return sum(term.weight * values[term.score] for term in self.by.terms)

  def _blame(self, maps: dict[str, Float[Array, 'B H W']]) -> Array | float:
    options = self.config.reward
    if not options.dense:
      return 0.0
    found = policy_gradient.blame(maps[options.heatmap], self.muse.grid)
    if options.other_maps:
      return policy_gradient.of_neighbours(found, options.group)
    return found
