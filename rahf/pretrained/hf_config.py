"""Reads the config.json of Hugging Face's T5 and ViT as transformers does.

Fields that are absent or null have the defaults of transformers. Sizes must agree with
the arrays: the config.json of another model would silently change the weights' meaning.
"""

from collections.abc import Mapping
from typing import Any

from etils import epath

from rahf.errors import InputError
from rahf.fileio import local_file, strict_json
from rahf.models.t5 import MAX_DISTANCE, RELATIVE_BUCKETS

VIT_GELU = {
  'gelu': 'exact',
  'gelu_new': 'tanh',
  'gelu_fast': 'tanh',
  'gelu_pytorch_tanh': 'tanh',
}
# Hugging Face's "gated-gelu" is T5X's tanh GELU, not the exact one.
T5_ACTIVATIONS = {'relu': ('relu',), 'gated-gelu': ('gelu', 'linear')}
# Sizes that the arrays also determine: our setting -> their field and its default.
VIT_SIZES = {
  'vit.width': ('hidden_size', 768),
  'vit.layers': ('num_hidden_layers', 12),
  'vit.heads': ('num_attention_heads', 12),
  'vit.mlp': ('intermediate_size', 3072),
}
T5_SIZES = {
  't5.vocab_size': ('vocab_size', 32128),
  't5.width': ('d_model', 512),
  't5.heads': ('num_heads', 8),
  't5.head_dim': ('d_kv', 64),
  't5.mlp': ('d_ff', 2048),
  't5.encoder_layers': ('num_layers', 6),
}


class Config:
  """The fields of a config.json, each validated on access."""

  def __init__(self, path: epath.Path, fields: Mapping[str, Any] | None = None):
    """Reads the file.

    Args:
      fields: of a section of it, already read.

    Raises:
      InputError: it is not a JSON object.
    """
    self.path = path
    self._fields = read_json(path) if fields is None else fields

  def section(self, *names: str) -> 'Config':
    """Returns the fields inside of a field; those of later names overrule."""
    fields = {}
    for name in names:
      found = self.get(name, {})
      if not isinstance(found, dict):
        self.fail(f'{name} is {found!r:.80}, but should hold named fields')
      fields |= {key: value for key, value in found.items() if value is not None}
    return Config(self.path, fields)

  def number(self, field: str, default: float) -> float:
    """Returns a field that must be a number."""
    value = self.get(field, default)
    if type(value) not in (int, float):
      self.fail(f'{field} is {value!r:.80}, but should be a number')
    return value

  def get(self, field: str, default: Any) -> Any:
    """Returns a field, or the default if it is absent or null."""
    value = self._fields.get(field)
    return default if value is None else value

  def fail(self, problem: str) -> None:
    raise InputError(f'{self.path}: {problem}')

  def count(self, field: str, default: int) -> int:
    """Returns a field that must be an integer of at least 1."""
    value = self.get(field, default)
    if type(value) is not int or value < 1:
      self.fail(f'{field} is {value!r:.80}, but should be a whole number above 0')
    return value

  def flag(self, field: str, default: bool) -> bool:
    """Returns a field that must be true or false."""
    value = self.get(field, default)
    if not isinstance(value, bool):
      self.fail(f'{field} is {value!r:.80}, but should be true or false')
    return value

  def side(self, field: str, default: int) -> int:
    """Returns the side of a square, given as one number or as height and width."""
    value = self.get(field, default)
    sides = value if isinstance(value, list) else [value, value]
    if any(type(side) is not int or side < 1 for side in sides) or len(sides) != 2:
      self.fail(f'{field} is {value!r:.80}, but should be one or two whole numbers')
    if sides[0] != sides[1]:
      self.fail(f'{field} is {value!r}; only squares can be read')
    return sides[0]

  def choice(self, field: str, default: str, known: Mapping[str, Any]) -> Any:
    """Returns the value in `known` that a text field selects."""
    value = self.get(field, default)
    if not isinstance(value, str) or value not in known:
      *first, last = known
      names = f'{", ".join(first)} and {last}' if first else last
      self.fail(f'{field} is {value!r:.80}; only {names} can be read')
    return known[value]

  def only(self, field: str, value: Any) -> None:
    """Raises InputError if a field is not the only supported value."""
    if (found := self.get(field, value)) != value:
      self.fail(f'{field} is {found!r:.80}; only {value!r} can be read')


