"""Reads dataset_info.json, where TFDS lists the shards of a prepared data set."""

import os
import re
from typing import NamedTuple

import tensorflow as tf
from etils import epath

from rahf.data.schema import DATASET_INFO
from rahf.errors import InputError
from rahf.fileio import strict_json


class Info(NamedTuple):
  """The shards of a prepared data set.

  Attributes:
    splits: split -> shard name -> number of records.
  """

  splits: dict[str, dict[str, int]]


def read(folder: os.PathLike | str) -> Info:
  """Reads the file of a prepared directory.

  Raises:
    InputError: it is missing or damaged, or names files outside the directory.
  """
  folder = epath.Path(folder)
  try:
    content = strict_json.read(folder / DATASET_INFO)
    kind = content.get('fileFormat', 'tfrecord')
    splits = {
      split['name']: _shards(f'{content["name"]}-{split["name"]}.{kind}', split)
      for split in content['splits']
    }
  except (OSError, tf.errors.OpError) as error:
    reason: object = error
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    reason = f'it is damaged: {error!r:.200}'
  else:
    return Info(splits)
  raise InputError(
    f'{folder} is not a prepared data set: its {DATASET_INFO} cannot be read '
    f'({reason}); give the folder that `python -m rahf.data prepare` printed'
  )


def _shards(stem: str, split: dict) -> dict[str, int]:
  counts = [int(count) for count in split['shardLengths']]
  if not re.fullmatch(r'\w[\w.-]*', stem):
    raise ValueError(f'{stem!r} is not a valid file name')
  return {
    f'{stem}-{number:05d}-of-{len(counts):05d}': count
    for number, count in enumerate(counts)
  }
