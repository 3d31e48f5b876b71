"""Exports the public weights of a whole RAHF as a model directory, without training.

  python -m rahf.main --config=configs/rahf_torch.py \\
    --config.init.rahf=rahf_model.pt --config.tokenizer=spiece.model \\
    --mode=export --config.export.dir=DIR

Sizes and options stored in the file override the config. The config sets text lengths,
keyword decoding and, unless the ViT is a released one, its number of attention heads.
No data set is read.
"""

from typing import Any

import numpy as np
from etils import epath
from flax import traverse_util
from ml_collections import ConfigDict

from rahf import config as config_lib
from rahf.data.tokenizer import Tokenizer
from rahf.errors import InputError
from rahf.fileio import paths
from rahf.inference import model_directory
from rahf.inference.model_directory import Description
from rahf.inference.write_directory import Content, export_content
from rahf.models.init import abstract_params
from rahf.models.rahf import RAHF
from rahf.pretrained import loading
from rahf.pretrained.card import weights_section
from rahf.pretrained.source import Source
from rahf.runtime.preemption import Interruption
from rahf.runtime.tree import by_path
from rahf.workdir import ownership

# File names of T5's tokenizer next to weights, in search order.
TOKENIZERS = ('spiece.model', 'tokenizer.model')
# Rows of T5's embedding, and how its tokenizer spells the mark.
T5_ROWS, T5_MARK = 32128, (834, 632)
WHERE_TOKENIZER = (
  'the weights need the tokenizer that they were trained with, which is not in their '
  "file: give T5's with --config.tokenizer=spiece.model (from t5-base on "
  'huggingface.co), or put it next to the weights'
)


def export_weights(
  config: ConfigDict, workdir: epath.Path, interruption: Interruption
) -> None:
  """Exports the weights that `config.init.rahf` names and prints how to use them.

  Args:
    workdir: neither read nor written; if it has a checkpoint, a hint mentions it.

  Raises:
    InputError: the weights or their tokenizer cannot be read, the weights are not a
      whole model, or config.export.dir is empty.
    Interrupted: SIGTERM or Ctrl-C came; nothing has changed.
  """
  config_lib.validate(config)
  started = ownership.is_started(workdir)
  trained = f'; --workdir={workdir} exports the checkpoint there' if started else ''
  path = paths.find(config.init.rahf, 'config.init.rahf')
  if not config.export.dir:
    raise InputError(
      f'config.export.dir is empty; set where to write the model of {path} with '
      f'--config.export.dir=DIR{trained}'
    )
  _refuse_rahf_output(path)
  print(f'Exporting {path} as it is, without training{trained}')
  folder = paths.absolute(paths.find(config.export.dir, 'config.export.dir'))
  export_content(
    folder,
    lambda: read_content(config, path),
    interruption,
    program=config.export.program,
  )


def read_content(config: ConfigDict, path: epath.Path) -> Content:
  """Reads weights and tokenizer, and builds the model's description.

  Raises:
    InputError: see `export_weights`.
  """
  vit = config_lib.model_config(config).vit
  source = loading.open_sources(config.init, vit)['rahf']
  if 'variant' not in source.settings:
    raise InputError(
      f'config.init.rahf = {path} is a {source.kind}, which has no heads for scores '
      'and maps; only a whole model can be exported without training'
    )
  config = apply_settings(config, source)
  model = config_lib.exported_model(config)
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
  return Content(description, _read(plan), tokenizer)


def apply_settings(config: ConfigDict, source: Source) -> ConfigDict:
  """Returns the config with the model settings of the file; prints what changes.

  Raises:
    InputError: the settings do not describe a model that can be built.
  """
  config = config.copy_and_resolve_references()
  before = config.model.to_dict()
  with config.unlocked():
    config.model.update_from_flattened_dict(source.settings)
  # The original computes in float32; bfloat16 only speeds up training.
  config.export.dtype = config.export.dtype or 'float32'
  try:
    config_lib.validate(config)
  except InputError as error:
    raise InputError(f'{source.path} has invalid sizes: {error}') from None
  print(f'The model computes in {config.export.dtype} (config.export.dtype)')
  if changed := config_lib.differences(config.model.to_dict(), before, 'config.model'):
    print('Taken from the file ("there"), not from the config ("here"):')
    print('\n'.join(f'  {line}' for line in changed))
  return config


def _read(plan: loading.Plan) -> dict[str, Any]:
  """Returns all parameters as nested NumPy arrays."""
  # Arrays of the file are transposed views; the copy is contiguous.
  arrays = {path: np.asarray(plan.read_one(path), order='C') for path in plan.params}
  return traverse_util.unflatten_dict(arrays, sep='/')


def find_tokenizer(setting: str, weights: epath.Path) -> Tokenizer:
  """Opens the tokenizer of the weights.

  This is the file in `config.tokenizer`, or one next to the weights, or T5's public
  one, which is in a bucket.

  Args:
    setting: `config.tokenizer`.

  Raises:
    InputError: there is none, or it cannot be read.
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
  except Exception as error:  # Every bucket client raises its own errors.
    raise InputError(
      f'{WHERE_TOKENIZER}. {config_lib.T5_VOCABULARY} could not be reached: {error}'
    ) from None


def check_tokenizer(tokenizer: Tokenizer, rows: int) -> None:
  """Checks, as far as possible, that a tokenizer belongs to the embedding.

  Raises:
    InputError: it is too large, or the embedding is T5's and the tokenizer is not.
  """
  tokenizer.check_vocabulary(rows)
  if rows == T5_ROWS and tokenizer.mark_ids != T5_MARK:
    raise InputError(
      f'the tokenizer has {tokenizer.size:,} pieces and is not that of T5, but the '
      f"weights have T5's embedding of {rows:,} rows; {WHERE_TOKENIZER}"
    )


def _refuse_rahf_output(path: epath.Path) -> None:
  """Raises InputError if rahf itself wrote the path."""
  if (path / model_directory.DESCRIPTION).exists():
    raise InputError(
      f'config.init.rahf = {path} is already a model directory: use it with rahf.load, '
      '--mode=infer --model or rahf.serve'
    )
  if (path / 'checkpoints').exists():
    raise InputError(
      f'config.init.rahf = {path} is a work directory; to export its '
      f'checkpoint, give --workdir={path} and the config of that run'
    )
