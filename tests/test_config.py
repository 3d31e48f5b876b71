"""The configs: that they load, what models they make, and which settings they refuse.

The parameter tables are those of the public checkpoints (T5X's `t5_1_1_base`, the
ViT-B/16 of vision_transformer) and of the paper's head widths.
"""

import importlib
import json
import math
import pathlib

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn
from tiny_model import paths

from rahf.config import default_config, differences, model_config, to_json, validate
from rahf.models.rahf import MAPS, RAHF, SCORES

CONFIGS = sorted(
  path.stem for path in pathlib.Path(__file__).parents[1].glob('configs/[!_]*.py')
)


def kernels(prefix: str, names: str, shape: tuple[int, ...]) -> dict:
  return {f'{prefix}/{name}/kernel': shape for name in names.split()}


def scales(prefix: str, names: str, width: int) -> dict:
  return {f'{prefix}/{name}/scale': (width,) for name in names.split()}


def biased(path: str, *shape: int) -> dict:
  return {f'{path}/kernel': shape, f'{path}/bias': shape[-1:]}


def normed(path: str, *shape: int) -> dict:
  return biased(path, *shape) | {f'{path}_norm/scale': shape[-1:]}


# A star stands for the numbers 0 to 11.
ENCODER, DECODER = 't5/encoder/layers_*', 't5/decoder/layers_*'
T5_BASE = {
  't5/token_embedder/embedding': (32128, 768),
  't5/encoder/relpos_bias/rel_embedding': (12, 32),
  't5/decoder/relpos_bias/rel_embedding': (12, 32),
  't5/decoder/logits_dense/kernel': (768, 32128),
  **scales('t5', 'encoder/encoder_norm decoder/decoder_norm', 768),
  **scales(ENCODER, 'pre_attention_layer_norm pre_mlp_layer_norm', 768),
  **scales(DECODER, 'pre_self_attention_layer_norm pre_mlp_layer_norm', 768),
  **scales(DECODER, 'pre_cross_attention_layer_norm', 768),
  **kernels(f'{ENCODER}/attention', 'query key value out', (768, 768)),
  **kernels(f'{DECODER}/self_attention', 'query key value out', (768, 768)),
  **kernels(f'{DECODER}/encoder_decoder_attention', 'query key value out', (768, 768)),
  **kernels(f'{ENCODER}/mlp', 'wi_0 wi_1', (768, 2048)),
  **kernels(f'{DECODER}/mlp', 'wi_0 wi_1', (768, 2048)),
  **kernels(f'{ENCODER}/mlp', 'wo', (2048, 768)),
  **kernels(f'{DECODER}/mlp', 'wo', (2048, 768)),
}
BLOCK = 'vit/Transformer/encoderblock_*'
ATTENTION = f'{BLOCK}/MultiHeadDotProductAttention_0'
VIT_B16 = {
  'vit/cls': (1, 1, 768),
  # 32 x 32 patches and the class token.
  'vit/Transformer/posembed_input/pos_embedding': (1, 1025, 768),
  **biased('vit/embedding', 16, 16, 3, 768),
  **biased(f'{BLOCK}/MlpBlock_0/Dense_0', 768, 3072),
  **biased(f'{BLOCK}/MlpBlock_0/Dense_1', 3072, 768),
  **kernels(ATTENTION, 'query key value', (768, 12, 64)),
  **{f'{ATTENTION}/{name}/bias': (12, 64) for name in ('query', 'key', 'value')},
  **biased(f'{ATTENTION}/out', 12, 64, 768),
  **{
    f'{norm}/{name}': (768,)
    for norm in (
      f'{BLOCK}/LayerNorm_0',
      f'{BLOCK}/LayerNorm_1',
      'vit/Transformer/encoder_norm',
    )
    for name in ('scale', 'bias')
  },
}
HEATMAP_HEAD = {
  **normed('conv_0', 3, 3, 768, 768),
  **normed('conv_1', 3, 3, 768, 384),
  **{
    path: shape
    for i, (before, width) in enumerate(
      [(384, 768), (768, 384), (384, 384), (384, 192)]
    )
    for path, shape in {
      **normed(f'stage_{i}/deconv', 3, 3, before, width),
      **normed(f'stage_{i}/conv_0', 3, 3, width, width),
      **normed(f'stage_{i}/conv_1', 3, 3, width, width),
    }.items()
  },
  **biased('readout_0', 3, 3, 192, 192),
  **biased('readout_1', 3, 3, 192, 1),
}
SCORE_HEAD = {
  **normed('conv_0', 2, 2, 768, 768),
  **normed('conv_1', 2, 2, 768, 384),
  **normed('conv_2', 2, 2, 384, 128),
  **normed('conv_3', 2, 2, 128, 64),
  **biased('dense_0', 2 * 2 * 64, 2048),
  **biased('dense_1', 2048, 1024),
  **biased('score', 1024, 1),
}
COUNTS = {
  't5': 247_577_856,
  'vit': 86_434_560,
  'image_projection': 590_592,
  'heatmap_head': 32_196_865,
  'score_head': 6_396_545,
}
TOTALS = {'augmented_prompt': 373_196_418, 'multi_head': 424_582_918}
# Of the others the total only.
OTHER_TOTALS = {
  'quickstart': 2_245_894,
  'shapes': 2_245_894,
  'rahf_torch': 641_563_110,
}


