"""What training and evaluation have in common: mesh, data, model, state."""

import dataclasses
import math
from collections.abc import Sequence

import jax
from etils import epath
from ml_collections import ConfigDict

from rahf.data import open_dataset
from rahf.data.pipeline.decoding import PipelineOptions
from rahf.data.storage.records import RecordSplit, open_split
from rahf.data.tokenizer import Tokenizer
from rahf.runtime import distributed
from rahf.training.blueprint import Blueprint, draw_up


@dataclasses.dataclass(frozen=True)
class Experiment(Blueprint):
  """The parts that a config describes, and its data."""

  data_name: str
  directory: epath.Path
  mixture: tuple[tuple[epath.Path, float], ...]
  tokenizer: Tokenizer
  options: PipelineOptions

  def split(self, name: str) -> RecordSplit:
    return open_split(self.directory, name)

  def training_splits(self) -> list[RecordSplit]:
    """Returns the training split of each data set of the mixture."""
    return [open_split(directory, 'train') for directory, _ in self.mixture]

  @property
  def weights(self) -> tuple[float, ...]:
    """Weights of those."""
    return tuple(weight for _, weight in self.mixture)


def set_up(config: ConfigDict) -> Experiment:
  """Checks the config and makes everything but the training state.

  Raises:
    InputError: a setting, the data or the tokenizer does not fit; says which.
  """
  distributed.check_joined()
  blueprint = draw_up(config)
  directory = open_dataset.prepared_directory(config.data, config.data.name)
  mixture = config.data.mixture or ((config.data.name, 1.0),)
  tokenizer = open_dataset.open_tokenizer(config.tokenizer, directory)
  tokenizer.check_vocabulary(config.model.t5.vocab_size)
  return Experiment(
    **vars(blueprint),
    data_name=config.data.name,
    directory=directory,
    mixture=tuple(
      (open_dataset.prepared_directory(config.data, name), weight)
      for name, weight in mixture
    ),
    tokenizer=tokenizer,
    options=_pipeline_options(config),
  )


def describe(experiment: Experiment, splits: Sequence[RecordSplit]) -> str:
  """Returns lines for people: how large model and mesh are, and what is read."""
  model, mesh = experiment.model.config, experiment.mesh
  leaves = jax.tree.leaves(experiment.states.abstract.params)
  parameters = sum(math.prod(leaf.shape) for leaf in leaves)
  axes = ' x '.join(f'{axis} {size}' for axis, size in mesh.shape.items())
  kind = mesh.devices.flat[0].device_kind
  counts = ', '.join(f'{split.name} {len(split):,}' for split in splits)
  lines = [
    f'Model: {model.variant}, {parameters:,} parameters, {model.image_size} px, '
    f'{model.dtype}, on {mesh.size} x {kind} ({axes})',
    f'Data:  {counts} examples, {experiment.tokenizer.size:,} word pieces, from '
    f'{experiment.directory}',
  ]
  if len(experiment.mixture) > 1:
    splits = experiment.training_splits()
    total = sum(experiment.weights)
    parts = (
      f'{weight / total:.1%} of {len(split):,} from {split.directory}'
      for split, weight in zip(splits, experiment.weights, strict=True)
    )
    lines.append(f'Trained on: {", ".join(parts)}')
  return '\n'.join(lines)


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
    max_skipped=config.data.max_skipped,
  )