def read_json(path: epath.Path) -> dict[str, Any]:
  """Returns the object in a JSON file.

  Raises:
    InputError: it is not JSON, or not an object.
  """
  local_file.refuse_pointer(path)
  try:
    fields = strict_json.read(path)
  except ValueError as error:  # Not JSON or not UTF-8.
    raise InputError(f'{path} is not JSON: {error}; download it again') from None
  if not isinstance(fields, dict):
    raise InputError(f'{path} contains {type(fields).__name__}, not a JSON object')
  return fields


def vit_settings(config: Config) -> dict[str, Any]:
  """Returns the settings of `config.model` for a ViT.

  Raises:
    InputError: our ViT does not support one of the settings.
  """
  config.only('qkv_bias', True)
  config.only('num_channels', 3)
  return {
    'vit.patch': config.side('patch_size', 16),
    **{ours: config.count(*theirs) for ours, theirs in VIT_SIZES.items()},
    'vit.class_token': True,
    'vit.norm_epsilon': config.number('layer_norm_eps', 1e-12),
    'vit.gelu': config.choice('hidden_act', 'gelu', VIT_GELU),
  }


def check_vit(
  config: Config, settings: Mapping[str, Any], found: Mapping[str, Any], tokens: int
) -> None:
  """Raises InputError if the sizes in config.json differ from those of the arrays.

  Args:
    found: the settings that the arrays determine.
    tokens: the length of the position embedding; 0 if there is none.
  """
  _check_sizes(config, VIT_SIZES, settings, found)
  patch, side = settings['vit.patch'], config.side('image_size', 224)
  if patch != found['vit.patch']:
    config.fail(f'patch_size is {patch}, but the weights have {found["vit.patch"]}')
  if tokens and tokens != 1 + (side // patch) ** 2:
    config.fail(
      f'image_size {side} and patch_size {patch} make {1 + (side // patch) ** 2} '
      f'tokens, but the weights have positions for {tokens}'
    )


def t5_settings(config: Config) -> dict[str, Any]:
  """Returns the settings of `config.model` for a T5.

  Raises:
    InputError: our T5 does not support one of the settings.
  """
  projection = config.choice(
    'feed_forward_proj', 'relu', {name: name for name in T5_ACTIVATIONS}
  )
  gated = projection == 'gated-gelu'
  # transformers also writes these, and uses them.
  config.only('is_gated_act', gated)
  config.only('dense_act_fn', 'gelu_new' if gated else 'relu')
  config.only('relative_attention_num_buckets', RELATIVE_BUCKETS)
  config.only('relative_attention_max_distance', MAX_DISTANCE)
  config.only('layer_norm_epsilon', 1e-6)
  layers = config.count(*T5_SIZES['t5.encoder_layers'])
  # transformers 5 always ties, and has a separate field for whether to scale.
  tied = config.flag('scale_decoder_outputs', config.flag('tie_word_embeddings', True))
  return {
    **{ours: config.count(*theirs) for ours, theirs in T5_SIZES.items()},
    't5.decoder_layers': config.count('num_decoder_layers', layers),
    't5.activations': T5_ACTIVATIONS[projection],
    't5.tied_logits': tied,
  }


def check_t5(
  config: Config, settings: Mapping[str, Any], found: Mapping[str, Any]
) -> None:
  """Raises InputError if the sizes in config.json differ from those of the arrays.

  Args:
    found: the settings that the arrays determine.
  """
  if not found['t5.decoder_layers']:
    config.fail(
      'the weights are those of an encoder only, but the decoder is also needed: save '
      'a T5ForConditionalGeneration'
    )
  decoder = {'t5.decoder_layers': ('num_decoder_layers', settings['t5.encoder_layers'])}
  activations = {'t5.activations': ('feed_forward_proj', 'relu')}
  _check_sizes(config, T5_SIZES | decoder | activations, settings, found)


def _check_sizes(
  config: Config,
  fields: Mapping[str, tuple[str, Any]],
  settings: Mapping[str, Any],
  found: Mapping[str, Any],
) -> None:
  for ours, (theirs, default) in fields.items():
    if settings[ours] != found[ours]:
      absent = config.get(theirs, None) is None
      config.fail(
        f'{theirs} is {config.get(theirs, default)!r}'
        f'{" by default" if absent else ""}, but the weights have '
        f'{found[ours]!r}; use the config.json that belongs to them'
      )