def load(name: str):
  config = importlib.import_module(f'configs.{name}').get_config()
  validate(config)
  return config


def parameters(name: str) -> dict[str, jax.ShapeDtypeStruct]:
  """Returns the parameters' shapes by path, without making any."""
  config = model_config(load(name))
  size = config.image_size
  shapes = jax.eval_shape(
    lambda: RAHF(config).init(
      jax.random.key(0),
      jnp.zeros((1, size, size, 3)),
      jnp.ones((1, config.texts, 1), jnp.int32),
      jnp.ones((1, 1), jnp.int32),
      train=False,
    )
  )
  return paths(nn.unbox(shapes)['params'])


def count(shapes: dict[str, jax.ShapeDtypeStruct], group: str = '') -> int:
  named = (leaf for path, leaf in shapes.items() if path.startswith(group))
  return sum(math.prod(leaf.shape) for leaf in named)


def expected_tree(heads: dict[str, dict]) -> dict[str, tuple[int, ...]]:
  tree = {}
  for path, shape in (T5_BASE | VIT_B16 | biased('image_projection', 768, 768)).items():
    numbers = range(12) if '*' in path else [0]
    tree |= {path.replace('*', str(i)): shape for i in numbers}
  for name, head in heads.items():
    tree |= {f'{name}/{path}': shape for path, shape in head.items()}
  return tree


HEADS = {
  'augmented_prompt': {'heatmap_head': HEATMAP_HEAD, 'score_head': SCORE_HEAD},
  'multi_head': {f'heatmap_head_{name}': HEATMAP_HEAD for name in MAPS}
  | {f'score_head_{name}': SCORE_HEAD for name in SCORES},
}


@pytest.mark.parametrize('name', TOTALS)
def test_the_full_models_have_these_parameters(name):
  found = parameters(name)
  assert {p: leaf.shape for p, leaf in found.items()} == expected_tree(HEADS[name])
  assert {leaf.dtype.name for leaf in found.values()} == {'float32'}
  for group in {path.split('/')[0] for path in found}:
    kind = next(kind for kind in COUNTS if group.startswith(kind))
    assert count(found, f'{group}/') == COUNTS[kind], group
  assert count(found) == TOTALS[name]


@pytest.mark.parametrize('name', OTHER_TOTALS)
def test_the_other_models_have_this_many_parameters(name):
  assert count(parameters(name)) == OTHER_TOTALS[name]


def test_every_config_is_in_a_table():
  assert sorted(TOTALS | OTHER_TOTALS) == CONFIGS


@pytest.mark.parametrize('name', CONFIGS)
def test_configs_are_notes_with_a_command(name):
  module = importlib.import_module(f'configs.{name}')
  assert f'--config=configs/{name}.py' in module.__doc__
  assert module.get_config().is_locked


def test_the_variants_differ_in_one_field():
  one, other = (json.loads(to_json(load(name))) for name in TOTALS)
  assert differences(one, other) == [
    "config.model.variant: 'augmented_prompt' there, 'multi_head' here"
  ]


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
      "'multihead' is none .*mean 'multi_head'",
    ),
    ('model.dtype', 'float16', "'float16' is none of float32, bfloat16"),
    ('model.vit.gelu', 'erf', "'erf' is none of tanh, exact"),
    (
      'model.score_head.padding',
      'same',
      "'same' is none of VALID, SAME",
    ),
    ('data.name', 'imagenet', "'imagenet' is none of richhf18k, shapes"),
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
    ('eval.split', 'validation', "'validation' is none of train, dev, test"),
    ('keywords.decoder', 'gredy', "'gredy' is none .*mean 'greedy'"),
    ('keywords.beams', 0, r'config.keywords.beams = 0'),
    ('model.dropout_rate', 1.0, r'dropout_rate = 1.0 must be from 0 to 0.99'),
    ('loss.score', -1.0, r'config.loss.score = -1.0 must be at least 0'),
    ('optimizer.learning_rate', -1e-3, r'learning_rate = -0.001 must be at least 0'),
    ('data.text_length', 0, r'config.data.text_length = 0'),
    ('data.target_length', 0, r'config.data.target_length = 0'),
  ],
)
def test_settings_that_do_not_fit_are_refused(field, value, message):
  config = default_config()
  validate(config)
  config.update_from_flattened_dict({field: value})
  with pytest.raises(ValueError, match=message):
    validate(config)


def test_differences_name_each_field():
  old = {'a': {'b': 1, 'c': [1, 2]}, 'd': None, 'e': 1}
  assert differences(old, json.loads(json.dumps(old))) == []
  new = {'a': {'b': 2, 'c': [1, 2], 'new': 'x'}, 'e': 1}
  assert differences(old, new) == [
    'config.a.b: 1 there, 2 here',
    "config.a.new: None there, 'x' here",
  ]


def test_json_holds_every_field():
  assert json.loads(to_json(default_config()))['model']['vit']['patch'] == 16
  assert to_json(default_config()) == to_json(default_config())
