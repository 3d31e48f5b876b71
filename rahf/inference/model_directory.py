"""A model directory: everything that scoring needs, and nothing that can run code.

  model.json          format, architecture, preprocessing, outputs, data, metrics
  model.safetensors   parameters by path, such as 'vit/embedding/kernel'
  params/             the same for Orbax
  tokenizer.model     SentencePiece
  README.md           model card

It refers to nothing outside and can be moved. `program.jaxexport` is there by option.
"""

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import safetensors
from etils import epath
from flax import traverse_util

from rahf import config as config_lib
from rahf.data import schema
from rahf.data.images import codec
from rahf.data.tokenizer import MARK, Tokenizer, tasks
from rahf.errors import InputError
from rahf.fileio import strict_json, validators
from rahf.fileio.local_file import local_file
from rahf.inference import output_ranges
from rahf.models.init import abstract_params
from rahf.models.rahf import RAHF, RAHFConfig
from rahf.runtime.tree import by_path
from rahf.settings import DECODERS
from rahf.version import __version__

# Counted up where older code could no longer read a directory rightly.
FORMAT = 1
DESCRIPTION, WEIGHTS, ORBAX = 'model.json', 'model.safetensors', 'params'
TOKENIZER, CARD, PROGRAM = 'tokenizer.model', 'README.md', 'program.jaxexport'
SUPPORTED = 'a local directory, or one in a bucket (gs://…, s3://…)'
SHOWN_PROBLEMS = 10
# Of a description's fields, the architecture excepted.
RULES: dict[str, validators.Rule] = {
  'step': validators.whole(0),
  **dict.fromkeys(('text_length', 'target_length'), validators.whole(1, 2**14)),
  'decoder': validators.one_of(DECODERS),
  'threshold': validators.optional(validators.real(-1, 2)),
  'threshold_split': validators.one_of(schema.SPLITS),
  'data': validators.mapping(
    validators.fields(weight=validators.real(0), terms=validators.text)
  ),
  'weights': validators.text,
  'metrics': validators.mapping(
    validators.mapping(validators.optional(validators.real(-math.inf)))
  ),
  'version': validators.text,
}


@dataclasses.dataclass(frozen=True)
class Description:
  """What model.json says of a model.

  Attributes:
    model: its sizes.
    step: of training.
    text_length, target_length: tokens of a text, and of the prompt with its marks.
    decoder: of keywords, as `config.keywords.decoder`.
    threshold: a word is misaligned above it; chosen on `threshold_split`. None where
      no evaluation has left one.
    data: what it was trained on, by name: weight, and terms as far as known.
    weights: what training started from: paths and terms, in words.
    metrics: of this step, by split and name; see `rahf/evaluation/samples.py`.
    version: of rahf, that wrote the directory.
  """

  model: RAHFConfig
  step: int
  text_length: int
  target_length: int
  decoder: str = 'sequential'
  threshold: float | None = None
  threshold_split: str = 'dev'
  data: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  weights: str = ''
  metrics: Mapping[str, Mapping[str, float | None]] = dataclasses.field(
    default_factory=dict
  )
  version: str = __version__


def to_json(description: Description) -> str:
  """Returns model.json, complete for readers without this code."""
  config = dataclasses.asdict(description)
  model = config.pop('model')
  settings = {
    'format': FORMAT,
    'rahf': config.pop('version'),
    'step': config.pop('step'),
    'architecture': model,
    'preprocessing': {
      'image': {
        'size': model['image_size'],
        'channels': 'RGB, 8 bits; upright by EXIF, transparency over white',
        'resize': 'both sides to size, bilinear with antialiasing',
        'range': [float(codec.to_signed(0)), float(codec.to_signed(1))],
        'layout': 'height, width, channel; row 0 at the top',
      },
      'text': {
        'variant': model['variant'],
        'tasks': list(tasks(model['variant'])),
        'length': config.pop('text_length'),
        'target_length': config.pop('target_length'),
        'mark': MARK,
      },
    },
    'outputs': {
      'scores': _outputs(schema.SCORES, output_ranges.SCORES, output_ranges.SCORE),
      'maps': _outputs(schema.MAPS, output_ranges.MAPS, output_ranges.MAP),
      'keywords': {
        'meaning': output_ranges.KEYWORDS,
        **output_ranges.KEYWORD.to_dict(),
        'decoder': config.pop('decoder'),
        'threshold': config.pop('threshold'),
        'threshold_split': config.pop('threshold_split'),
      },
    },
  }
  return json.dumps(settings | config, indent=2, ensure_ascii=False) + '\n'


