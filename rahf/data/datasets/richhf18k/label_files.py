"""Reads the label files of the RichHF-18K release: TFRecords without image and prompt.

Data format, one `tf.train.Example` per annotated image:
  filename                      bytes    <folder>/<uid>.png
  artifact_score                float    plausibility, [0, 1], higher is better
  misalignment_score            float    alignment, likewise
  aesthetics_score              float    likewise
  overall_score                 float    likewise
  artifact_map                  bytes    implausibility, 8-bit grey PNG or JPEG
  misalignment_map              bytes    likewise
  prompt_misalignment_label     bytes    one digit per word: 1 aligned, 0 misaligned
"""

import os
import pathlib
import re
from collections.abc import Iterator
from typing import NamedTuple

import tensorflow as tf

from rahf.data import schema
from rahf.data.storage.record_index import check_head
from rahf.errors import InputError

# Our names -> the release's; a high `artifact_score` means few artifacts.
SCORES = {
  'plausibility': 'artifact_score',
  'alignment': 'misalignment_score',
  'aesthetics': 'aesthetics_score',
  'overall': 'overall_score',
}
MAPS = {'implausibility': 'artifact_map', 'misalignment': 'misalignment_map'}

# Each TFRecord follows its length and the length's checksum, and precedes its own.
_FRAME_BYTES = 16


class Annotation(NamedTuple):
  """The released labels of one image.

  Attributes:
    uid: stem of `filename`, an image uid of Pick-a-Pic v1.
    scores: order of schema.SCORES.
    maps: encoded images, order of schema.MAPS.
    keyword_labels: space-separated digits, unchanged.
  """

  uid: str
  scores: tuple[float, ...]
  maps: tuple[bytes, ...]
  keyword_labels: str


def find_files(folder: os.PathLike | str) -> dict[str, list[pathlib.Path]]:
  """Returns the label files of each split.

  These are `<split>.tfrecord`, or else all .tfrecord files whose name contains the
  split's name as a separate word (`richhf_train-00000-of-00002.tfrecord`).

  Raises:
    InputError: there is no folder, or a split has no file.
  """
  folder = pathlib.Path(folder)
  if not folder.is_dir():
    raise InputError(
      f'--labels {folder}: no such folder; give the folder with train.tfrecord, '
      'dev.tfrecord and test.tfrecord of the RichHF-18K release'
    )
  names = sorted(path.name for path in folder.iterdir() if '.tfrecord' in path.name)
  files = {}
  for split in schema.SPLITS:
    word = re.compile(rf'(?<![a-z]){split}(?![a-z])')
    exact = f'{split}.tfrecord'
    chosen = (
      [exact] if exact in names else [name for name in names if word.search(name)]
    )
    if not chosen:
      raise InputError(
        f'--labels {folder}: no {exact}; found {", ".join(names) or "none"}'
      )
    files[split] = [folder / name for name in chosen]
  return files


def read(path: os.PathLike | str) -> Iterator[Annotation]:
  """Yields the annotations of one label file.

  Raises:
    InputError: the file is truncated or damaged, or not a label file.
  """
  for number, record in enumerate(_records(pathlib.Path(path))):
    try:
      yield _parse(record)
    except ValueError as error:
      raise InputError(
        f'{path}: record {number} (counted from 0) {error}; is this a label file of '
        'RichHF-18K?'
      ) from None


def _records(path: pathlib.Path) -> Iterator[bytes]:
  """Yields the records, with checksums verified; raises at a damaged one.

  A file truncated exactly between two records looks complete: only the number of
  records can reveal it.
  """
  offset = number = 0
  try:
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
      yield record
      offset += len(record) + _FRAME_BYTES
      number += 1
    # TensorFlow ignores an incomplete header after the last record.
    complete = offset == path.stat().st_size
  except tf.errors.DataLossError:
    complete = False
  if not complete and not number:
    check_head(path)
  if not complete:
    raise InputError(
      f'{path}: record {number} (counted from 0), at byte {offset} of '
      f'{path.stat().st_size}, is truncated or damaged; download the file again'
    )


def _parse(record: bytes) -> Annotation:
  try:
    features = tf.train.Example.FromString(record).features.feature
  except Exception:  # protobuf's DecodeError has no stable home to import from
    raise InputError('is not a tf.train.Example') from None

  def one(name: str, kind: str) -> bytes | float:
    values = getattr(features[name], kind).value if name in features else ()
    if len(values) != 1:
      names = ', '.join(sorted(features)) or 'nothing'
      raise InputError(f'has no single {kind[:-5]} in {name} (its features: {names})')
    return values[0]

  filename = one('filename', 'bytes_list').decode('utf-8')
  uid = pathlib.PurePosixPath(filename).stem
  if not uid:
    raise InputError(f'has no uid in filename {filename!r}')
  return Annotation(
    uid=uid,
    scores=tuple(one(SCORES[name], 'float_list') for name in schema.SCORES),
    maps=tuple(one(MAPS[name], 'bytes_list') for name in schema.MAPS),
    keyword_labels=one('prompt_misalignment_label', 'bytes_list').decode('utf-8'),
  )
