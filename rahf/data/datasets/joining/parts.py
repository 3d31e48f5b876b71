"""Joins labels and images in parts: several at once, and finished parts are kept.

Images are read, checked and written part by part, each by a thread of its own. A part
is kept with what went into it. After a kill, or when a file that could not be read was
replaced, the same command makes those that are not there, or were made of other input.
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

# Some 500 MB of images of 1024 px: what a kill loses for each thread.
SAMPLES = 512


class AnnotatedImage(NamedTuple):
  """An annotated image of which everything was found.

  Attributes:
    place: where its image is: the file on disk, and what names it in there.
  """

  split: str
  uid: str
  prompt: str
  place: tuple[Any, ...]


Note = Callable[[AnnotatedImage, str, str], None]
"""Notes what became of a sample: reason, a key of `report`'s, and detail."""

Make = Callable[
  [Sequence[AnnotatedImage], Note],
  Iterator[tuple[AnnotatedImage, schema.Record | None]],
]
"""Yields each of the samples with its record, or None if it has to be left out.

Called by several threads at once.
"""


@dataclasses.dataclass
class Part:
  """What became of the samples of one part.

  Attributes:
    fingerprint: of all that went into it.
    uids: split -> those written, in the order of its shard.
    shards: split -> its shard.
    lines: of the report.
  """

  fingerprint: str
  uids: dict[str, list[str]]
  shards: dict[str, manifest.Shard]
  lines: list[Line]


def shard_path(folder: pathlib.Path, number: int, split: str) -> pathlib.Path:
  """Returns where a part's records of one split lie."""
  return folder / f'part-{number:05d}-{split}.tfrecord'


def make_all(
  folder: pathlib.Path,
  samples: Sequence[AnnotatedImage],
  make: Make,
  settings: Mapping[str, Any],
  inputs: Sequence[pathlib.Path],
  workers: int,
) -> list[Part]:
  """Makes the parts that are not yet in a folder, with a progress bar.

  Args:
    samples: in the order in which they are read best.
    settings: what the records depend on besides the samples.
    inputs: files that they depend on besides those of the samples.
    workers: number of threads.

  Returns:
    All parts, in the order of the samples.
  """
  starts = range(0, len(samples), SAMPLES)
  groups = [samples[start : start + SAMPLES] for start in starts]
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
      # What the others have made so far is kept if their part is complete.
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
    """Keeps the thread of a part that failed from beginning another."""
    if future.cancelled() or future.exception():
      self.stopped.set()

  def _go_on(self) -> None:
    if self.stopped.is_set():
      raise concurrent.futures.CancelledError

  def part(self, number: int, samples: Sequence[AnnotatedImage]) -> Part:
    """Returns the part, from the folder if it is there."""
    self._go_on()
    path = self._folder / f'part-{number:05d}.json'
    fingerprint = _fingerprint(self._common, samples)
    part = _read(path)
    if part and part.fingerprint == fingerprint and self._are_there(number, part):
      self._advance(len(samples))
      return part
    path.unlink(missing_ok=True)
    part = self._join(number, samples, fingerprint)
    # Last, and at once: a part is there as soon as this is.
    atomic_write.write(path, json.dumps(dataclasses.asdict(part)))
    return part

  def _are_there(self, number: int, part: Part) -> bool:
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
          self._go_on()
          if record:
            split = sample.split
            if split not in writers:
              writer = tf.io.TFRecordWriter(str(paths[split]))
              writers[split] = stack.enter_context(writer)
            writers[split].write(features.encode_record(record))
            uids.setdefault(split, []).append(sample.uid)
          self._advance(1)
    except tf.errors.OpError as error:  # Of writing, as when a disk is full.
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
  """Returns a digest of all that a part depends on."""
  files = sorted({pathlib.Path(sample.place[0]) for sample in samples})
  content = [__version__, common, samples, [*map(version, files)]]
  # What is not a plain value is a path, as it stands or in a place.
  text = json.dumps(content, sort_keys=True, default=str)
  return hashlib.sha256(text.encode()).hexdigest()


def _read(path: pathlib.Path) -> Part | None:
  try:
    content = json.loads(path.read_text())
    shards = {split: manifest.Shard(*one) for split, one in content['shards'].items()}
    lines = [Line(*line) for line in content['lines']]
    return Part(content['fingerprint'], content['uids'], shards, lines)
  # Not there, or what a machine that went down left of it.
  except (FileNotFoundError, ValueError, KeyError, TypeError):
    return None
