"""A model directory: everything that scoring needs, and nothing that is run as code.

  model.json          format, architecture, preprocessing, outputs, data, metrics, and
                      the size and SHA-256 of every other file but the card
  model.safetensors   parameters by path, such as 'vit/embedding/kernel'
  params/             the same for Orbax
  tokenizer.model     SentencePiece
  README.md           model card
  program.jaxexport   the inference step, optional

It does not refer to other files and can be moved. Files are compared with their SHA-256
when they are read; older versions wrote a model.json without them.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

from etils import epath

from rahf import config as config_lib
from rahf.config.settings import DECODERS
from rahf.data import schema
from rahf.data.images import codec
from rahf.data.tokenizer import MARK, tasks
from rahf.errors import InputError
from rahf.fileio import strict_json, validators
from rahf.fileio.digests import Digest
from rahf.inference import output_ranges
from rahf.models.rahf import RAHFConfig
from rahf.pretrained import exported
from rahf.pretrained.rahf_directory import DESCRIPTION, TOKENIZER, WEIGHTS
from rahf.pretrained.rahf_torch import TASK_PREFIXES as TORCH_PREFIXES
from rahf.version import __version__

# The format is raised where older code would read a directory wrongly: in 2, prompts
# may be read as joined words; 3 is trained on captions alone and cannot score. What
# older code can read is still written as 1.
FORMAT, JOINED_WORDS_FORMAT, CAPTIONS_FORMAT = 1, 2, 3
ORBAX, CARD, PROGRAM = 'params', 'README.md', 'program.jaxexport'
# How a prompt is read, by its name in model.json: whether as joined words.
PROMPTS = {'as written': False, 'its words, joined by single spaces': True}
# The field of model.json with the SHA-256 of all other fields.
SEAL = 'sha256'
# Valid values of a description's fields, except the architecture.
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
_FILE = validators.fields(bytes=validators.whole(0, 2**63), sha256=validators.text)


@dataclasses.dataclass(frozen=True)
class Description:
  """The contents of model.json.

  Attributes:
    model: the architecture.
    step: the training step.
    text_length, target_length: tokens of a text, and of the prompt with its marks.
    decoder: of keywords, as `config.keywords.decoder`.
    threshold: a word with a higher probability is misaligned; chosen on
      `threshold_split`. None if no evaluation has chosen one.
    data: data sets of training by name: weight, and terms as far as known.
    weights: paths and terms of the weights that training started from, as text.
    metrics: of this step, by split and name; see `rahf/evaluation/samples.py`.
    version: the version of rahf that wrote the directory.
    tasks: the string before the prompt in each text; None for rahf's own.
    joined_words: whether the prompt is read without punctuation, as its words joined
      by single spaces.
    captions_only: whether it was trained on captions alone, so that it can be trained
      further, but not score.
    files: digests of the other files; empty if an older version wrote the directory.
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
  tasks: tuple[str, ...] | None = None
  joined_words: bool = False
  captions_only: bool = False
  files: Mapping[str, Digest] = dataclasses.field(default_factory=dict)

  @property
  def image_size(self) -> int:
    return self.model.image_size

  @property
  def outputs(self) -> output_ranges.ModelOutputs:
    return output_ranges.RAHF_OUTPUTS

  @property
  def summary(self) -> str:
    data = f' on {", ".join(self.data)}' if self.data else ''
    return f'RAHF, trained for {self.step:,} steps{data}'

  @property
  def fingerprint(self) -> str:
    """SHA-256 of everything that results depend on; '' without digests of the files.

    Stays the same if a checkpoint is exported again.
    """
    if not self.files:
      return ''
    read = {name: self.files.get(name) for name in (WEIGHTS, TOKENIZER)}
    return _sha256(dataclasses.asdict(dataclasses.replace(self, files=read)))


