"""Configs: defaults of all settings, and their validation.

A config file starts from `default_config()`, changes some settings, and returns the
result; flags such as --config.train.steps=100 override it. `settings.py` documents
every setting.
"""

import dataclasses
import json
import typing
from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from rahf.config.settings import RAHF_TASKS, Settings
from rahf.errors import InputError
from rahf.fileio.validators import Rule
from rahf.models.clip import TowerConfig
from rahf.models.heads import HeatmapHeadConfig, ScoreHeadConfig
from rahf.models.muse import MuseConfig, SamplingConfig, check_config
from rahf.models.muse.autoencoder import AutoencoderConfig
from rahf.models.muse.text import TextConfig
from rahf.models.muse.transformer import TransformerConfig
from rahf.models.rahf import RAHFConfig
from rahf.models.t5 import T5Config
from rahf.models.vit import ViTConfig

# Attention is quadratic in the number of image tokens.
MAX_TOKENS = 2**14
# T5's public vocabulary, readable without an account.
T5_VOCABULARY = 'gs://t5-data/vocabs/cc_all.32000.100extra/sentencepiece.model'


def _iter_rules(section: type, prefix: str = '') -> Iterator[tuple[str, Rule]]:
  """Yields the path of each setting and the rule that annotates its type."""
  for name, hint in typing.get_type_hints(section, include_extras=True).items():
    if dataclasses.is_dataclass(hint):
      yield from _iter_rules(hint, f'{prefix}{name}.')
    else:
      yield prefix + name, hint.__metadata__[0]


# The path of every setting -> its rule.
RULES: dict[str, Rule] = dict(_iter_rules(Settings))


def default_config() -> ConfigDict:
  """Returns the paper's sizes and the supplement's recipe as a locked ConfigDict."""
  return ConfigDict(dataclasses.asdict(Settings())).lock()


def model_config(config: ConfigDict) -> RAHFConfig:
  """Returns the model's settings as the dataclass that its modules take."""
  fields = config.model.to_dict()
  return RAHFConfig(
    **fields
    | dict(
      vit=ViTConfig(**fields['vit']),
      t5=T5Config(**fields['t5']),
      heatmap_head=HeatmapHeadConfig(**fields['heatmap_head']),
      score_head=ScoreHeadConfig(**fields['score_head']),
    )
  )


def muse_config(config: ConfigDict) -> MuseConfig:
  """Returns `config.muse` as the dataclass that its modules take.

  Raises:
    InputError: its parts do not fit together.
  """
  fields = config.muse.to_dict()
  text = fields['text']
  muse = MuseConfig(
    **fields
    | dict(
      autoencoder=AutoencoderConfig(**fields['autoencoder']),
      transformer=TransformerConfig(**fields['transformer']),
      text=TextConfig(**text | {'text': TowerConfig(**text['text'])}),
    )
  )
  try:
    check_config(muse)
  except InputError as error:
    raise InputError(f'config.{error}') from None
  return muse


def sampling_config(config: ConfigDict) -> SamplingConfig:
  """Returns `config.sampling` as the dataclass that the sampler takes."""
  return SamplingConfig(**config.sampling.to_dict())


def exported_model(config: ConfigDict) -> RAHFConfig:
  """Returns the model config of an export: its dtype, and layers written out."""
  model = model_config(config)
  # A loop would hold a second copy of the parameters while it scores.
  return dataclasses.replace(
    model, dtype=config.export.dtype or model.dtype, loop=False
  )


def validate(config: ConfigDict) -> None:
  """Checks all settings, and the model's against each other.

  Raises:
    InputError: the first problem, with field, value and remedy.
  """
  settings = dict(_flattened(config))
  missing = sorted(RULES.keys() - settings.keys())
  for field in [*missing, *sorted(settings.keys() - RULES.keys())]:
    problem = 'is missing' if field in missing else 'is not a setting'
    raise InputError(
      f'config.{field} {problem}; get_config() must start from '
      'rahf.config.default_config() and return it'
    )
  for field, rule in RULES.items():
    if problem := rule(settings[field]):
      raise InputError(f'config.{field} = {settings[field]!r:.80} {problem}')
  if config.task in RAHF_TASKS:
    _check_shapes(config.model)


def _flattened(section: ConfigDict, prefix: str = '') -> Iterator[tuple[str, Any]]:
  """Yields the path and value of each setting."""
  for name, value in section.items():
    if isinstance(value, ConfigDict):
      yield from _flattened(value, f'{prefix}{name}.')
    else:
      yield prefix + name, value


def _check_shapes(model: ConfigDict) -> None:
  """Checks that patches, heads and head stages fit the image's size."""
  if model.image_size % model.vit.patch:
    raise InputError(
      f'config.model.image_size = {model.image_size} is not a multiple of '
      f'config.model.vit.patch = {model.vit.patch}'
    )
  if model.vit.width % model.vit.heads:
    raise InputError(
      f'config.model.vit.width = {model.vit.width} is not a multiple of '
      f'config.model.vit.heads = {model.vit.heads}'
    )
  grid = model.image_size // model.vit.patch
  if grid**2 > MAX_TOKENS:
    raise InputError(
      f'config.model.image_size = {model.image_size} and config.model.vit.patch = '
      f'{model.vit.patch} give {grid} x {grid} patches, more than {MAX_TOKENS}; use '
      'larger patches or smaller images'
    )
  head = model.score_head
  for i, _ in enumerate(head.convs):
    lost = head.size if head.padding == 'VALID' else 1
    grid = (grid - lost) // head.stride + 1
    if grid < 1:
      raise InputError(
        f'config.model.score_head has {len(head.convs)} convolutions, but nothing is '
        f'left of the token grid after {i}; use fewer, or a larger '
        'config.model.image_size'
      )
  if 2 ** len(model.heatmap_head.deconvs) > model.vit.patch:
    raise InputError(
      f'config.model.heatmap_head.deconvs has {len(model.heatmap_head.deconvs)} '
      f'widths, which makes maps larger than the image; use at most log2(patch) for '
      f'config.model.vit.patch = {model.vit.patch}'
    )


def to_json(config: ConfigDict) -> str:
  """Returns all settings as sorted JSON, for people and for `differences`."""
  return json.dumps(config.to_dict(), indent=2, sort_keys=True) + '\n'


def differences(old: Any, new: Any, path: str = 'config') -> list[str]:
  """Lists the fields in which two configs, as parsed from JSON, differ."""
  if isinstance(old, dict) and isinstance(new, dict):
    return [
      line
      for key in sorted(old.keys() | new.keys())
      for line in differences(old.get(key), new.get(key), f'{path}.{key}')
    ]
  return [] if old == new else [f'{path}: {old!r} there, {new!r} here']
