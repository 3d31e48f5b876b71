"""Config files load and are documented, and invalid settings are refused."""

import dataclasses
import importlib
import json
import pathlib

import pytest

import tiny_muse
from rahf.config import (
  default_config,
  differences,
  exported_model,
  model_config,
  to_json,
  validate,
)
from rahf.errors import InputError
from rahf.models.rahf import VARIANTS

CONFIGS = sorted(
  path.stem for path in pathlib.Path(__file__).parents[1].glob('configs/[!_]*.py')
)


def load(name: str):
  config = importlib.import_module(f'configs.{name}').get_config()
  validate(config)
  return config


@pytest.mark.parametrize('name', CONFIGS)
def test_configs_are_documented_with_a_command(name):
  module = importlib.import_module(f'configs.{name}')
  assert f'--config=configs/{name}.py' in module.__doc__
  assert load(name).is_locked


def test_the_variants_differ_in_one_field():
  one, other = (json.loads(to_json(load(name))) for name in VARIANTS)
  assert differences(one, other) == [
    "config.model.variant: 'augmented_prompt' there, 'multi_head' here"
  ]


@pytest.mark.parametrize(
  ('name', 'argument'), [('muse', '{}'), ('muse_reward', '{},x')]
)
def test_a_muse_is_trained_further_as_it_is(tmp_path, name, argument):
  """Its sizes and its sampling, which the export takes over, are those of its files."""
  tiny_muse.write(tmp_path / 'model')
  module = importlib.import_module(f'configs.{name}')
  config = module.get_config(argument.format(tmp_path / 'model'))
  validate(config)
  own = tiny_muse.get_config('generator')
  assert config.muse.transformer.width == own.muse.transformer.width
  assert config.sampling == own.sampling


def test_unknown_fields_are_errors():
  config = default_config()
  with pytest.raises(AttributeError, match='stepz'):
    config.train.stepz = 3
  with pytest.raises(KeyError, match='tepz'):
    config.train.update(tepz=3)


@pytest.mark.parametrize(
  ('field', 'value', 'message'),
  [
    (
      'model.variant',
      'multihead',
      "'multihead' is not one .*mean 'multi_head'",
    ),
    ('model.dtype', 'float16', "'float16' is not one of float32, bfloat16"),
    ('platform', 'cuda', r"config.platform = 'cuda' is not one of '', cpu, gpu, tpu"),
    ('model.vit.gelu', 'erf', "'erf' is not one of tanh, exact"),
    (
      'model.score_head.padding',
      'same',
      "'same' is not one of VALID, SAME",
    ),
    ('data.mixture', (('a', 1.0, 2.0),), r"has \('a', 1.0, 2.0\), which is not a pair"),
    ('data.mixture', (('a', 1.0), ('b', 0.0)), r"has \('b', 0.0\)"),
    ('model.image_size', 500, r'image_size = 500 is not a multiple of .*patch = 16'),
    ('model.vit.heads', 10, r'vit.width = 768 is not a multiple of .*heads = 10'),
    ('model.image_size', 64, '4 convolutions, but nothing is left of the token grid'),
    ('model.score_head.stride', 4, '4 convolutions, but nothing is left'),
    ('model.heatmap_head.deconvs', (8,) * 5, '5 widths, which makes maps larger'),
    ('train.steps', 0, r'config.train.steps = 0 must be at least 1'),
    ('train.log_every', 0, r'config.train.log_every = 0'),
    ('train.checkpoint_every', 0, r'config.train.checkpoint_every = 0'),
    ('train.batch_size', 0, r'config.train.batch_size = 0'),
    ('train.accumulate', -1, r'config.train.accumulate = -1'),
    ('eval.batch_size', 0, r'config.eval.batch_size = 0'),
    ('eval.every', 0, r'config.eval.every = 0'),
    ('eval.split', 'validation', "'validation' is not one of train, dev, test"),
    ('keywords.decoder', 'gredy', "'gredy' is not one .*mean 'greedy'"),
    ('keywords.beams', 0, r'config.keywords.beams = 0'),
    ('model.dropout_rate', 1.0, r'dropout_rate = 1.0 must be at most 0.99'),
    ('loss.score', -1.0, r'config.loss.score = -1.0 must be at least 0'),
    ('optimizer.learning_rate', -1e-3, r'learning_rate = -0.001 must be at least 0'),
    ('data.text_length', 0, r'config.data.text_length = 0'),
    ('data.target_length', 0, r'config.data.target_length = 0'),
    ('loss.score', float('nan'), r'config.loss.score = nan must be a number'),
    ('model.heatmap_head.convs', (8, '['), r"has '\[', which must be a whole number"),
    ('model.t5.activations', ('tanh',), "has 'tanh', which is not one of gelu, relu"),
    ('model.vit.layers', 10**9, 'layers = 1000000000 must be at most 200'),
    ('model.vit.patch', 2, r'give 256 x 256 patches, .* use larger patches'),
    ('optimizer.freeze', ('(',), r"has '\(', which is not a regular expression"),
    ('tokenizer', 'a\0b', 'contains a NUL character'),
    ('train', None, 'config.train.accumulate is missing'),
  ],
)
def test_invalid_settings_are_refused(field, value, message):
  config = default_config()
  validate(config)
  config.update_from_flattened_dict({field: value})
  with pytest.raises(InputError, match=message):
    validate(config)


def test_padding_must_leave_some_of_a_small_grid():
  config = default_config()
  config.model.image_size = 32
  config.model.score_head.padding = 'SAME'
  validate(config)


def test_layers_are_written_out_in_exports():
  config = load('augmented_prompt')
  training = model_config(config)
  assert training.loop
  assert exported_model(config) == dataclasses.replace(training, loop=False)


def test_differences_name_each_field():
  old = {'a': {'b': 1, 'c': [1, 2]}, 'd': None, 'e': 1}
  assert differences(old, json.loads(json.dumps(old))) == []
  new = {'a': {'b': 2, 'c': [1, 2], 'new': 'x'}, 'e': 1}
  assert differences(old, new) == [
    'config.a.b: 1 there, 2 here',
    "config.a.new: None there, 'x' here",
  ]


def test_json_has_every_field():
  assert json.loads(to_json(default_config()))['model']['vit']['patch'] == 16
  assert to_json(default_config()) == to_json(default_config())
