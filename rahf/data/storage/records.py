"""Random access to the records of a split's TFRecord shards.

The headers are read once to index the start of every record; after that, any record
takes a single read, so training can resume anywhere without reading the preceding ones.
"""

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np
import tensorflow as tf
from etils import epath
from jaxtyping import Int32, Int64

from rahf.data import schema
from rahf.data.storage import dataset_info, index_cache, manifest, record_index
from rahf.errors import InputError

_Parsed = TypeVar('_Parsed')


@dataclasses.dataclass(frozen=True, eq=False)
class RecordSplit:
  """The records of one split, by position; made by `open_split`.

  Attributes:
    directory: the folder of the shards.
    name: the split's name.
    files: the shards, in order.
    shard, offset, length: per record, the index of its file, its start there in bytes,
      and the size of its data in bytes.
  """

  directory: epath.Path
  name: str
  files: tuple[str, ...]
  shard: Int32[np.ndarray, 'n']
  offset: Int64[np.ndarray, 'n']
  length: Int64[np.ndarray, 'n']

  def __len__(self) -> int:
    return len(self.shard)

  def __getitem__(self, position: int) -> schema.Record:
    """Reads one record.

    Raises:
      InputError: the record is damaged.
    """
    if not 0 <= position < len(self):
      raise IndexError(f'record {position} of {len(self)} in {self.name}')
    return self._parse(position, parse_record)

  def features(self, position: int) -> Mapping[str, tf.train.Feature]:
    """Reads one record of any schema.

    Raises:
      InputError: the record is damaged.
    """
    return self._parse(position, parse_features)

  def _parse(self, position: int, parse: Callable[[bytes], _Parsed]) -> _Parsed:
    try:
      return parse(self.read_serialized(position).numpy())
    except (tf.errors.OpError, ValueError) as error:
      reason = error.message if isinstance(error, tf.errors.OpError) else error
      raise InputError(f'{self.where(position)} cannot be read: {reason}') from None

  def __iter__(self) -> Iterator[schema.Record]:
    return (record for _, record in self._read(damaged=False))

  def undamaged(self) -> Iterator[tuple[int, schema.Record]]:
    """Yields the position and content of each readable record."""
    return self._read(damaged=True)

  def _read(self, damaged: bool) -> Iterator[tuple[int, schema.Record]]:
    """Yields positions and records; skips damaged records if `damaged`, else raises."""
    # One pass over the shards is several times as fast as reading record by record.
    stream = tf.data.TFRecordDataset(self.files).as_numpy_iterator()
    for position in range(len(self)):
      try:
        record = parse_record(next(stream)) if stream else self[position]
      except (tf.errors.OpError, ValueError, StopIteration):
        # After damage TensorFlow continues with the next shard.
        stream = None
        try:
          record = self[position]  # Raises an error that names the record.
        except InputError:
          if not damaged:
            raise
          continue
      yield position, record

  def where(self, position: int) -> str:
    """Returns a record's file, number and offset for an error message."""
    shard = self.shard[position]
    number = position - np.searchsorted(self.shard, shard)
    return f'{self.files[shard]}, record {number} at byte {self.offset[position]},'

  def read_serialized(self, position: tf.Tensor | int) -> tf.Tensor:
    """Reads one record's bytes and verifies checksums; for use in `Dataset.map`.

    Args:
      position: scalar.

    Returns:
      Scalar string tensor, a serialised `tf.train.Example`.
    """
    shard, offset, length = (
      tf.gather(values, position) for values in (self.shard, self.offset, self.length)
    )
    # TensorFlow's only reader that takes an offset, verifies both checksums and
    # supports all of its file systems.
    reader = tf.raw_ops.TFRecordDatasetV2(
      filenames=tf.gather(tf.constant(self.files), [shard]),
      compression_type='',
      buffer_size=length + record_index.OVERHEAD,
      byte_offsets=[offset],
    )
    spec = tf.TensorSpec([], tf.string)
    return tf.data.experimental.from_variant(reader, spec).take(1).get_single_element()

  def word_counts(self) -> Int32[np.ndarray, 'n']:
    """Counts the words of each prompt; 0 for damaged records."""
    return self._counts('words')

  def misaligned_counts(self) -> Int32[np.ndarray, 'n']:
    """Counts the misaligned words of each prompt.

    -1 for records whose words are not annotated, and for damaged ones.
    """
    return self._counts('misaligned')

  def _counts(self, name: str) -> Int32[np.ndarray, 'n']:
    """Returns one of the counts.

    The first call reads the whole split; the result is cached next to the shards, like
    the index.
    """
    path = self.directory / f'{self.name}.words.npz'
    sizes = record_index.file_sizes(self.files)
    found = index_cache.read(path, sizes)
    if found is None or name not in found:
      words, misaligned = np.zeros((2, len(self)), np.int32)
      misaligned -= 1
      for position, record in self.undamaged():
        words[position] = len(record.tokens)
        if record.keyword_labels:
          misaligned[position] = record.keyword_labels.count(0)
      found = {'sizes': sizes, 'words': words, 'misaligned': misaligned}
      index_cache.write(path, found)
    return found[name]


