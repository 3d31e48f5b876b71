"""Finds the data set and the tokenizer that a config names."""

from etils import epath

from rahf.data.schema import DATASET_INFO, TOKENIZER_FILE
from rahf.data.tokenizer import Tokenizer
from rahf.errors import InputError
from rahf.fileio import paths

# Data sets that are generated if they are missing.
GENERATED = ('shapes', 'shapes_captions')


def prepared_directory(options, name: str) -> epath.Path:
  """Returns the directory of the newest version of a data set below `options.dir`.

  Those of GENERATED are made if missing; others must have been prepared with
  `python -m rahf.data prepare`.

  Args:
    options: `config.data`.

  Raises:
    InputError: it has not been prepared below `options.dir`.
  """
  folder = paths.find(options.dir, 'config.data.dir')
  if name in GENERATED:
    from rahf.data.datasets.shapes.builder import prepare_shapes

    captions = name == 'shapes_captions'
    return epath.Path(prepare_shapes(folder, **options.shapes, captions=captions))
  prepared = (path.parent for path in folder.glob(f'*/*/{DATASET_INFO}'))
  versions = {path.parent.name: path for path in sorted(prepared)}
  if name not in versions:
    found = ', '.join(versions) or 'none'
    raise InputError(
      f'{folder / name} has no prepared data set (found below {folder}: {found}); run '
      f'`python -m rahf.data prepare … --out {options.dir}`, or set config.data.dir to '
      'the folder given as --out'
    )
  return versions[name]


def open_tokenizer(path: str, directory: epath.Path) -> Tokenizer:
  """Opens `config.tokenizer`, or the data set's own if that is ''.

  Raises:
    InputError: there is no readable SentencePiece model.
  """
  if path:
    return Tokenizer(path)
  own = directory / TOKENIZER_FILE
  if not own.exists():
    raise InputError(
      f'config.tokenizer is empty and {directory} has no {TOKENIZER_FILE}; set '
      'config.tokenizer to a SentencePiece model such as T5\'s "spiece.model"'
    )
  return Tokenizer(own)
