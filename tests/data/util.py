"""Small prepared data sets for tests, in TFDS's layout."""

import json
import pathlib
from collections.abc import Sequence

import numpy as np
import sentencepiece
import tensorflow as tf

from rahf.data import label_words, schema
from rahf.data.datasets.joining import features
from rahf.data.images import codec

NAME = 'tiny'


def make_pixels(number: int = 0, height: int = 24, width: int = 40) -> np.ndarray:
  """Returns noise, RGB."""
  random = np.random.default_rng(number)
  return random.integers(0, 256, (height, width, 3), np.uint8)


def make_record(number: int = 0, size: int = 16, **changes) -> schema.Record:
  """Returns a record whose pixels and words depend on its number."""
  rng = np.random.default_rng(number)
  pixels = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
  prompt = changes.get('prompt', f'a yellow cat, number {number}')
  tokens = tuple(label_words.label_tokens(prompt))
  record = schema.Record(
    uid=f'uid-{number}',
    image=codec.encode_png(pixels),
    prompt=prompt,
    tokens=tokens,
    keyword_labels=tuple((number + k) % 2 for k in range(len(tokens))),
    scores=(0.25, 0.5, 0.75, 1.0),
    implausibility_map=codec.encode_png(pixels[..., 0]),
    misalignment_map=codec.encode_png(pixels[..., 1]),
  )
  return record._replace(**changes)


def train_model(path: pathlib.Path, *symbols: str) -> pathlib.Path:
  """Trains a small SentencePiece model with T5's special ids and these symbols."""
  with path.open('wb') as stream:
    sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=iter(['a red circle, a blue square.'] * 4),
      model_writer=stream,
      vocab_size=26,
      pad_id=0,
      eos_id=1,
      unk_id=2,
      bos_id=-1,
      user_defined_symbols=list(symbols),
      hard_vocab_limit=False,
      minloglevel=2,
    )
  return path


def write_split(
  directory: pathlib.Path,
  split: str,
  records: Sequence[schema.Record],
  shards: int = 1,
) -> None:
  """Writes a split; call it again for further splits of the same directory."""
  directory.mkdir(parents=True, exist_ok=True)
  encode = features.record_features().serialize_example
  lengths = []
  for shard, group in enumerate(np.array_split(np.arange(len(records)), shards)):
    name = f'{NAME}-{split}.tfrecord-{shard:05d}-of-{shards:05d}'
    with tf.io.TFRecordWriter(str(directory / name)) as writer:
      for position in group:
        writer.write(encode(records[position]._asdict()))
    lengths.append(str(len(group)))
  path = directory / 'dataset_info.json'
  info = json.loads(path.read_text()) if path.exists() else {'name': NAME}
  others = [entry for entry in info.get('splits', []) if entry['name'] != split]
  info['fileFormat'] = 'tfrecord'
  info['splits'] = [*others, {'name': split, 'shardLengths': lengths}]
  path.write_text(json.dumps(info))
