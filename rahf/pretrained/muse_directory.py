"""A directory with a trained Muse, or with the autoencoder of one.

  generator.json      sizes, sampling, data, and size and SHA-256 of the weights
  model.safetensors   parameters by path, such as 'transformer/block_0/…'
  tokenizer/          CLIP's vocabulary
  README.md           model card

`--mode=export` writes it. Nothing in it is run as code.
"""

import json
from collections.abc import Mapping
from typing import Any

from etils import epath

from rahf.errors import InputError
from rahf.fileio import digests, strict_json
from rahf.fileio.digests import Digest
from rahf.pretrained import exported
from rahf.pretrained.source import Source
from rahf.pretrained.tensors import read_safetensors
from rahf.version import __version__

FORMAT = 1
DESCRIPTION, WEIGHTS, TOKENIZER = 'generator.json', 'model.safetensors', 'tokenizer'
CARD = 'README.md'


def to_json(
  muse: Mapping[str, Any], sampling: Mapping[str, Any], step: int, weights: Digest
) -> str:
  """Returns the text of generator.json.

  Args:
    muse, sampling: as `config.muse` and `config.sampling`.
    step: of the training.
    weights: digest of the file of weights.
  """
  fields = {
    'format': FORMAT,
    'rahf': __version__,
    'step': step,
    'muse': muse,
    'sampling': sampling,
    'files': {WEIGHTS: {'bytes': weights.bytes, 'sha256': weights.sha256}},
  }
  return json.dumps(fields, indent=2) + '\n'


def read_description(folder: epath.Path) -> dict[str, Any]:
  """Reads generator.json.

  Raises:
    InputError: it is damaged, or of another format.
  """
  path = folder / DESCRIPTION
  with exported.reading(path):
    fields = strict_json.read(path)
    if fields['format'] != FORMAT:
      raise InputError(
        f'{path} has format {fields["format"]!r:.80}, but rahf {__version__} reads '
        f'{FORMAT}; export the model again, or use rahf {fields["rahf"]!r:.80}'
      )
    for name in ('muse', 'sampling', 'files'):
      if not isinstance(fields[name], dict):
        raise TypeError(f'{name} is not an object')
    Digest(**fields['files'][WEIGHTS])
    return fields


def open_muse_directory(folder: epath.Path) -> Source:
  """Opens a directory that `--mode=export` wrote; reads no arrays.

  Raises:
    InputError: it is damaged.
  """
  fields, path = read_description(folder), folder / WEIGHTS
  exported.require(path)
  digests.check(path, WEIGHTS, {WEIGHTS: Digest(**fields['files'][WEIGHTS])})
  return Source(
    kind='Muse of rahf',
    path=str(folder),
    weights=read_safetensors(path),
    ignored={},
    settings=exported.settings(fields['muse'], 'muse.'),
  )
