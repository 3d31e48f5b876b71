"""Makes a model directory of public weights of a whole RAHF, without training.

  python -m rahf.main --config=configs/rahf_torch.py \\
    --config.init.rahf=rahf_model.pt --config.tokenizer=spiece.model \\
    --mode=export --config.export.dir=DIR

Sizes and options that the file tells are taken from there, whatever the config says.
The config gives the lengths of texts, how keywords are decoded, and the number of the
ViT's attention heads, if that is not one of the released ViTs. No data are read.
"""

from typing import Any

import numpy as np
from etils import epath
from flax import traverse_util
from ml_collections import ConfigDict

from rahf import config as config_lib
from rahf import export, model_directory, places, work_directory
from rahf.data.tokenizer import Tokenizer
from rahf.errors import InputError
from rahf.interruption import Interruption
from rahf.model_directory import Description
from rahf.models.rahf import RAHF
from rahf.pretrained import loading
from rahf.pretrained.card import weights_section
from rahf.pretrained.source import Source
from rahf.state import abstract_params
from rahf.tree import by_path

# What T5's tokenizer is called beside weights, in the order in which it is looked for.
TOKENIZERS = ('spiece.model', 'tokenizer.model')
# Of T5's embedding, and how its tokenizer spells the mark.
T5_ROWS, T5_MARK = 32128, (834, 632)
WHERE_TOKENIZER = (
  'the weights need the tokenizer that they were trained with, which their file does '
  "not hold: give T5's with --config.tokenizer=spiece.model (the file of that name of "
  't5-base on huggingface.co), or put it beside the weights'
)


def export_weights(
  config: ConfigDict, workdir: epath.Path, interruption: Interruption
) -> None:
  """Exports the weights that `config.init.rahf` names and prints how to use them.

  Args:
    workdir: which is neither read nor written; only named, if it has a checkpoint.

  Raises:
    InputError: the weights or their tokenizer cannot be read, are not a whole model,
      or nothing says where to write.
    Interrupted: SIGTERM or Ctrl-C came; nothing has changed.
  """
  config_lib.validate(config)
  started = work_directory.is_started(workdir)
  trained = f'; --workdir={workdir} exports the checkpoint there' if started else ''
  path = places.find(config.init.rahf, 'config.init.rahf')
  if not config.export.dir:
    raise InputError(
      f'config.export.dir is empty; say where the model of {path} should be written, '
      f'with --config.export.dir=DIR{trained}'
    )
  _refuse_own(path)
  print(f'Exporting {path} as it is, without training{trained}')
  folder = places.find(config.export.dir, 'config.export.dir').absolute()
  export.make(
    folder,
    lambda: gather(config, path),
    interruption,
    program=config.export.program,
  )


def gather(config: ConfigDict, path: epath.Path) -> export.Content:
  """Reads weights and tokenizer, and describes the model.

  Raises:
    InputError: see `export_weights`.
  """
  vit = config_lib.model_config(config).vit
  source = loading.open_sources(config.init, vit)['rahf']
  if 'variant' not in source.settings:
    raise InputError(
      f'config.init.rahf = {path} is a {source.kind}, which has no heads for scores '
      'and maps; only a whole model is exported without training'
    )
  config = fit(config, source)
  model = export.exported_model(config)
  plan = loading.plan({'rahf': source}, by_path(abstract_params(RAHF(model))), model)
  tokenizer = find_tokenizer(config.tokenizer, path)
  check_tokenizer(tokenizer, model.t5.vocab_size)
  print(plan.report())
  description = Description(
    model=model,
    step=0,
    text_length=config.data.text_length,
    target_length=config.data.target_length,
    decoder=config.keywords.decoder,
    threshold_split=config.keywords.threshold_split,
    weights=weights_section(plan),
    tasks=source.tasks,
    joined_words=source.joined_words,
  )
  return export.Content(description, _read(plan), tokenizer)


def fit(config: ConfigDict, source: Source) -> ConfigDict:
  """Returns the config with what the file says of its model, and prints changes.

  Raises:
    InputError: what it says is not a model that can be built.
  """
  config = config.copy_and_resolve_references()
  before = config.model.to_dict()
  with config.unlocked():
    config.model.update_from_flattened_dict(source.settings)
  # The original computes in it; training in bfloat16 is for speed.
  config.export.dtype = config.export.dtype or 'float32'
  try:
    config_lib.validate(config)
  except InputError as error:
    raise InputError(f'{source.path} has sizes that do not fit: {error}') from None
  print(f'The model computes in {config.export.dtype} (config.export.dtype)')
  if changed := config_lib.differences(config.model.to_dict(), before, 'config.model'):
    print('Taken from the file ("there"), not from the config ("here"):')
    print('\n'.join(f'  {line}' for line in changed))
  return config


def _read(plan: loading.Plan) -> dict[str, Any]:
  """Returns all parameters as arrays of NumPy, nested."""
  # Rows in order: arrays of the file are transposed views.
  arrays = {path: np.asarray(plan.read_one(path), order='C') for path in plan.params}
  return traverse_util.unflatten_dict(arrays, sep='/')


def find_tokenizer(setting: str, weights: epath.Path) -> Tokenizer:
  """Opens the tokenizer of weights.

  It is the file that the config names, or else one beside the weights, or else T5's
  public one, which is in a bucket.

  Args:
    setting: `config.tokenizer`.

  Raises:
    InputError: there is none, or it cannot be read; says what to do.
  """
  if setting not in ('', config_lib.T5_VOCABULARY):
    return Tokenizer(setting)
  folder = weights if weights.is_dir() else weights.parent
  for name in TOKENIZERS:
    if (folder / name).exists():
      print(f'Tokenizer: {folder / name}')
      return Tokenizer(folder / name)
  try:
    return Tokenizer(config_lib.T5_VOCABULARY)
  except Exception as error:  # Each client of a bucket has errors of its own.
    raise InputError(
      f'{WHERE_TOKENIZER}. {config_lib.T5_VOCABULARY} could not be reached: {error}'
    ) from None


def check_tokenizer(tokenizer: Tokenizer, rows: int) -> None:
  """Checks that a tokenizer is the one of the embedding, as far as one can know.

  Raises:
    InputError: it is too large, or another one than T5's for T5's embedding.
  """
  tokenizer.check_vocabulary(rows)
  if rows == T5_ROWS and tokenizer.mark_ids != T5_MARK:
    raise InputError(
      f'the tokenizer has {tokenizer.size:,} pieces and is not that of T5, whose '
      f'embedding of {rows:,} rows the weights have; {WHERE_TOKENIZER}'
    )


def _refuse_own(path: epath.Path) -> None:
  """Raises InputError where the path is of a model that rahf itself has written."""
  if (path / model_directory.DESCRIPTION).exists():
    raise InputError(
      f'config.init.rahf = {path} is a model directory already: rahf.load, '
      '--mode=infer --model and rahf.serve read it as it is'
    )
  if (path / 'checkpoints').exists():
    raise InputError(
      f'config.init.rahf = {path} is a work directory; to export its '
      f'checkpoint, give --workdir={path} and the config of that run'
    )
