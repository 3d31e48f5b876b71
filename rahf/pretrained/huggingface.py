"""Reads Hugging Face directories of T5 and ViT: config.json and the weights.

These are safetensors, or else PyTorch's own format, in one file or several.
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors
from etils import epath

from rahf import strict_json
from rahf.errors import InputError
from rahf.models.t5_layers import MAX_DISTANCE, RELATIVE_BUCKETS
from rahf.pretrained.files import LocalFile, local_file
from rahf.pretrained.hf_names import (
  PREFIXES,
  Arrange,
  Table,
  arranged_shape,
  keep,
  rename,
  t5_table,
  vit_table,
)
from rahf.pretrained.source import Source, Weight
from rahf.pretrained.torch_archive import open_torch

SINGLE, INDEX = 'model.safetensors', 'model.safetensors.index.json'
PICKLE, PICKLE_INDEX = 'pytorch_model.bin', 'pytorch_model.bin.index.json'
DTYPES = {'F64': 'float64', 'F32': 'float32', 'F16': 'float16', 'BF16': 'bfloat16'}
VIT_GELU = {
  'gelu': 'exact',
  'gelu_new': 'tanh',
  'gelu_fast': 'tanh',
  'gelu_pytorch_tanh': 'tanh',
}
VIT_IGNORED = {
  'pooler.': 'pooler of the class token',
  'classifier.': 'classifier',
  'embeddings.mask_token': 'token of masked pretraining',
  'decoder.': 'decoder of masked pretraining',
}
# Hugging Face's "gated-gelu" is T5X's tanh GELU, not the exact one.
T5_ACTIVATIONS = {'relu': ('relu',), 'gated-gelu': ('gelu', 'linear')}
EMBEDDING_ALIASES = ('encoder.embed_tokens.weight', 'decoder.embed_tokens.weight')
EMBEDDING = 't5/token_embedder/embedding'
LOGITS = 't5/decoder/logits_dense/kernel'
UNUSED_BIAS = 'decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight'


@dataclasses.dataclass(frozen=True)
class Tensor:
  """An array of a file, not yet read."""

  file: str
  name: str
  shape: tuple[int, ...]
  dtype: np.dtype
  values: Callable[[], np.ndarray]

  def read(self, arrange: Arrange) -> np.ndarray:
    return arrange(self.values())


def open_huggingface(path: epath.PathLike) -> Source:
  """Opens a directory of a T5 or a ViT without reading its arrays.

  Raises:
    InputError: another model, a setting that our model does not have, an array
      that has no place in it, or a file that is missing or not safe to read.
  """
  directory = epath.Path(path)
  config = _read_json(directory / 'config.json')
  readers: dict[str, Callable] = {'vit': _vit, 't5': _t5}
  kind = config.get('model_type')
  if kind not in readers:
    raise InputError(
      f'{directory}/config.json: model_type is {kind!r}; '
      f'{" and ".join(readers)} can be read'
    )
  tensors = read_tensors(directory)
  try:
    return readers[kind](directory, config, tensors)
  except KeyError as error:
    raise InputError(f'{directory}/config.json has no {error}') from None


def _vit(directory: epath.Path, config: dict, tensors: Mapping[str, Tensor]) -> Source:
  where = f'{directory}/config.json'
  act = config.get('hidden_act', 'gelu')
  if act not in VIT_GELU:
    raise InputError(f'{where}: hidden_act {act!r} is none of {", ".join(VIT_GELU)}')
  _check(where, config, 'qkv_bias', True)
  _check(where, config, 'num_channels', 3)
  ignored = {
    name: reason
    for name in tensors
    for prefix, reason in VIT_IGNORED.items()
    if PREFIXES.sub('', name, count=1).startswith(prefix)
  }
  heads = config['num_attention_heads']
  weights = _place(directory, tensors, ignored, vit_table(heads))
  return Source(
    kind='Hugging Face ViT',
    path=str(directory),
    weights=weights,
    ignored=ignored,
    settings={
      'vit.patch': config['patch_size'],
      'vit.width': config['hidden_size'],
      'vit.layers': config['num_hidden_layers'],
      'vit.heads': heads,
      'vit.mlp': config['intermediate_size'],
      'vit.class_token': True,
      'vit.norm_epsilon': config.get('layer_norm_eps', 1e-12),
      'vit.gelu': VIT_GELU[act],
    },
  )


def _t5(directory: epath.Path, config: dict, tensors: Mapping[str, Tensor]) -> Source:
  where = f'{directory}/config.json'
  act = config.get('feed_forward_proj', 'relu')
  if act not in T5_ACTIVATIONS:
    raise InputError(
      f'{where}: feed_forward_proj {act!r} is none of {", ".join(T5_ACTIVATIONS)}'
    )
  _check(where, config, 'relative_attention_num_buckets', RELATIVE_BUCKETS)
  _check(where, config, 'relative_attention_max_distance', MAX_DISTANCE)
  _check(where, config, 'layer_norm_epsilon', 1e-6)
  # transformers 5 ties always, and says in a field of its own whether to scale.
  tied = config.get('scale_decoder_outputs', config.get('tie_word_embeddings', True))
  same = (*EMBEDDING_ALIASES, *(['lm_head.weight'] if tied else []))
  ignored = {
    name: 'the token embedding under another name'
    for name in tensors
    if PREFIXES.sub('', name, count=1) in same
  }
  if UNUSED_BIAS in tensors:
    ignored[UNUSED_BIAS] = 'T5 has no position bias between decoder and encoder'
  weights = _place(directory, tensors, ignored, t5_table())
  if not tied and LOGITS not in weights and EMBEDDING in weights:
    # Tied, but not scaled: the same values, used as they are.
    shared = tensors[weights[EMBEDDING].name]
    weights |= _place(directory, {'lm_head.weight': shared}, {}, t5_table())
  aliases = [tensors[name] for name in ignored if name != UNUSED_BIAS]
  if aliases and EMBEDDING in weights:
    weights[EMBEDDING] = _checked(weights[EMBEDDING], aliases)
  return Source(
    kind='Hugging Face T5',
    path=str(directory),
    weights=weights,
    ignored=ignored,
    settings={
      't5.vocab_size': config['vocab_size'],
      't5.width': config['d_model'],
      't5.heads': config['num_heads'],
      't5.head_dim': config['d_kv'],
      't5.mlp': config['d_ff'],
      't5.encoder_layers': config['num_layers'],
      't5.decoder_layers': config.get('num_decoder_layers') or config['num_layers'],
      't5.activations': T5_ACTIVATIONS[act],
      't5.tied_logits': bool(tied),
    },
  )


def _checked(embedding: Weight, aliases: Sequence[Tensor]) -> Weight:
  """Returns the embedding; reading it raises InputError where an alias differs."""

  def read() -> np.ndarray:
    array = embedding.read()
    for alias in aliases:
      if not np.array_equal(alias.read(keep), array):
        raise InputError(
          f'{alias.file}: {alias.name} should be the same as {embedding.name}, by '
          'config.json, but has other values'
        )
    return array

  return dataclasses.replace(embedding, read=read)


def _check(where: str, config: dict, field: str, only: Any) -> None:
  if (value := config.get(field, only)) != only:
    raise InputError(f'{where}: {field} is {value!r}; only {only!r} can be read')


def _place(
  directory: epath.Path,
  tensors: Mapping[str, Tensor],
  ignored: Mapping[str, str],
  table: Table,
) -> dict[str, Weight]:
  """Returns what is not ignored, by our path."""
  weights = {}
  for name, tensor in tensors.items():
    if name in ignored:
      continue
    place = rename(PREFIXES.sub('', name, count=1), table)
    if place is None:
      raise InputError(
        f'{directory}: {name} {list(tensor.shape)} has no place in the model'
      )
    path, arrange = place
    try:
      shape = arranged_shape(tensor.shape, arrange)
    except ValueError as error:
      raise InputError(f'{directory}: {name} {list(tensor.shape)}: {error}') from None
    read = functools.partial(tensor.read, arrange)
    weights[path] = Weight(name, shape, tensor.dtype, read)
  return weights


def _read_json(path: epath.Path) -> dict[str, Any]:
  try:
    fields = strict_json.read(path)
  except ValueError as error:  # Of JSON or of UTF-8.
    raise InputError(f'{path} is not JSON: {error}') from None
  if not isinstance(fields, dict):
    raise InputError(f'{path} holds {type(fields).__name__}, not named fields')
  return fields


def read_tensors(directory: epath.Path) -> dict[str, Tensor]:
  """Reads the headers of a directory's files of weights.

  Raises:
    InputError: there are none, or they do not hold what the index says.
  """
  for single, index, read in (
    (SINGLE, INDEX, _header),
    (PICKLE, PICKLE_INDEX, read_torch),
  ):
    if (directory / single).exists():
      return read(directory / single)
    if (directory / index).exists():
      return _read_sharded(directory / index, read)
  raise InputError(
    f'{directory} has neither {SINGLE} nor {INDEX} nor {PICKLE} nor {PICKLE_INDEX}; '
    'write it once more with save_pretrained of transformers'
  )


def _read_sharded(
  index: epath.Path, read: Callable[[epath.Path], dict[str, Tensor]]
) -> dict[str, Tensor]:
  directory, places = index.parent, _read_json(index).get('weight_map')
  if not isinstance(places, dict) or not all(
    isinstance(v, str) for v in places.values()
  ):
    raise InputError(f'{index} has no weight_map from names to files')
  tensors, files = {}, sorted(set(places.values()))
  for file_name in files:
    if os.path.basename(file_name) != file_name:
      raise InputError(f'{index} refers to {file_name!r} elsewhere')
    if not (directory / file_name).exists():
      raise InputError(f'{index} refers to {file_name}, which is missing')
  for file_name in files:
    found = read(directory / file_name)
    listed = {name for name, place in places.items() if place == file_name}
    if wrong := sorted(listed ^ found.keys()):
      raise InputError(
        f'{directory / file_name} and {index.name} differ in {", ".join(wrong[:5])}'
      )
    tensors |= found
  return tensors


def _header(path: epath.Path) -> dict[str, Tensor]:
  file, tensors = local_file(path), {}
  try:
    with safetensors.safe_open(file.path, framework='numpy') as archive:
      for name in archive.keys():  # noqa: SIM118, it is no mapping.
        part = archive.get_slice(name)
        dtype = DTYPES.get(part.get_dtype())
        if dtype is None:
          raise InputError(f'{path}: {name} is of type {part.get_dtype()}')
        shape = tuple(part.get_shape())
        values = functools.partial(_read, file, name)
        tensors[name] = Tensor(str(path), name, shape, jnp.dtype(dtype), values)
  except safetensors.SafetensorError as error:
    raise InputError(f'{path} is not a safetensors file: {error}') from None
  return tensors


def _read(file: LocalFile, name: str) -> np.ndarray:
  # Opened for each array: pages of a file that stays mapped would pile up.
  with safetensors.safe_open(file.path, framework='numpy') as archive:
    return archive.get_tensor(name)


def read_torch(path: epath.PathLike) -> dict[str, Tensor]:
  """Reads the header of a file in PyTorch's own format."""
  return {
    name: Tensor(str(path), name, tensor.shape, tensor.storage.dtype, tensor.read)
    for name, tensor in open_torch(path).items()
  }
