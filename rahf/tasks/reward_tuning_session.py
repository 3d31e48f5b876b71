"""The reward tuning task with its prompts: weights, evaluation and pictures."""

import dataclasses
import functools
import itertools
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Int
from PIL import Image

from rahf.data.clip_tokenizer import ClipTokenizer
from rahf.data.schema import SPLITS, PromptBatch
from rahf.drawing import contact_sheet
from rahf.errors import InputError
from rahf.inference import model_files, open_scorer
from rahf.inference.model import Model
from rahf.learning.image_requests import read_requests
from rahf.models.muse import generator as model
from rahf.pretrained import loading
from rahf.runtime import sharding
from rahf.runtime.distributed import StopSignal
from rahf.tasks import clip_data, reward_variables
from rahf.tasks.muse_session import MuseSession
from rahf.tasks.pictures import tile
from rahf.tasks.split_evaluator import SplitEvaluator
from rahf.training.setup import Setup
from rahf.training.task import Variables


@dataclasses.dataclass(frozen=True)
class Prompts:
  """Prompts to train and to evaluate with.

  Attributes:
    name: of the data, for reports.
    tokenizer: of the Muse.
    rows: all prompts of a split, tokenised; 'dev' and 'test' are the same.
    texts: the prompts of a split.
  """

  name: str
  tokenizer: ClipTokenizer
  rows: dict[str, PromptBatch]
  texts: dict[str, list[str]]

  def describe(self, splits: Sequence[str]) -> str:
    """Describes the prompts in a line of text."""
    counts = ', '.join(f'{name} {len(self.texts[name]):,}' for name in splits)
    return f'Prompts: {self.name} ({counts})'

  def take(self, split: str, rows: Int[np.ndarray, 'B']) -> PromptBatch:
    """Returns a batch of prompts by their positions; -1 stands for padding."""
    batch = jax.tree.map(lambda array: array[rows], self.rows[split])
    return batch._replace(index=rows.astype(np.int32))


class RewardTuningSession(MuseSession):
  """The reward tuning task with its prompts; a `training.task.Session`."""

  data: Prompts

  def plan_weights(self) -> loading.Plan:
    """Takes the Muse from `config.init.muse`, and RAHF from `config.reward.model`."""
    plan = super().plan_weights()
    if missing := [path for path in plan.fresh if not path.startswith('lora/')]:
      raise InputError(
        'config.init.muse must be a trained Muse, an export of a generator or an '
        f'aMUSEd directory; it lacks {missing[0]}'
      )
    folder = open_scorer.find(self.setup.config.reward.model)
    found = reward_variables.initial(plan, folder, self.setup.task.description)
    return dataclasses.replace(plan, collections=found)

  def train_batches(self, start_step: int) -> Iterator[PromptBatch]:
    """Yields all prompts in a new order every time."""
    config = self.setup.config
    size, seed = config.train.batch_size, config.seed
    mine = sharding.process_rows(size, self.setup.mesh)
    count = len(self.data.texts['train'])
    for step in itertools.count(start_step):
      rows = [prompt_at(step * size + row, count, seed) for row in mine.tolist()]
      yield self.data.take('train', np.array(rows))

  def evaluator(self) -> 'RewardEvaluator':
    step = self.setup.task.make_eval_step(self.setup.gather)
    return RewardEvaluator(self.setup, self.data, step)


def prompt_at(position: int, count: int, seed: int) -> int:
  """Returns the prompt at a position of an endless stream, each once in `count`."""
  epoch, place = divmod(position, count)
  return int(np.random.default_rng([seed, epoch]).permutation(count)[place])