def to_json(description: Description) -> str:
  """Returns the text of model.json, complete for readers without this code."""
  config, outputs = dataclasses.asdict(description), description.outputs
  model = config.pop('model')
  variant, joined = model['variant'], config.pop('joined_words')
  captions = config.pop('captions_only')
  (prompt,) = (text for text, is_joined in PROMPTS.items() if is_joined == joined)
  settings = {
    'format': _format(joined, captions),
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
        'variant': variant,
        'prompt': prompt,
        'tasks': list(config.pop('tasks') or tasks(variant)),
        'length': config.pop('text_length'),
        'target_length': config.pop('target_length'),
        'mark': MARK,
      },
    },
    'outputs': {
      'scores': _named(outputs.scores),
      'maps': _named(outputs.maps),
      'keywords': {
        **outputs.keywords.to_dict(),
        'decoder': config.pop('decoder'),
        'threshold': config.pop('threshold'),
        'threshold_split': config.pop('threshold_split'),
      },
    },
  }
  settings |= config
  return json.dumps(_sealed(settings), indent=2, ensure_ascii=False) + '\n'


def _format(joined_words: bool, captions_only: bool) -> int:
  if captions_only:
    return CAPTIONS_FORMAT
  return JOINED_WORDS_FORMAT if joined_words else FORMAT


def _sealed(settings: dict[str, Any]) -> dict[str, Any]:
  return settings | {SEAL: _sha256(settings)}


def _sha256(settings: Any) -> str:
  """Returns a digest of the values, independent of how JSON spells them."""
  return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _named(outputs: Mapping[str, output_ranges.Output]) -> list[dict[str, Any]]:
  return [{'name': name, **one.to_dict()} for name, one in outputs.items()]


def read_description(folder: epath.Path) -> Description:
  """Reads model.json.

  Raises:
    InputError: it is damaged, was changed, has another format, names settings or
      outputs that this version does not have, or was trained on captions alone.
  """
  path = folder / DESCRIPTION
  with exported.reading(path):
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
      tasks=_read_tasks(path, settings, model),
      joined_words=PROMPTS[text.get('prompt', 'as written')],
      files=_read_files(settings),
    )
    for field, rule in RULES.items():
      if problem := rule(getattr(found, field)):
        raise ValueError(f'{field} = {getattr(found, field)!r:.80} {problem}')
    _check_seal(path, settings)
    return found


def _read_files(settings: dict[str, Any]) -> dict[str, Digest]:
  files = settings.get('files', {})
  if problem := validators.mapping(_FILE)(files):
    raise ValueError(f'files {problem}')
  return {name: Digest(**file) for name, file in files.items()}


def _check_seal(path: epath.Path, settings: dict[str, Any]) -> None:
  """Raises InputError if a value has changed since model.json was written."""
  seal = settings.pop(SEAL, None)
  if seal not in (None, _sha256(settings)):
    raise InputError(
      f'{path} has changed since it was written, by its field {SEAL}: copy the model '
      f'or export it again. If you meant to change it, remove that field'
    )


def check_format(path: epath.Path, found: Any, version: Any) -> None:
  """Raises InputError unless this version of rahf can read the format."""
  known = FORMAT, JOINED_WORDS_FORMAT
  if type(found) is int and found in known:
    return
  if found == CAPTIONS_FORMAT:
    raise InputError(
      f'{path.parent} was trained on captions alone, so that its scores and maps mean '
      'nothing; train it on feedback first, with '
      f'--config.init.rahf={path.parent}'
    )
  remedy = 'export the model again from its work directory, or use that version'
  if isinstance(found, int) and found > max(known):
    remedy = 'update it, with pip install . in a newer checkout'
  raise InputError(
    f'{path} has format {found!r:.80}, written by rahf {version!r:.80}; this is rahf '
    f'{__version__}, which reads formats {known}: {remedy}'
  )


def _read_architecture(path: epath.Path, settings: dict) -> RAHFConfig:
  """Returns the architecture; fields that older versions did not have get defaults."""
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
  """Raises InputError unless scores, maps and decoder are those of this version."""
  outputs = settings['outputs']
  for what, found, here in (
    ('scores', [one['name'] for one in outputs['scores']], schema.SCORES),
    ('maps', [one['name'] for one in outputs['maps']], schema.MAPS),
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


def _read_tasks(
  path: epath.Path, settings: dict, model: RAHFConfig
) -> tuple[str, ...] | None:
  found, own = settings['preprocessing']['text']['tasks'], tasks(model.variant)
  if tuple(found) == own:
    return None
  if tuple(found) == TORCH_PREFIXES and len(TORCH_PREFIXES) == model.texts:
    return TORCH_PREFIXES
  raise InputError(
    f'{path} has the task strings {found!r:.300}, but rahf {__version__} has '
    f'{list(own)}; use rahf {settings["rahf"]!r:.80}'
  )
