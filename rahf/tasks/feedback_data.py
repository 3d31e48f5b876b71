"""The data of the feedback task: data sets, their mixture, tokenizer."""

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

from etils import epath
from jax.sharding import Mesh
from ml_collections import ConfigDict

from rahf.config.settings import RAHF_TASKS
from rahf.data import open_dataset
from rahf.data.clip_tokenizer import ClipTokenizer
from rahf.data.pipeline import batches
from rahf.data.pipeline.decoding import PipelineOptions, encode_prompt
from rahf.data.schema import Batch
from rahf.data.storage.records import RecordSplit, open_split
from rahf.data.tokenizer import Tokenizer
from rahf.errors import InputError
from rahf.runtime import sharding


class Part(NamedTuple):
  """A data set to train on.

  Attributes:
    directory: of the prepared data set.
    weight: its examples are drawn in proportion.
    captions: whether its texts are captions to predict.
  """

  directory: epath.Path
  weight: float
  captions: bool


@dataclasses.dataclass(frozen=True)
class FeedbackData:
  """Prepared data sets, and how their examples are read.

  Attributes:
    name: name of the evaluation data set.
    directory: its directory.
    mixture: the data sets for training.
    tokenizer: that of the model: T5's, or CLIP's.
    options: image size and lengths of the texts.
    captions: whether the texts of the evaluation data set are captions.
  """

  name: str
  directory: epath.Path
  mixture: tuple[Part, ...]
  tokenizer: Tokenizer | ClipTokenizer
  options: PipelineOptions
  captions: bool = False

  def split(self, name: str) -> RecordSplit:
    return open_split(self.directory, name)

  def train_batches(
    self, config: ConfigDict, mesh: Mesh, start_step: int
  ) -> Iterator[Batch]:
    """Yields this process's rows of each batch from `start_step` on, endlessly."""
    size = config.train.batch_size
    return batches.train_batches(
      [open_split(part.directory, 'train') for part in self.mixture],
      self.tokenizer,
      self.options,
      batch_size=size,
      seed=config.seed,
      start_step=start_step,
      weights=[part.weight for part in self.mixture],
      captions=[part.captions for part in self.mixture],
      rows=sharding.process_rows(size, mesh),
      workers=config.data.workers,
    )

  def describe(self, splits: tuple[str, ...]) -> str:
    """Describes the splits and the mixture in a few lines of text."""
    counts = ', '.join(f'{name} {len(self.split(name)):,}' for name in splits)
    text = (
      f'Data:  {counts} examples, {self.tokenizer.size:,} word pieces, from '
      f'{self.directory}'
    )
    if limit := self.options.limit:
      text += f'\nLimit: {limit:,} examples of each data set, but all captions'
    if len(self.mixture) == 1:
      return text
    total = sum(part.weight for part in self.mixture)
    parts = (
      f'{part.weight / total:.1%} of {len(open_split(part.directory, "train")):,} '
      f'{"captions " if part.captions else ""}from {part.directory}'
      for part in self.mixture
    )
    return f'{text}\nTrained on: {", ".join(parts)}'


def open_data(
  config: ConfigDict,
  tokenizer: ClipTokenizer | None = None,
  options: PipelineOptions | None = None,
) -> FeedbackData:
  """Opens the data sets and the tokenizer that a config names.

  Args:
    tokenizer: CLIP's; None for the SentencePiece model of the config.
    options: None for those of a RAHF.

  Raises:
    InputError: one of them is missing, or does not fit the model.
  """
  directory = open_dataset.prepared_directory(config.data, config.data.name)
  mixture = config.data.mixture or ((config.data.name, 1.0),)
  names = [name for name, _ in mixture]
  if twice := {name for name in names if names.count(name) > 1}:
    raise InputError(
      f'config.data.mixture names {min(twice)!r} twice; give it one weight'
    )
  captions = _caption_sets(config, {*names})
  if captions and config.task not in RAHF_TASKS:
    raise InputError(
      f'config.data.captions = {captions}: only a RAHF predicts captions, not config.'
      f'task = {config.task!r}'
    )
  if tokenizer is None:
    tokenizer = open_dataset.open_tokenizer(config.tokenizer, directory)
    tokenizer.check_vocabulary(config.model.t5.vocab_size)
  options = options or _pipeline_options(config)
  if captions:
    _check_caption_prompt(tokenizer, options)
  return FeedbackData(
    name=config.data.name,
    directory=directory,
    mixture=tuple(
      Part(open_dataset.prepared_directory(config.data, name), weight, name in captions)
      for name, weight in mixture
    ),
    tokenizer=tokenizer,
    options=options,
    captions=config.data.name in captions,
  )


def _caption_sets(config: ConfigDict, trained: set[str]) -> tuple[str, ...]:
  """Returns the names of the data sets whose texts are captions.

  Raises:
    InputError: one of them is not trained on, or is to be evaluated for its labels.
  """
  data = config.data
  if config.task == 'captions':
    return tuple(sorted({data.name, *trained}))
  if unknown := sorted({*data.captions} - trained):
    raise InputError(
      f'config.data.captions = {tuple(data.captions)} names {unknown[0]!r}, which is '
      f'not trained on; add it to config.data.mixture, which has {sorted(trained)}'
    )
  if data.name in data.captions:
    raise InputError(
      f'config.data.name = {data.name!r} is evaluated and needs labels, but is one of '
      "config.data.captions; set config.task = 'captions' to train on captions alone"
    )
  return tuple(data.captions)


def _check_caption_prompt(tokenizer: Tokenizer, options: PipelineOptions) -> None:
  """Raises InputError if the prompt that asks for captions is too long."""
  prompt, length = options.caption_prompt, options.text_length
  if encode_prompt(prompt, tokenizer, options.variant, length).truncated:
    raise InputError(
      f'config.data.caption_prompt = {prompt!r:.80} has more than '
      f'config.data.text_length = {length} tokens; shorten it'
    )


def _pipeline_options(config: ConfigDict) -> PipelineOptions:
  def limit(words: int) -> int | None:
    return None if words < 0 else words

  return PipelineOptions(
    image_size=config.model.image_size,
    text_length=config.data.text_length,
    target_length=config.data.target_length,
    variant=config.model.variant,
    augment=config.data.augment,
    min_words=limit(config.data.min_words),
    max_words=limit(config.data.max_words),
    aligned_only=config.data.aligned_only,
    limit=config.data.limit,
    limit_seed=config.data.limit_seed,
    max_skipped=config.data.max_skipped,
    caption_prompt=config.data.caption_prompt,
  )
