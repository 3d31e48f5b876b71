"""From the data section of a config to a prepared directory and its tokenizer."""

from etils import epath

from rahf.data.tokenizer import Tokenizer
from rahf.errors import InputError

TOKENIZER_FILE = 'tokenizer.model'


def prepared_directory(options) -> epath.Path:
  """Returns the directory of the data set that `config.data` names.

  Shapes are generated if they are not there yet; RichHF-18K is prepared by
  `python -m rahf.data prepare`.

  Raises:
    InputError: RichHF-18K has not been prepared below `options.dir`.
  """
  if options.name == 'shapes':
    from rahf.data.datasets.shapes import prepare_shapes

    return epath.Path(prepare_shapes(options.dir, **options.shapes))
  versions = epath.Path(options.dir) / options.name
  found = sorted(versions.glob('*/dataset_info.json')) if versions.exists() else []
  if not found:
    raise InputError(
      f'{versions} holds no prepared data set; run `python -m rahf.data prepare '
      f'{options.name} --labels … --images … --out {options.dir}`, or point '
      'config.data.dir to where that was done'
    )
  return found[-1].parent


def open_tokenizer(path: str, directory: epath.Path) -> Tokenizer:
  """Opens `config.tokenizer`, or if that is '' the one beside the data.

  Raises:
    InputError: there is no readable SentencePiece model.
  """
  if path:
    return Tokenizer(path)
  beside = directory / TOKENIZER_FILE
  if not beside.exists():
    raise InputError(
      f'config.tokenizer is empty and {directory} has no {TOKENIZER_FILE}; set '
      'config.tokenizer to a SentencePiece model such as T5\'s "spiece.model"'
    )
  return Tokenizer(beside)
