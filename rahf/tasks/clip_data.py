"""CLIP's tokenizer and weights as a config names them."""

from etils import epath
from ml_collections import ConfigDict

from rahf.data.clip_tokenizer import ClipTokenizer
from rahf.errors import InputError
from rahf.fileio import paths
from rahf.models.clip import CLIPConfig, TowerConfig
from rahf.pretrained.clip import Hint, Hints


def make_clip_config(config: ConfigDict) -> CLIPConfig:
  """Returns `config.clip` as the dataclass that its modules take.

  Raises:
    InputError: the settings of the data do not fit.
  """
  fields = config.clip.to_dict()
  towers = {name: TowerConfig(**fields[name]) for name in ('vision', 'text')}
  clip = CLIPConfig(**fields | towers)
  for field, value in (
    ('model.image_size', clip.image_size),
    ('model.variant', 'multi_head'),
    ('data.text_length', clip.text_length),
  ):
    section, name = field.split('.')
    if (found := config[section][name]) != value:
      raise InputError(
        f'config.{field} = {found!r}, but with this CLIP it must be {value!r}: set '
        f'--config.{field}={value}, or use weights that fit; '
        '--config=FILE:WEIGHTS takes all sizes from the weights'
      )
  return clip


def hints(config: ConfigDict) -> Hints:
  """Returns settings of a CLIP from the config, for weights whose files lack them."""
  return {
    name: Hint(config.clip[name].heads, config.init.clip_gelu)
    for name in ('vision', 'text')
  }


def open_tokenizer(config: ConfigDict, prefix: str = '') -> ClipTokenizer:
  """Opens the vocabulary of `config.tokenizer`, or that next to the weights.

  Texts are cleaned as Hugging Face does for its directories, and otherwise as OpenAI
  does, since that is how the weights were trained.

  Args:
    prefix: put before each text.

  Raises:
    InputError: there is none, or it does not fit the model.
  """
  if not (config.tokenizer or config.init.clip):
    raise InputError(
      "config.init.clip and config.tokenizer are empty; give a CLIP's weights, and its "
      'vocabulary if that is somewhere else'
    )
  path = _vocabulary(config)
  cleaning = 'huggingface' if _is_huggingface(config.init.clip) else 'openai'
  try:
    tokenizer = ClipTokenizer(path, cleaning, config.clip.text_length, prefix)
  except InputError as error:
    raise InputError(
      f'{error}. Set config.tokenizer to the file or directory with the vocabulary'
    ) from None
  size = config.clip.vocab_size
  if tokenizer.size != size or tokenizer.end_id != size - 1:
    raise InputError(
      f'{path} has {tokenizer.size:,} tokens and ends texts with number '
      f'{tokenizer.end_id:,}, but config.clip.vocab_size = {size:,}, and the last '
      'token must be the end; set config.tokenizer to the vocabulary of the weights, '
      'or take the sizes from the weights with --config=FILE:WEIGHTS'
    )
  return tokenizer


def _vocabulary(config: ConfigDict) -> epath.Path:
  if config.tokenizer:
    return paths.find(config.tokenizer, 'config.tokenizer')
  weights = paths.find(config.init.clip, 'config.init.clip')
  if not weights.exists():
    raise InputError(
      f'config.init.clip = {weights} does not exist; give the path of a copy, nothing '
      'is downloaded'
    )
  return weights if weights.is_dir() else weights.parent


def _is_huggingface(weights: str) -> bool:
  """Returns whether weights are a directory of Hugging Face, or there are none."""
  return not weights or (epath.Path(weights) / 'config.json').exists()
