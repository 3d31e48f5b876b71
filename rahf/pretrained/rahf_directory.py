"""A RAHF that `--mode=export` wrote, as the weights that a training starts from.

`rahf.inference.model_directory` describes the directory and reads it to score images.
"""

from etils import epath

from rahf.errors import InputError
from rahf.fileio import digests, strict_json
from rahf.fileio.digests import Digest
from rahf.pretrained import exported
from rahf.pretrained.source import FREE, Source
from rahf.pretrained.tensors import read_safetensors
from rahf.version import __version__

DESCRIPTION, WEIGHTS, TOKENIZER = 'model.json', 'model.safetensors', 'tokenizer.model'
# See `rahf.inference.model_directory`.
FORMATS = (1, 2, 3)
# Before the terms of the weights that the training started from, which go on to apply.
LICENCE = '## Licence'
# The number of patches may differ, since position embeddings can be resampled.
_NOT_REQUIRED = (*FREE, 'image_size')


def open_rahf_directory(folder: epath.Path) -> Source:
  """Opens a model directory; reads no arrays.

  Raises:
    InputError: it is damaged.
  """
  path = folder / DESCRIPTION
  with exported.reading(path):
    fields = strict_json.read(path)
    if fields['format'] not in FORMATS:
      raise InputError(
        f'{path} has format {fields["format"]!r:.80}, but rahf {__version__} reads '
        f'{FORMATS}; update it, or export the model again'
      )
    settings = exported.settings(fields['architecture'], without=_NOT_REQUIRED)
    # Older versions did not store digests.
    files = {name: Digest(**one) for name, one in fields.get('files', {}).items()}
    _, _, licence = fields['weights'].partition(LICENCE)
    data = ', '.join(fields['data']) or 'unknown data'
  for name in (WEIGHTS, TOKENIZER):
    exported.require(folder / name)
    digests.check(folder / name, name, files)
  return Source(
    kind=f'RAHF of rahf, trained on {data}',
    path=str(folder),
    weights=read_safetensors(folder / WEIGHTS),
    ignored={},
    settings=settings,
    licence=licence.strip(),
    tokenizer=(folder / TOKENIZER).read_bytes(),
  )