def _outputs(
  names: tuple[str, ...], meanings: dict[str, str], scale: output_ranges.Scale
) -> list[dict[str, Any]]:
  return [
    {'name': name, 'meaning': meanings[name], **scale.to_dict()} for name in names
  ]


def find(path: str | os.PathLike) -> epath.Path:
  """Returns where a model directory is.

  Raises:
    InputError: there is none, or it cannot be reached; says what there is.
  """
  if not isinstance(path, str | os.PathLike):
    raise InputError(f'{path!r} is not the path of a model directory; give {SUPPORTED}')
  name = os.fspath(path)
  if '://' in name and not name.startswith(('gs://', 's3://')):
    raise InputError(f'{name} cannot be opened; give {SUPPORTED}')
  folder = epath.Path(path).expanduser()
  try:
    found = (folder / DESCRIPTION).exists()
  except Exception as error:  # Each client of a bucket has errors of its own.
    if '://' not in name:
      raise
    raise InputError(f'{name} cannot be reached: {error}') from error
  if found:
    return folder
  if not folder.exists():
    raise InputError(f'{name} does not exist; give {SUPPORTED}')
  if (folder / 'checkpoints').exists():
    inside = folder / 'export'
    hint = (
      f'give {inside}'
      if (inside / DESCRIPTION).exists()
      else 'export it first, with --mode=export'
    )
    raise InputError(f'{name} is a work directory, not a model directory; {hint}')
  raise InputError(
    f'{name} is not a model directory, it has no {DESCRIPTION}; python -m rahf.main '
    '--mode=export writes one'
  )


def read_description(folder: epath.Path) -> Description:
  """Reads model.json.

  Raises:
    InputError: it is damaged, of another format, or names settings or
      outputs that this version does not have.
  """
  path = folder / DESCRIPTION
  try:
    settings = strict_json.read(path)
    check_format(path, settings['format'], settings.get('rahf'))
    text, words = settings['preprocessing']['text'], settings['outputs']['keywords']
    model = _read_architecture(path, settings['architecture'])
    _check_meaning(path, settings, model)
    found = Description(
      model=model,
      step=settings['step'],
      text_length=text['length'],
      target_length=text['target_length'],
      decoder=words['decoder'],
      threshold=words['threshold'],
      threshold_split=words['threshold_split'],
      data=settings['data'],
      weights=settings['weights'],
      metrics=settings['metrics'],
      version=settings['rahf'],
    )
    for field, rule in RULES.items():
      if problem := rule(getattr(found, field)):
        raise ValueError(f'{field} = {getattr(found, field)!r:.80} {problem}')
    return found
  except InputError:
    raise
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise InputError(
      f'{path} is damaged ({type(error).__name__}: {error!s:.500}); export the model '
      'again'
    ) from None


def check_format(path: epath.Path, found: Any, version: Any) -> None:
  """Raises InputError unless this version of rahf can read the format."""
  if found == FORMAT:
    return
  if isinstance(found, int) and found > FORMAT:
    raise InputError(
      f'{path} has format {found!s:.80}, written by rahf {version!r:.80}; this is rahf '
      f'{__version__}, which reads format {FORMAT}: update it, with pip install . '
      'in a newer checkout'
    )
  raise InputError(
    f'{path} has format {found!r:.80}, written by rahf {version!r:.80}; this is rahf '
    f'{__version__}, which reads format {FORMAT}: export the model again from its '
    'work directory, or use that version'
  )


