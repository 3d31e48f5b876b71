"""Joins labels and images in parts, in parallel and resumably.

Each part is read, checked and written by one thread, and stored with a fingerprint of
its inputs. After an interruption, or once an unreadable file has been replaced, the
same command makes only the parts that are missing or whose inputs have changed.
"""

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import json
import pathlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf
import tqdm

from rahf.data import schema
from rahf.data.datasets.joining import features
from rahf.data.datasets.joining.report import Line
from rahf.data.images.files import version
from rahf.data.storage import manifest
from rahf.fileio import atomic_write
from rahf.version import __version__

# About 500 MB of images of 1024 px: what an interruption costs each thread.
SAMPLES_PER_PART = 512


class AnnotatedImage(NamedTuple):
  """An annotated image that has both its image and its prompt.

  Attributes:
    location: the file on disk with the image, and its position in that file.
  """

  split: str
  uid: str
  prompt: str
  location: tuple[Any, ...]


Note = Callable[[AnnotatedImage, str, str], None]
"""Reports a problem of a sample: reason (one of the keys in `report`) and detail."""

Make = Callable[
  [Sequence[AnnotatedImage], Note],
  Iterator[tuple[AnnotatedImage, schema.Record | None]],
]
"""Yields each sample with its record, or with None if it must be left out.

Called from several threads at once.
"""


@dataclasses.dataclass
class Part:
  """The result of one part.

  Attributes:
    fingerprint: digest of all its inputs.
    uids: split -> uids written, in the order of the shard.
    shards: split -> shard.
    lines: report lines about its samples.
  """

  fingerprint: str
  uids: dict[str, list[str]]
  shards: dict[str, manifest.Shard]
  lines: list[Line]


def shard_path(folder: pathlib.Path, number: int, split: str) -> pathlib.Path:
  """Returns the path of a part's records of one split."""
  return folder / f'part-{number:05d}-{split}.tfrecord'


def make_all(
  folder: pathlib.Path,
  samples: Sequence[AnnotatedImage],
  make: Make,
  settings: Mapping[str, Any],
  inputs: Sequence[pathlib.Path],
  workers: int,
) -> list[Part]:
  """Makes the parts that are missing from a folder, with a progress bar.

  Args:
    samples: in an order that is efficient to read.
    settings: settings that the records depend on.
    inputs: files that the records depend on, besides those of the samples.
    workers: number of threads.

  Returns:
    All parts, in the order of the samples.
  """
  starts = range(0, len(samples), SAMPLES_PER_PART)
  groups = [samples[start : start + SAMPLES_PER_PART] for start in starts]
  bar = tqdm.tqdm(total=len(samples), desc='Joining', unit='image', smoothing=0)
  with bar, concurrent.futures.ThreadPoolExecutor(workers) as pool:
    common = [settings, [*map(version, inputs)]]
    maker = _Maker(folder, make, common, bar)
    futures = [pool.submit(maker.part, *group) for group in enumerate(groups)]
    for future in futures:
      future.add_done_callback(maker.stop_if_failed)
    try:
      for future in concurrent.futures.as_completed(futures):
        future.result()
    except BaseException:
      # Complete parts of the other threads are kept.
      maker.stopped.set()
      pool.shutdown(wait=False, cancel_futures=True)
      raise
  return [future.result() for future in futures]


class _Maker:
  def __init__(self, folder: pathlib.Path, make: Make, common: Any, bar: tqdm.tqdm):
    self._folder, self._make, self._common = folder, make, common
    self._bar, self._lock = bar, threading.Lock()
    self.stopped = threading.Event()

  def stop_if_failed(self, future: concurrent.futures.Future) -> None:
    """Keeps a thread whose part failed from starting another."""
    if future.cancelled() or future.exception():
      self.stopped.set()

  def _raise_if_stopped(self) -> None:
    if self.stopped.is_set():
      raise concurrent.futures.CancelledError

  def part(self, number: int, samples: Sequence[AnnotatedImage]) -> Part:
    """Returns the part, from the folder if it exists there."""
    self._raise_if_stopped()
    path = self._folder / f'part-{number:05d}.json'
    fingerprint = _fingerprint(self._common, samples)
    part = _read(path)
    if part and part.fingerprint == fingerprint and self._has_shards(number, part):
      self._advance(len(samples))
      return part
    path.unlink(missing_ok=True)
    part = self._join(number, samples, fingerprint)
    # Written last and atomically: a part counts as complete once this file exists.
    atomic_write.write(path, json.dumps(dataclasses.asdict(part)))
    return part

  def _has_shards(self, number: int, part: Part) -> bool:
    paths = {split: shard_path(self._folder, number, split) for split in part.shards}
    return all(
      path.exists() and path.stat().st_size == part.shards[split].bytes
      for split, path in paths.items()
    )

  def _join(
    self, number: int, samples: Sequence[AnnotatedImage], fingerprint: str
  ) -> Part:
    lines: list[Line] = []
    uids: dict[str, list[str]] = {}
    writers: dict[str, tf.io.TFRecordWriter] = {}

    def note(sample: AnnotatedImage, reason: str, detail: str) -> None:
      lines.append(Line(sample.split, sample.uid, reason, detail))

    paths = {s: shard_path(self._folder, number, s) for s in schema.SPLITS}
    try:
      with contextlib.ExitStack() as stack:
        for sample, record in self._make(samples, note):
          self._raise_if_stopped()
          if record:
            split = sample.split
            if split not in writers:
              writer = tf.io.TFRecordWriter(str(paths[split]))
              writers[split] = stack.enter_context(writer)
            writers[split].write(features.encode_record(record))
            uids.setdefault(split, []).append(sample.uid)
          self._advance(1)
    except tf.errors.OpError as error:  # Writing failed, for example on a full disk.
      raise OSError(f'{self._folder}: {error.message}') from None
    shards = {
      split: manifest.describe(paths[split], len(found))
      for split, found in uids.items()
    }
    return Part(fingerprint, uids, shards, lines)

  def _advance(self, samples: int) -> None:
    with self._lock:
      self._bar.update(samples)


def _fingerprint(common: Any, samples: Sequence[AnnotatedImage]) -> str:
  """Returns a digest of everything that a part depends on."""
  files = sorted({pathlib.Path(sample.location[0]) for sample in samples})
  content = [__version__, common, samples, [*map(version, files)]]
  # The only values that JSON does not know are paths, here and in locations.
  text = json.dumps(content, sort_keys=True, default=str)
  return hashlib.sha256(text.encode()).hexdigest()


def _read(path: pathlib.Path) -> Part | None:
  try:
    content = json.loads(path.read_text())
    shards = {split: manifest.Shard(*one) for split, one in content['shards'].items()}
    lines = [Line(*line) for line in content['lines']]
    return Part(content['fingerprint'], content['uids'], shards, lines)
  # Missing, or left incomplete by a crash.
  except (FileNotFoundError, ValueError, KeyError, TypeError):
    return None
