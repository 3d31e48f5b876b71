"""The data of the feedback task: data sets, their mixture, tokenizer."""

import dataclasses
from collections.abc import Iterator

from etils import epath
from jax.sharding import Mesh
from ml_collections import ConfigDict

from rahf.data import open_dataset
from rahf.data.clip_tokenizer import ClipTokenizer
from rahf.data.pipeline import batches
from rahf.data.pipeline.decoding import PipelineOptions
from rahf.data.schema import Batch
from rahf.data.storage.records import RecordSplit, open_split
from rahf.data.tokenizer import Tokenizer
from rahf.runtime import sharding


@dataclasses.dataclass(frozen=True)
class FeedbackData:
  """Prepared data sets, and how their examples are read.

  Attributes:
    name: name of the evaluation data set.
    directory: its directory.
    mixture: directories and weights of the data sets for training.
    tokenizer: that of the model: T5's, or CLIP's.
    options: image size and lengths of the texts.
  """

  name: str
  directory: epath.Path
  mixture: tuple[tuple[epath.Path, float], ...]
  tokenizer: Tokenizer | ClipTokenizer
  options: PipelineOptions

  def split(self, name: str) -> RecordSplit:
    return open_split(self.directory, name)

  def train_batches(
    self, config: ConfigDict, mesh: Mesh, start_step: int
  ) -> Iterator[Batch]:
    """Yields this process's rows of each batch from `start_step` on, endlessly."""
    size = config.train.batch_size
    return batches.train_batches(
      [open_split(directory, 'train') for directory, _ in self.mixture],
      self.tokenizer,
      self.options,
      batch_size=size,
      seed=config.seed,
      start_step=start_step,
      weights=[weight for _, weight in self.mixture],
      rows=sharding.process_rows(size, mesh),
    )

  def describe(self, splits: tuple[str, ...]) -> str:
    """Describes the splits and the mixture in a few lines of text."""
    counts = ', '.join(f'{name} {len(self.split(name)):,}' for name in splits)
    text = (
      f'Data:  {counts} examples, {self.tokenizer.size:,} word pieces, from '
      f'{self.directory}'
    )
    if limit := self.options.limit:
      text += f'\nLimit: {limit:,} examples to train on, of each data set'
    if len(self.mixture) == 1:
      return text
    total = sum(weight for _, weight in self.mixture)
    parts = (
      f'{weight / total:.1%} of {len(open_split(directory, "train")):,} from '
      f'{directory}'
      for directory, weight in self.mixture
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
  if tokenizer is None:
    tokenizer = open_dataset.open_tokenizer(config.tokenizer, directory)
    tokenizer.check_vocabulary(config.model.t5.vocab_size)
  return FeedbackData(
    name=config.data.name,
    directory=directory,
    mixture=tuple(
      (open_dataset.prepared_directory(config.data, name), weight)
      for name, weight in mixture
    ),
    tokenizer=tokenizer,
    options=options or _pipeline_options(config),
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
  )
