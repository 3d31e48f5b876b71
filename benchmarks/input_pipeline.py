"""Times the input pipeline, each stage, and resuming.

  python benchmarks/input_pipeline.py [--directory=PREPARED] [--tokenizer=MODEL]

Without a directory it prepares a small shapes data set in a temporary folder. With
--workers, the processor time of workers and of the process that receives their batches
gives what --cores can make, if memory and disks keep up: each worker has a core, and
the receiving process uses no more than one.
"""

import itertools
import multiprocessing
import os
import pathlib
import tempfile
import time
from collections.abc import Iterator

import machine
import numpy as np
import tensorflow as tf
from absl import app, flags

from rahf.data import schema
from rahf.data import tokenizer as tokenizer_lib
from rahf.data.datasets.shapes import builder
from rahf.data.images import codec
from rahf.data.pipeline import augment, decoding
from rahf.data.pipeline.batches import train_batches
from rahf.data.storage import records

_DIRECTORY = flags.DEFINE_string('directory', None, 'A prepared data set.')
_TOKENIZER = flags.DEFINE_string(
  'tokenizer', None, "SentencePiece model; by default the directory's tokenizer.model."
)
_SPLIT = flags.DEFINE_string('split', 'train', 'Which split to read.')
_IMAGE_SIZE = flags.DEFINE_integer('image_size', 64, 'Image width in pixels.')
_LENGTH = flags.DEFINE_integer('length', 64, 'Length of text and target, in tokens.')
_BATCH = flags.DEFINE_integer('batch_size', 32, 'Examples per batch.')
_REPEAT = flags.DEFINE_integer(
  'repeat', 1, 'Repeats all shards, to measure the startup of large data sets.'
)
_EXAMPLES = flags.DEFINE_integer('examples', 4096, 'Examples to time all stages with.')
_WORKERS = flags.DEFINE_integer('workers', 0, 'Processes that make batches.')
_CORES = flags.DEFINE_integer('cores', 96, 'To extrapolate to.', lower_bound=2)
_SECONDS = flags.DEFINE_float('seconds', 2.0, 'How long to time each stage.')


def main(argv: list[str]) -> None:
  del argv
  print(f'{machine.processor()}, TensorFlow {tf.__version__}')
  with tempfile.TemporaryDirectory() as scratch:
    directory = _DIRECTORY.value or builder.prepare_shapes(
      scratch, image_size=_IMAGE_SIZE.value, train=2000, dev=8, test=8, seed=0
    )
    model = _TOKENIZER.value or pathlib.Path(directory) / 'tokenizer.model'
    options = decoding.PipelineOptions(_IMAGE_SIZE.value, _LENGTH.value, _LENGTH.value)
    start = time.perf_counter()
    split = records.open_split(directory, _SPLIT.value)
    _line(f'open {len(split)} records', time.perf_counter() - start, 's')
    split = records.concatenate([split] * _REPEAT.value)
    _measure(split, tokenizer_lib.Tokenizer(model), options)


def _measure(
  split: records.RecordSplit,
  tokenizer: tokenizer_lib.Tokenizer,
  options: decoding.PipelineOptions,
) -> None:
  def batches(step: int) -> Iterator[schema.Batch]:
    return train_batches(
      [split],
      tokenizer,
      options,
      batch_size=_BATCH.value,
      seed=0,
      start_step=step,
      workers=_WORKERS.value,
    )

  for step in (0, 1_000_000):
    start = time.perf_counter()
    next(batches(step))
    name = f'first of {len(split)} at step {step}'
    _line(name, time.perf_counter() - start, 's')

  for name, stage in _stages(split, tokenizer, options).items():
    _line(name, _rate(stage), 'examples/s')
  stream = batches(0)
  for _ in range(8):  # Until the number of threads has settled.
    next(stream)
  count = max(_EXAMPLES.value // _BATCH.value, 1)
  workers = [process.pid for process in multiprocessing.active_children()]
  start = _clocks(workers)
  for _ in range(count):
    next(stream)
  elapsed, here, of_workers = (_clocks(workers) - start) / (count * _BATCH.value)
  _line('all stages, batched', 1 / elapsed, 'examples/s')
  _line('processor time here', here * 1e3, 'ms/example')
  if workers:
    _line('processor time of workers', of_workers * 1e3, 'ms/example')
    rate = min((_CORES.value - 1) / of_workers, 1 / here)
    _line(f'on {_CORES.value} cores, extrapolated', rate, 'examples/s')


def _clocks(processes: list[int]) -> np.ndarray:
  """Returns seconds: of the clock, computed here, computed by processes (on Linux)."""
  ticks = 0
  for process in processes:
    status = pathlib.Path(f'/proc/{process}/stat').read_text()
    user, system = status.rpartition(')')[2].split()[11:13]
    ticks += int(user) + int(system)
  computed = ticks / os.sysconf('SC_CLK_TCK')
  return np.array([time.perf_counter(), time.process_time(), computed])


def _stages(
  split: records.RecordSplit,
  tokenizer: tokenizer_lib.Tokenizer,
  options: decoding.PipelineOptions,
) -> dict[str, Iterator[object]]:
  """Returns an endless iterator of examples per stage, each in a single thread."""
  loaded = [split[i] for i in range(min(len(split), 256))]
  pixels = [codec.decode_image(record.image) for record in loaded[:32]]
  size = options.image_size

  def tokenize(record: schema.Record) -> None:
    pieces = tokenizer.encode(record.prompt)
    tokenizer_lib.prompt_texts(tokenizer, pieces, options.variant, options.text_length)

  def decode(record: schema.Record) -> None:
    codec.decode_image(record.image)
    for data in (record.implausibility_map, record.misalignment_map):
      if data:
        codec.decode_map(data)

  def change(row: tf.Tensor) -> augment.ColourChange:
    seed = augment.example_seed(0, tf.constant(0, tf.int64), row)
    return augment.draw_colour_change(seed)

  def change_colours(changes: augment.ColourChange) -> tf.Tensor:
    return augment.change_colours(tf.fill([8, size, size, 3], 0.5), changes)

  endless = tf.data.Dataset.range(tf.int64.max)
  read = endless.map(lambda row: split.read_serialized(row % len(split)))
  return {
    'read': iter(read),
    'decode image and maps': map(decode, itertools.cycle(loaded)),
    'crop and resize image': (
      codec.resize(values, size, (0.1, 0.1, 0.8, 0.8))
      for values in itertools.cycle(pixels)
    ),
    'tokenise': map(tokenize, itertools.cycle(loaded)),
    'colour augmentation': iter(
      endless.map(change).batch(8, True).map(change_colours).unbatch()
    ),
  }


def _rate(examples: Iterator[object]) -> float:
  next(examples)
  start = time.perf_counter()
  done = 0
  while (elapsed := time.perf_counter() - start) < _SECONDS.value:
    next(examples)
    done += 1
  return done / elapsed


def _line(name: str, value: float, unit: str) -> None:
  print(f'{name:36}{value:10.2f} {unit}')


if __name__ == '__main__':
  app.run(main)