def open_split(directory: os.PathLike | str, split: str) -> RecordSplit:
  """Opens a split of a data set in TFDS format.

  The first call on a split reads every record's header and, if the directory is
  writable, caches the result next to the shards in `<split>.index.npz`.

  Args:
    directory: the folder with `dataset_info.json`; local or gs://.

  Raises:
    InputError: the data set or split does not exist, a shard is missing or truncated,
      or the number of records differs from dataset_info.json.
  """
  directory = epath.Path(directory)
  files, counts = _shards(directory, split)
  sizes = record_index.file_sizes(files)
  index = index_cache.read(directory / f'{split}.index.npz', sizes)
  if index is None:
    index = {'sizes': sizes, **record_index.find_records(files, sizes, counts)}
    index_cache.write(directory / f'{split}.index.npz', index)
  if not len(index['shard']):
    raise InputError(f'split {split} of {directory} has no records')
  if problem := manifest.compare(directory, {split: len(index['shard'])}):
    raise InputError(problem[0])
  return RecordSplit(
    directory=directory,
    name=split,
    files=tuple(os.fspath(file) for file in files),
    shard=index['shard'],
    offset=index['offset'],
    length=index['length'],
  )


def open_files(files: Sequence[os.PathLike | str]) -> RecordSplit:
  """Opens any TFRecord files and reads every record's header.

  Raises:
    InputError: a file is missing or truncated.
  """
  paths = [epath.Path(file) for file in files]
  index = record_index.find_records(
    paths, record_index.file_sizes(paths), [None] * len(paths)
  )
  return RecordSplit(paths[0].parent, '', tuple(map(os.fspath, paths)), **index)


def concatenate(splits: Sequence[RecordSplit]) -> RecordSplit:
  """Returns the records of all splits in order, under the name of the first."""
  starts = np.cumsum([0, *(len(split.files) for split in splits)])
  return dataclasses.replace(
    splits[0],
    files=tuple(file for split in splits for file in split.files),
    shard=np.concatenate(
      [
        split.shard + np.int32(start)
        for split, start in zip(splits, starts[:-1], strict=True)
      ]
    ),
    offset=np.concatenate([split.offset for split in splits]),
    length=np.concatenate([split.length for split in splits]),
  )


def parse_record(serialized: bytes) -> schema.Record:
  """Returns the record in a serialised `tf.train.Example` of `schema`'s format.

  Raises:
    InputError: it is not an example, or a feature is missing.
  """
  features = parse_features(serialized)
  optional = set(schema.Record._field_defaults)
  missing = sorted(set(schema.Record._fields) - optional - set(features))
  if missing:
    raise InputError(
      f'the features {missing} are missing; prepare the data set with this version'
    )
  try:
    data = {
      name: features[name].bytes_list.value[0]
      for name in ('uid', 'image', 'prompt', 'implausibility_map', 'misalignment_map')
    }
    uid, prompt = data['uid'].decode(), data['prompt'].decode()
    tokens = tuple(token.decode() for token in features['tokens'].bytes_list.value)
  except (IndexError, UnicodeDecodeError) as error:
    raise InputError(f'a feature is empty or not text: {error}') from None
  return schema.Record(
    uid=uid,
    image=data['image'],
    prompt=prompt,
    tokens=tokens,
    keyword_labels=tuple(features['keyword_labels'].int64_list.value),
    scores=tuple(features['scores'].float_list.value),
    implausibility_map=data['implausibility_map'],
    misalignment_map=data['misalignment_map'],
    keyword_shares=tuple(features['keyword_shares'].float_list.value),
  )


def parse_features(serialized: bytes) -> Mapping[str, tf.train.Feature]:
  """Returns the features of a serialised `tf.train.Example`.

  Raises:
    InputError: it is not an example.
  """
  try:
    return tf.train.Example.FromString(serialized).features.feature
  except Exception as error:  # protobuf's DecodeError differs between back ends.
    raise InputError(f'not a tf.train.Example: {error}') from None


def _shards(directory: epath.Path, split: str) -> tuple[list[epath.Path], list[int]]:
  """Returns the split's files and the number of records expected in each."""
  splits = dataset_info.read(directory).splits
  if split not in splits:
    raise InputError(
      f'{directory} has no split {split!r}, only {sorted(splits)}; if it is needed, '
      'prepare the data again with a larger share for it, such as --dev=0.3'
    )
  return [directory / name for name in splits[split]], [*splits[split].values()]
