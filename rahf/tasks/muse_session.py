"""The common part of the sessions that train a Muse: data, weights, description."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from rahf.data.open_dataset import prepared_directory
from rahf.data.pipeline.decoding import PipelineOptions, decode_record
from rahf.data.storage.records import RecordSplit, open_split
from rahf.errors import InputError
from rahf.models.muse import MuseConfig
from rahf.pretrained import loading
from rahf.pretrained.card import model_card
from rahf.pretrained.clip import Hint, Hints
from rahf.pretrained.source import Source
from rahf.runtime.tree import by_path
from rahf.tasks import clip_data
from rahf.tasks.data_session import DataSession
from rahf.tasks.feedback_data import FeedbackData, open_data
from rahf.training import lora

ABOUT = (
  '# Muse\n\nMakes images from text by predicting masked tokens (Chang et al., 2023), '
  'in the architecture of aMUSEd.\n'
)
# Settings of a CLIP that its text tower has beside those whose names begin with text.
TEXT_SIZES = ('clip.vocab_size', 'clip.projection')


class MuseSession(DataSession):
  """A task that trains a part of a Muse, with its data."""

  def plan_weights(self) -> loading.Plan:
    """Takes those parts that the task uses.

    The text encoder may come from a CLIP, `config.init.clip`; all else that there is
    comes from `config.init.muse`.

    Raises:
      InputError: weights do not fit the model, or both have a text encoder.
    """
    config = self.setup.config
    params = by_path(self.setup.states.abstract.params)
    parts = {path.split('/')[0] for path in params} - {lora.NAME}
    sources = loading.open_sources(config.init, hints=_hints(config))
    if 'clip' in sources:
      sources['clip'] = _text_tower(sources['clip'])
    sources = {role: _only(source, parts) for role, source in sources.items()}
    texts = [
      f'config.init.{role}'
      for role, source in sources.items()
      if any(path.startswith('text/') for path in source.weights)
    ]
    if len(texts) > 1:
      raise InputError(f'{" and ".join(texts)} both have a text encoder; give only one')
    return loading.plan(sources, params, config, section='config')

  def write_description(self, workdir: epath.Path, plan: loading.Plan) -> None:
    card = model_card(ABOUT, self.setup.task.title, plan)
    clip_data.write_description(workdir, card, self.data.tokenizer)


def _hints(config: ConfigDict) -> Hints:
  """Returns settings of the text tower, for a CLIP whose files lack them."""
  heads, gelu = config.muse.text.text.heads, config.init.clip_gelu
  return {'vision': Hint(heads, gelu), 'text': Hint(heads, gelu)}


def _text_tower(clip: Source) -> Source:
  """Returns the text tower of a CLIP as the text encoder of a Muse."""
  weights, ignored = {}, dict(clip.ignored)
  for path, weight in clip.weights.items():
    _, part, *rest = path.split('/')
    if part == 'text':
      weights['/'.join(['text', *rest])] = weight
    else:
      ignored[weight.name] = 'not of the text tower'
  settings = {
    field.replace('clip.', 'muse.text.', 1): value
    for field, value in clip.settings.items()
    if field.startswith('clip.text') or field in TEXT_SIZES
  }
  return dataclasses.replace(clip, weights=weights, ignored=ignored, settings=settings)


def _only(source: Source, parts: set[str]) -> Source:
  """Returns a source without the weights of other parts."""
  weights, ignored = {}, dict(source.ignored)
  for path, weight in source.weights.items():
    part = path.split('/')[0]
    if part in parts:
      weights[path] = weight
    else:
      ignored[weight.name] = f'the {part}, which this task does not use'
  # A directory that has the autoencoder only may name sizes of the others, too.
  given = {path.split('/')[0] for path in weights}
  settings = {
    field: value
    for field, value in source.settings.items()
    if field.split('.')[1] in given
  }
  return dataclasses.replace(
    source, weights=weights, ignored=ignored, settings=settings
  )


def open_images(
  config: ConfigDict, muse: MuseConfig, workdir: epath.Path
) -> FeedbackData:
  """Opens the images and prompts that a config names.

  Raises:
    InputError: data or vocabulary is missing, or does not fit the model.
  """

  def prompts() -> Iterator[str]:
    split = open_split(prepared_directory(config.data, config.data.name), 'train')
    return (record.prompt for _, record in split.undamaged())

  texts = clip_data.muse_texts(config)
  tokenizer = clip_data.open_or_learn_tokenizer(config, texts, workdir, prompts)
  options = PipelineOptions(
    image_size=muse.image_size,
    text_length=muse.text.text_length,
    target_length=1,
    variant='multi_head',
    augment=config.data.augment,
    max_skipped=config.data.max_skipped,
    aligned_only=config.data.aligned_only,
    limit=config.data.limit,
    limit_seed=config.data.limit_seed,
    labels=False,
  )
  return open_data(config, tokenizer, options)


def decode_rows(
  data: FeedbackData, split: RecordSplit, rows: Sequence[int]
) -> dict[str, np.ndarray]:
  """Returns examples of a split, stacked by field as `decode_record` has them."""
  decoded = [decode_record(split[row], data.tokenizer, data.options) for row in rows]
  return {name: np.stack([one[name] for one in decoded]) for name in decoded[0]}
