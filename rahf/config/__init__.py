"""Configs: the defaults of all settings, and checks that say what to change.

A config file starts from `default_config()`, changes what it is about, and returns the
result; flags such as --config.train.steps=100 change it once more. `settings.py`
describes every setting.
"""

import dataclasses
import json
import typing
from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from rahf.config.settings import Settings
from rahf.errors import InputError
from rahf.fileio.validators import Rule
from rahf.models.heads import HeatmapHeadConfig, ScoreHeadConfig
from rahf.models.rahf import RAHFConfig
from rahf.models.t5 import T5Config
from rahf.models.vit import ViTConfig

# Attention compares each image token with each.
MOST_TOKENS = 2**14
# T5's public vocabulary, readable without an account.
T5_VOCABULARY = 'gs://t5-data/vocabs/cc_all.32000.100extra/sentencepiece.model'


def _rules(section: type, prefix: str = '') -> Iterator[tuple[str, Rule]]:
  """Yields the path of each setting, and the rule that its type is annotated with."""
  for name, hint in typing.get_type_hints(section, include_extras=True).items():
    if dataclasses.is_dataclass(hint):
      yield from _rules(hint, f'{prefix}{name}.')
    else:
      yield prefix + name, hint.__metadata__[0]


# Of every setting, by its path.
RULES: dict[str, Rule] = dict(_rules(Settings))


def default_config() -> ConfigDict:
  """Returns the paper's sizes and the supplement's recipe; all fields are locked."""
  return ConfigDict(dataclasses.asdict(Settings())).lock()


def model_config(config: ConfigDict) -> RAHFConfig:
  """Returns the model's sizes as the modules take them."""
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


def validate(config: ConfigDict) -> None:
  """Checks the settings against each other, before anything is loaded.

  Raises:
    InputError: the first problem, with its field, value and a way out.
  """
  settings = dict(_flattened(config))
  missing = sorted(RULES.keys() - settings.keys())
  for field in [*missing, *sorted(settings.keys() - RULES.keys())]:
    problem = 'is missing' if field in missing else 'is not a setting'
    raise InputError(
      f'config.{field} {problem}; get_config() changes what rahf.config.'
      'default_config() returns, and returns it'
    )
  for field, rule in RULES.items():
    if problem := rule(settings[field]):
      raise InputError(f'config.{field} = {settings[field]!r:.80} {problem}')
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
  if grid**2 > MOST_TOKENS:
    raise InputError(
      f'config.model.image_size = {model.image_size} gives {grid} x {grid} patches of '
      f'config.model.vit.patch = {model.vit.patch}, more than {MOST_TOKENS}; take '
      'larger patches, or a smaller image'
    )
  head = model.score_head
  for i, _ in enumerate(head.convs):
    lost = head.size if head.padding == 'VALID' else 1
    grid = (grid - lost) // head.stride + 1
    if grid < 1:
      raise InputError(
        f'config.model.score_head has {len(head.convs)} convolutions, '
        f'but nothing is left of the token grid after {i}; take fewer, or a larger '
        'config.model.image_size'
      )
  if 2 ** len(model.heatmap_head.deconvs) > model.vit.patch:
    raise InputError(
      f'config.model.heatmap_head.deconvs has {len(model.heatmap_head.deconvs)} '
      f'widths, which makes maps larger than the image; log2(patch) of them are '
      f'enough for config.model.vit.patch = {model.vit.patch}'
    )


def to_json(config: ConfigDict) -> str:
  """Returns all settings, sorted, for people and for `differences`."""
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
