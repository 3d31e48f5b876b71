"""CLIP's tokenizer and weights as a config names them."""

import itertools
from collections.abc import Callable, Iterable
from typing import NamedTuple

from etils import epath
from ml_collections import ConfigDict

from rahf.data.clip_tokenizer import (
  VOCABULARY_FOLDER,
  ClipTokenizer,
  read_vocabulary,
  train_vocabulary,
  write_vocabulary,
)
from rahf.errors import InputError
from rahf.fileio import paths
from rahf.models.clip import CLIPConfig, TowerConfig
from rahf.pretrained.clip import Hint, Hints, text_cleaning
from rahf.runtime import distributed

# A vocabulary of one's own is learned from the first prompts for training.
VOCABULARY_PROMPTS = 2000


def make_clip_config(config: ConfigDict) -> CLIPConfig:
  """Returns `config.clip` as the dataclass that its modules take."""
  fields = config.clip.to_dict()
  towers = {name: TowerConfig(**fields[name]) for name in ('vision', 'text')}
  return CLIPConfig(**fields | towers)


def check_sizes(config: ConfigDict) -> None:
  """Raises InputError if labelled images would be read in sizes that CLIP lacks."""
  for field, value in (
    ('model.image_size', config.clip.image_size),
    ('model.variant', 'multi_head'),
    ('data.text_length', config.clip.text_length),
  ):
    section, name = field.split('.')
    if (found := config[section][name]) != value:
      raise InputError(
        f'config.{field} = {found!r}, but with this CLIP it must be {value!r}: set '
        f'--config.{field}={value}, or use weights that fit; '
        '--config=FILE:WEIGHTS takes all sizes from the weights'
      )


def hints(config: ConfigDict) -> Hints:
  """Returns settings of a CLIP from the config, for weights whose files lack them."""
  return {
    name: Hint(config.clip[name].heads, config.init.clip_gelu)
    for name in ('vision', 'text')
  }


class Texts(NamedTuple):
  """What the texts of a model are read with.

  Attributes:
    section: of the config, such as 'clip'.
    vocab_size, text_length: in tokens.
    init: field of `config.init` with the model's weights, beside which the vocabulary
      may lie.
    weights: value of that field.
  """

  section: str
  vocab_size: int
  text_length: int
  init: str
  weights: str


def clip_texts(config: ConfigDict) -> Texts:
  """Returns what a CLIP reads texts with."""
  clip = config.clip
  return Texts('clip', clip.vocab_size, clip.text_length, 'clip', config.init.clip)


def muse_texts(config: ConfigDict) -> Texts:
  """Returns what the text encoder of a Muse reads texts with."""
  text, init = config.muse.text, config.init
  source = 'clip' if init.clip else 'muse'
  return Texts('muse.text', text.vocab_size, text.text_length, source, init[source])


def open_tokenizer(config: ConfigDict, texts: Texts, prefix: str = '') -> ClipTokenizer:
  """Opens the vocabulary of `config.tokenizer`, or that next to the weights.

  Texts are cleaned as Hugging Face does for its directories, and otherwise as OpenAI
  does, since that is how the weights were trained.

  Args:
    prefix: put before each text.

  Raises:
    InputError: there is none, or it does not fit the model.
  """
  if not (config.tokenizer or texts.weights):
    raise InputError(
      f'config.init.{texts.init} and config.tokenizer are empty; give the weights, and '
      'their vocabulary if that is somewhere else'
    )
  path = _vocabulary(config, texts)
  cleaning = 'huggingface'
  if texts.init == 'clip' and texts.weights:
    cleaning = text_cleaning(epath.Path(texts.weights))
  try:
    tokenizer = ClipTokenizer(path, cleaning, texts.text_length, prefix)
  except InputError as error:
    raise InputError(
      f'{error}. Set config.tokenizer to the file or directory with the vocabulary'
    ) from None
  size = texts.vocab_size
  if tokenizer.size != size or tokenizer.end_id != size - 1:
    raise InputError(
      f'{path} has {tokenizer.size:,} tokens and ends texts with number '
      f'{tokenizer.end_id:,}, but config.{texts.section}.vocab_size = {size:,}, and '
      'the last token must be the end; set config.tokenizer to the vocabulary of the '
      'weights, or take the sizes from the weights with --config=FILE:WEIGHTS'
    )
  return tokenizer


def open_or_learn_tokenizer(
  config: ConfigDict,
  texts: Texts,
  workdir: epath.Path,
  prompts: Callable[[], Iterable[str]],
) -> ClipTokenizer:
  """Opens the vocabulary that the config names, or a run's own.

  Without a vocabulary in the config, a new run learns one from its prompts; a run that
  has started keeps its own.

  Args:
    prompts: returns the prompts for training.

  Raises:
    InputError: there is none, or it does not fit the model.
  """
  if config.tokenizer or texts.weights:
    return open_tokenizer(config, texts)
  own = workdir / VOCABULARY_FOLDER
  # The first process decides, since it may be writing the folder.
  if distributed.from_first(own.exists()):
    vocabulary = read_vocabulary(own)
  else:
    first = itertools.islice(prompts(), VOCABULARY_PROMPTS)
    vocabulary = train_vocabulary(first, texts.vocab_size)
  return ClipTokenizer(vocabulary, 'huggingface', texts.text_length)


def write_description(workdir: epath.Path, card: str, tokenizer: ClipTokenizer) -> None:
  """Writes the model card and the vocabulary of a new run."""
  (workdir / 'model_card.md').write_text(card)
  folder = workdir / VOCABULARY_FOLDER
  folder.mkdir(exist_ok=True)
  write_vocabulary(folder, tokenizer.vocabulary)


def _vocabulary(config: ConfigDict, texts: Texts) -> epath.Path:
  if config.tokenizer:
    return paths.find(config.tokenizer, 'config.tokenizer')
  weights = paths.find(texts.weights, f'config.init.{texts.init}')
  if not weights.exists():
    raise InputError(
      f'config.init.{texts.init} = {weights} does not exist; give the path of a copy, '
      'nothing is downloaded'
    )
  if not weights.is_dir():
    return weights.parent
  # Of a pipeline of several models, in a folder of its own.
  inside = weights / 'tokenizer'
  return inside if inside.is_dir() else weights
