"""What is known of generated pairs: their truth.json, see `datasets.shapes.pairs`."""

import os
from collections.abc import Mapping
from typing import NamedTuple

from etils import epath

from rahf.fileio import strict_json

TRUTH = 'truth.json'


class PairTruth(NamedTuple):
  """What is known of pairs; nothing of those of people.

  Attributes:
    quality: by generator, higher is better; None for one without images.
    ceilings: by split, the best possible accuracies by name.
  """

  quality: Mapping[str, float | None]
  ceilings: Mapping[str, Mapping[str, float]]


def read_truth(folder: os.PathLike | str) -> PairTruth:
  """Returns what is known of the pairs in a folder.

  Raises:
    InputError: the file is damaged.
  """
  path = epath.Path(folder) / TRUTH
  if not path.exists():
    return PairTruth({}, {})
  found = strict_json.read_own(path, 'delete the folder, to generate the pairs again')
  return PairTruth(found.get('quality', {}), found.get('ceilings', {}))
