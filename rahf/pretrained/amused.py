"""Reads aMUSEd's directories in the layout of diffusers, or others of its architecture.

The parts lie in folders of their own, each with a config.json, from which the sizes are
read, and safetensors in one or several files. Options that the public models do not use
are refused.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any

import jax.numpy as jnp
from etils import epath
from flax import traverse_util

from rahf.errors import InputError
from rahf.models.clip import TowerConfig
from rahf.models.muse import MuseConfig, abstract_params, check_config
from rahf.models.muse.autoencoder import AutoencoderConfig
from rahf.models.muse.text import TextConfig
from rahf.models.muse.transformer import CONDITIONS, TransformerConfig
from rahf.pretrained.amused_names import (
  autoencoder_table,
  split_gated,
  transformer_table,
)
from rahf.pretrained.clip import GELUS
from rahf.pretrained.clip_names import IGNORED, clip_table
from rahf.pretrained.hf_config import Config, read_json
from rahf.pretrained.hf_names import rename_arrays
from rahf.pretrained.source import FREE, Source, Weight
from rahf.pretrained.tensors import read_diffusers, read_tensors

INDEX = 'model_index.json'
PIPELINES = ('AmusedPipeline', 'AmusedImg2ImgPipeline', 'AmusedInpaintPipeline')
CLASSES = {
  'vqvae': 'VQModel',
  'transformer': 'UVit2DModel',
  'text_encoder': 'CLIPTextModelWithProjection',
  'scheduler': 'AmusedScheduler',
}
END = '<|endoftext|>'
SHOWN_PROBLEMS = 20


def open_amused(path: epath.PathLike) -> Source:
  """Opens a directory without reading its arrays.

  Args:
    path: has model_index.json; local or in a bucket (gs://…).

  Raises:
    InputError: it is of another pipeline or has an option that our model does not have;
      or a file is missing or damaged, or has arrays of other names or shapes.
  """
  directory = epath.Path(path)
  _check_classes(directory)
  autoencoder = _autoencoder(Config(directory / 'vqvae' / 'config.json'))
  transformer, grid = _transformer(Config(directory / 'transformer' / 'config.json'))
  _check_scheduler(directory / 'scheduler', transformer)
  config = MuseConfig(
    autoencoder,
    transformer,
    _text(directory),
    image_size=grid * autoencoder.side,
  )
  try:
    check_config(config)
  except InputError as error:
    raise InputError(f'{directory}: {error}') from None
  weights, ignored = _weights(directory, config)
  _check_shapes(directory, config, weights)
  return Source(
    'aMUSEd',
    str(directory),
    weights,
    ignored,
    dict(_fields(config, 'muse.')),
    licence=_licence(directory / 'README.md'),
  )


def _fields(config: Any, prefix: str) -> Iterator[tuple[str, Any]]:
  for field in dataclasses.fields(config):
    value = getattr(config, field.name)
    if dataclasses.is_dataclass(value):
      yield from _fields(value, f'{prefix}{field.name}.')
    elif field.name not in FREE:
      yield prefix + field.name, value


def _check_classes(directory: epath.Path) -> None:
  """Raises InputError unless all parts are of the classes of aMUSEd."""
  index = Config(directory / INDEX)
  if (found := index.get('_class_name', None)) not in PIPELINES:
    index.fail(f'_class_name is {found!r:.80}; only {", ".join(PIPELINES)} can be read')
  for part, name in CLASSES.items():
    named = index.get(part, None)
    if not isinstance(named, list) or named[1:] != [name]:
      index.fail(f'{part} is {named!r:.80}; only the class {name} can be read')
    file = 'scheduler_config.json' if part == 'scheduler' else 'config.json'
    if not (directory / part / file).exists():
      raise InputError(f'{directory / part / file} is missing; download it as well')
    if part != 'text_encoder':
      Config(directory / part / file).only('_class_name', name)


def _only(config: Config, field: str, value: Any, default: Any) -> None:
  """Raises InputError if a field, or its default, is not the only supported value."""
  if (found := config.get(field, default)) != value:
    absent = config.get(field, None) is None
    config.fail(
      f'{field} is {found!r:.80}{" by default" if absent else ""}; only {value!r} can '
      'be read'
    )


def _autoencoder(config: Config) -> AutoencoderConfig:
  widths = config.get('block_out_channels', [64])
  if not isinstance(widths, list) or any(
    type(width) is not int or width < 1 for width in widths
  ):
    config.fail(f'block_out_channels is {widths!r:.80}, but should be whole numbers')
  latents, stages = config.count('latent_channels', 3), len(widths)
  for field, value, default in (
    ('in_channels', 3, 3),
    ('out_channels', 3, 3),
    ('act_fn', 'silu', 'silu'),
    ('norm_type', 'group', 'group'),
    ('mid_block_add_attention', False, True),
    ('lookup_from_codebook', True, False),
    ('vq_embed_dim', latents, latents),
    ('down_block_types', ['DownEncoderBlock2D'] * stages, ['DownEncoderBlock2D']),
    ('up_block_types', ['UpDecoderBlock2D'] * stages, ['UpDecoderBlock2D']),
  ):
    _only(config, field, value, default)
  return AutoencoderConfig(
    widths=tuple(widths),
    blocks=config.count('layers_per_block', 1),
    groups=config.count('norm_num_groups', 32),
    latents=latents,
    codes=config.count('num_vq_embeddings', 256),
  )


def _transformer(config: Config) -> tuple[TransformerConfig, int]:
  """Returns the sizes, and the side of the grid of tokens."""
  waves = config.count('micro_cond_encode_dim', 256)
  downsample = config.flag('downsample', False)
  for field, value, default in (
    ('use_bias', False, False),
    ('ln_elementwise_affine', True, True),
    ('upsample', downsample, False),
    ('micro_cond_encode_dim', waves // 2 * 2, 256),
    ('micro_cond_embed_dim', CONDITIONS * waves, 1280),
  ):
    _only(config, field, value, default)
  sizes = TransformerConfig(
    width=config.count('hidden_size', 1024),
    layers=config.count('num_hidden_layers', 22),
    heads=config.count('num_attention_heads', 16),
    mlp=config.count('intermediate_size', 2816),
    embedding=config.count('in_channels', 768),
    channels=config.count('block_out_channels', 768),
    conv_layers=config.count('num_res_blocks', 3),
    conv_heads=config.count('block_num_heads', 12),
    downsample=downsample,
    vocab_size=config.count('vocab_size', 8256),
    codebook_size=config.count('codebook_size', 8192),
    text_width=config.count('encoder_hidden_size', 768),
    pooled_width=config.count('cond_embed_dim', 768),
    frequencies=waves // 2,
    norm_epsilon=config.number('layer_norm_eps', 1e-6),
  )
  return sizes, config.count('sample_size', 64)


def _check_scheduler(folder: epath.Path, transformer: TransformerConfig) -> None:
  config = Config(folder / 'scheduler_config.json')
  _only(config, 'mask_token_id', transformer.mask_id, None)
  # A setting of sampling, not of the model: aMUSEd's is linear for inpainting alone.
  config.choice('masking_schedule', 'cosine', {'cosine': None, 'linear': None})


def _text(directory: epath.Path) -> TextConfig:
  config = Config(directory / 'text_encoder' / 'config.json')
  config.only('model_type', 'clip_text_model')
  vocabulary = config.count('vocab_size', 49408)
  end = vocabulary - 1
  # 2 stands for the largest token in transformers, as old files have it.
  if (found := config.get('eos_token_id', 49407)) not in (2, end):
    config.fail(f'eos_token_id is {found!r:.80}; only the last token, {end}, can be')
  return TextConfig(
    text=TowerConfig(
      width=config.count('hidden_size', 512),
      layers=config.count('num_hidden_layers', 12),
      heads=config.count('num_attention_heads', 8),
      mlp=config.count('intermediate_size', 2048),
      gelu=config.choice('hidden_act', 'quick_gelu', GELUS),
      norm_epsilon=config.number('layer_norm_eps', 1e-5),
    ),
    text_length=config.count('max_position_embeddings', 77),
    vocab_size=vocabulary,
    projection=config.count('projection_dim', 512),
    pad=_padding(directory / 'tokenizer'),
  )


def _padding(folder: epath.Path) -> int:
  """Returns the token that fills texts up; -1 if it is the end of a text."""
  for name in ('special_tokens_map.json', 'tokenizer_config.json'):
    path = folder / name
    found = Config(path).get('pad_token', None) if path.exists() else None
    if found is not None:
      break
  token = found.get('content') if isinstance(found, dict) else found
  if token in (None, END):
    return -1
  vocabulary = _vocabulary(folder)
  if token not in vocabulary or type(vocabulary[token]) is not int:
    raise InputError(f'{path}: pad_token is {token!r:.80}, which is no token')
  return vocabulary[token]


def _vocabulary(folder: epath.Path) -> Mapping[str, Any]:
  """Returns a tokenizer's tokens."""
  if (folder / 'vocab.json').exists():
    return read_json(folder / 'vocab.json')
  if not (folder / 'tokenizer.json').exists():
    raise InputError(
      f'{folder} has neither vocab.json nor tokenizer.json; download one of them'
    )
  return read_json(folder / 'tokenizer.json').get('model', {}).get('vocab', {})


def _weights(
  directory: epath.Path, config: MuseConfig
) -> tuple[dict[str, Weight], dict[str, str]]:
  """Returns the arrays by our paths, and those that are ignored."""
  where = directory / 'vqvae'
  table = autoencoder_table(len(config.autoencoder.widths))
  weights = rename_arrays(str(where), read_diffusers(where).items(), table)

  where = directory / 'transformer'
  table = transformer_table(config.transformer.heads, config.transformer.conv_heads)
  arrays = split_gated(str(where), read_diffusers(where))
  weights |= rename_arrays(str(where), arrays, table)

  where = directory / 'text_encoder'
  tensors = read_tensors(where, pickles=False)
  ignored = {
    name: reason for name in tensors if (reason := IGNORED.get(name.rpartition('.')[2]))
  }
  used = ((name, t) for name, t in tensors.items() if name not in ignored)
  found = rename_arrays(str(where), used, clip_table(1, config.text.text.heads))
  weights |= {p.removeprefix('clip/'): w for p, w in found.items()}
  return weights, ignored


def _check_shapes(
  directory: epath.Path, config: MuseConfig, weights: Mapping[str, Weight]
) -> None:
  """Raises InputError unless the weights are those of a model of these sizes."""
  expected = traverse_util.flatten_dict(abstract_params(config), sep='/')
  problems = []
  for path in sorted(expected.keys() | weights.keys()):
    leaf, weight = expected.get(path), weights.get(path)
    if weight is None:
      problems.append(f'{path} {list(leaf.shape)} is missing')
    elif leaf is None:
      found = f'{weight.name} {list(weight.shape)}'
      problems.append(f'{found} has no place in the model (as {path})')
    elif weight.shape != leaf.shape:
      found = f'{weight.name} {list(weight.shape)}'
      problems.append(f'{found} should have the shape {list(leaf.shape)} of {path}')
    elif not jnp.issubdtype(weight.dtype, jnp.floating):
      problems.append(f'{weight.name} is of {weight.dtype}, but {path} must be floats')
  if more := problems[SHOWN_PROBLEMS:]:
    problems[SHOWN_PROBLEMS:] = [f'… and {len(more)} more']
  if problems:
    raise InputError(
      f'the weights in {directory} do not fit its config.json files:\n  '
      + '\n  '.join(problems)
    )


def _licence(card: epath.Path) -> str:
  """Returns the licence that a model card states, '' if there is none."""
  if not card.exists():
    return ''
  matter = re.match(r'---\n(.*?\n)---', card.read_text(), re.DOTALL)
  fields = re.findall(
    r'^(license|license_name|license_link):[\s-]*(\S.*?)\s*$',
    matter[1] if matter else '',
    re.MULTILINE,
  )
  stated = dict((name, value.strip('\'"')) for name, value in fields)
  if not stated:
    return ''
  return ', '.join(stated.values()) + ', as its README.md states.'