class RewardEvaluator(SplitEvaluator):
  """Draws an image of each prompt, always with the same noise, and scores it."""

  headlines = ('reward', 'tokens/entropy')

  def measure(
    self, variables: Variables, split_name: str, stop: StopSignal
  ) -> dict[str, float]:
    """Returns means over the prompts, and how diverse the images are.

    reward, scores/…: higher is better, and only what RAHF says, which was followed.
    tokens/entropy: of the codes of all images, in nats; falls if images become alike.
    """
    found = [*self.outputs(variables, split_name, stop)]
    whole = jax.tree.map(lambda *parts: np.concatenate(parts), *found)
    counts = np.bincount(whole.tokens.ravel())
    share = counts[counts > 0] / counts.sum()
    task = self.setup.task
    means = zip(task.scores, whole.scores.mean(0, dtype=np.float64), strict=True)
    return {
      'reward': float(whole.reward.mean(dtype=np.float64)),
      **{f'scores/{name}': float(mean) for name, mean in means},
      'tokens/entropy': float(-np.sum(share * np.log(share))),
    }

  def outputs(
    self, variables: Variables, split_name: str, stop: StopSignal
  ) -> Iterator[Any]:
    """Yields what is drawn of each batch of prompts, without padding rows.

    Raises:
      Interrupted: a signal came.
    """
    size, count = self.setup.config.eval.batch_size, len(self.data.texts[split_name])
    mine = sharding.process_rows(size, self.setup.mesh)
    starts = range(0, count, size)
    rows = (np.where(start + mine < count, start + mine, -1) for start in starts)
    batches = (self.data.take(split_name, one) for one in rows)
    yield from self.run_step(variables, batches, count, split_name, stop)

  def pictures(
    self, variables: Variables, split_name: str
  ) -> dict[str, list[Image.Image]]:
    """Returns contact sheets of the first prompts' images."""
    size, count = self.setup.config.eval.batch_size, self.setup.config.review.examples
    mine = sharding.process_rows(size, self.setup.mesh)
    rows = np.where(mine < len(self.data.texts[split_name]), mine, -1)
    batch = sharding.put_batch(self.data.take(split_name, rows), self.setup.mesh)
    found = jax.tree.map(np.asarray, self._eval_step(variables, batch))
    grid = self.setup.task.muse.grid
    tokens = found.tokens.reshape(-1, grid, grid)[:count]
    images = np.asarray(self._decode(variables['params'], tokens))
    sheet = [
      contact_sheet.Row(
        self.data.texts[split_name][index],
        [tile(image, f'{self.setup.task.by.text} {value:.3f}')],
      )
      for index, image, value in zip(found.index, images, found.reward, strict=False)
      if index >= 0
    ]
    return {'samples': [*contact_sheet.sheets(sheet)]}

  @functools.cached_property
  def _decode(self) -> Callable:
    setup = self.setup

    def decode(params: Any, tokens: Int[jax.Array, 'B h w']) -> jax.Array:
      return model.decode(setup.task.muse, setup.gather(params), tokens)

    return jax.jit(decode, out_shardings=sharding.replicated(setup.mesh))


def open_session(setup: Setup) -> RewardTuningSession:
  """Reads prompts and vocabularies.

  Raises:
    InputError: one of them is missing, or does not fit the model.
  """
  config, task = setup.config, setup.task
  options = config.reward
  tokenizer = clip_data.open_tokenizer(config, clip_data.muse_texts(config))
  folder = open_scorer.find(options.model)
  words = model_files.read_tokenizer(folder, task.description)
  scorer = Model(task.description, {}, words)  # Only to read prompts as RAHF does.
  texts = {
    split: _read(options, 'prompts' if split == 'train' else 'eval_prompts')
    for split in SPLITS
  }
  rows = {split: _tokenise(found, tokenizer, scorer) for split, found in texts.items()}
  name = pathlib.PurePath(options.prompts).name
  return RewardTuningSession(setup, Prompts(name, tokenizer, rows, texts))


def _read(options: Any, field: str) -> list[str]:
  if not options[field]:
    raise InputError(
      f'config.reward.{field} is empty; give a text file with a prompt a line, or a '
      'table with a column prompt'
    )
  path, name = pathlib.Path(options[field]).expanduser(), f'config.reward.{field}'
  return [one.request.prompt for one in read_requests(path, 1, 0, name=name)]


def _tokenise(
  texts: Sequence[str], tokenizer: ClipTokenizer, scorer: Model
) -> PromptBatch:
  return PromptBatch(
    np.arange(len(texts), dtype=np.int32),
    tokenizer.encode(texts).ids,
    np.stack([scorer.encode(text).text for text in texts]),
  )