def _read_architecture(path: epath.Path, settings: dict) -> RAHFConfig:
  """Returns the sizes; a field that was not there yet has its default."""
  config = config_lib.default_config()
  unknown = _unknown(config.model.to_dict(), settings)
  if unknown:
    raise InputError(
      f'{path} has architecture.{unknown:.80}, which rahf {__version__} does not '
      'know; update rahf'
    )
  config.model.update(settings)
  try:
    config_lib.validate(config)
  except InputError as error:
    raise InputError(f'{path}: {error}') from None
  return config_lib.model_config(config)


def _unknown(known: dict, given: dict, prefix: str = '') -> str:
  for name, value in given.items():
    if name not in known:
      return prefix + name
    if isinstance(known[name], dict) and (
      inner := _unknown(known[name], value, f'{prefix}{name}.')
    ):
      return inner
  return ''


def _check_meaning(path: epath.Path, settings: dict, model: RAHFConfig) -> None:
  """Checks that scores, maps and texts mean what this code takes them for."""
  outputs, text = settings['outputs'], settings['preprocessing']['text']
  for what, found, here in (
    ('scores', [one['name'] for one in outputs['scores']], schema.SCORES),
    ('maps', [one['name'] for one in outputs['maps']], schema.MAPS),
    ('task strings', text['tasks'], tasks(model.variant)),
  ):
    if tuple(found) != tuple(here):
      raise InputError(
        f'{path} has the {what} {found!r:.300}, but rahf {__version__} has '
        f'{list(here)}; use rahf {settings["rahf"]!r:.80}'
      )
  if outputs['keywords']['decoder'] not in DECODERS:
    raise InputError(
      f'{path} has the decoder {outputs["keywords"]["decoder"]!r:.80}; this version '
      f'has {", ".join(DECODERS)}: update rahf'
    )


def read_tokenizer(folder: epath.Path, model: RAHFConfig) -> Tokenizer:
  """Opens the directory's tokenizer.

  Raises:
    InputError: it cannot be read, or has more pieces than the model.
  """
  path = folder / TOKENIZER
  try:
    tokenizer = Tokenizer(path)
  except InputError as error:
    raise InputError(
      f'{path} is missing or damaged; copy or export the model again ({error})'
    ) from None
  tokenizer.check_vocabulary(model.t5.vocab_size)
  return tokenizer


def read_params(folder: epath.Path, model: RAHF) -> dict[str, Any]:
  """Reads all parameters, one array after the other, as arrays of NumPy.

  Raises:
    InputError: the file is missing or damaged, or names, shapes or dtypes are not
      those of the model; says which.
  """
  path = folder / WEIGHTS
  if not path.exists():
    raise InputError(f'{path} does not exist; export the model again')
  file = local_file(path)
  try:
    with safetensors.safe_open(file.path, 'numpy') as stored:
      expected = by_path(abstract_params(model))
      _check_arrays(path, stored, expected)
      arrays = {name: stored.get_tensor(name) for name in expected}
  except safetensors.SafetensorError as error:
    raise InputError(f'{path} is damaged ({error}); copy or export it again') from None
  return traverse_util.unflatten_dict(arrays, sep='/')


def _check_arrays(
  path: epath.Path, stored: Any, expected: Mapping[str, jax.ShapeDtypeStruct]
) -> None:
  found = {name: stored.get_slice(name) for name in stored.keys()}  # noqa: SIM118
  described = {
    name: f'{part.get_dtype()}{part.get_shape()}' for name, part in found.items()
  }
  wanted = {
    name: f'{_dtype_name(leaf.dtype)}{list(leaf.shape)}'
    for name, leaf in expected.items()
  }
  problems = [
    f'{name} is {described.get(name, "missing")}, the model has '
    f'{wanted.get(name, "no such array")}'
    for name in sorted(described.keys() | wanted.keys())
    if described.get(name) != wanted.get(name)
  ]
  if problems:
    more = len(problems) - SHOWN_PROBLEMS
    tail = [f'… and {more} more'] if more > 0 else []
    raise InputError(
      f'{path} does not fit the architecture in {DESCRIPTION}:\n  '
      + '\n  '.join(problems[:SHOWN_PROBLEMS] + tail)
    )


def _dtype_name(dtype: np.dtype) -> str:
  """Returns what safetensors calls a dtype of floats."""
  return f'F{8 * np.dtype(dtype).itemsize}'
