"""Joining in parts: finished parts are kept, and the result is the same."""

import fcntl
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from util import make_record

from rahf.data.datasets.joining import parts, writing
from rahf.data.datasets.joining.parts import AnnotatedImage
from rahf.data.datasets.joining.report import Report
from rahf.data.storage import manifest
from rahf.data.storage.records import open_split
from rahf.errors import InputError

COUNT = 22
NUMBERS = {f'uid-{number}': number for number in range(COUNT)}


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
  monkeypatch.setattr(parts, 'SAMPLES_PER_PART', 4)


@pytest.fixture
def sources(tmp_path) -> list[pathlib.Path]:
  """One file per eight samples, which are two parts."""
  paths = [tmp_path / f'source-{number}' for number in range(3)]
  for path in paths:
    path.write_bytes(b'content')
  return paths


def plan(sources):
  """Every fifth sample is for evaluation."""
  return [
    AnnotatedImage(
      'test' if i % 5 == 0 else 'train', uid, 'a cat', (sources[i // 8], i)
    )
    for uid, i in NUMBERS.items()
  ]


def write(folder, sources, make, **options):
  report = Report()
  report.matched.update({'train': 17, 'test': 5})
  target = folder / 'mine/1.0.0'
  writing.write(target, plan(sources), make, report, sources={}, **options)
  return target, report


def make(samples, note):
  for sample in samples:
    if sample.uid == 'uid-9':
      note(sample, 'unreadable_image', 'is spoilt')
      yield sample, None
    else:
      yield sample, make_record(NUMBERS[sample.uid])


def content(folder):
  return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_shards_hold_every_record_once_in_order(tmp_path, sources):
  folder, report = write(tmp_path, sources, make)
  expected = {
    'test': [0, 5, 10, 15, 20],
    'train': [n for n in range(COUNT) if n % 5 and n != 9],
  }
  for split, numbers in expected.items():
    found = list(open_split(folder, split))
    assert [record.uid for record in found] == [f'uid-{number}' for number in numbers]
    np.testing.assert_equal(found[0], make_record(numbers[0]))
    assert report.prepared[split] == len(numbers)
  assert [line.uid for line in report.lines] == ['uid-9']
  shards = manifest.read(folder).shards
  assert sum(shard.records for shard in shards.values()) == 21
  assert not list(tmp_path.glob('.mine*'))


def test_the_number_of_threads_changes_nothing(tmp_path, sources):
  def slow_at_first(samples, note):
    time.sleep(0.2 if samples[0].uid == 'uid-0' else 0)
    yield from make(samples, note)

  alone, _ = write(tmp_path / 'one', sources, make, workers=1)
  several, _ = write(tmp_path / 'four', sources, slow_at_first, workers=4)
  assert content(alone) == content(several)


KILLED = """
import os, pathlib, signal, sys
from test_parts import make, parts, write
parts.SAMPLES_PER_PART = 4
def dying(samples, note):
  for sample, record in make(samples, note):
    yield sample, record
    if sample.uid == 'uid-13':
      os.kill(os.getpid(), signal.SIGKILL)
folder = pathlib.Path(sys.argv[1])
write(folder, [folder / f'source-{n}' for n in range(3)], dying, workers=1)
"""


def test_a_killed_process_can_continue(tmp_path, sources):
  whole, _ = write(tmp_path / 'whole', sources, make)
  here = pathlib.Path(__file__).parent
  path = os.pathsep.join(map(str, (here, *here.parents[:3])))
  ended = subprocess.run(
    [sys.executable, '-c', KILLED, str(tmp_path)],
    env=os.environ | {'PYTHONPATH': path},
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert ended.returncode == -signal.SIGKILL, ended.stderr
  assert not (tmp_path / 'mine').exists()
  made = []

  def noted(samples, note):
    made.extend(sample.uid for sample in samples)
    yield from make(samples, note)

  resumed, report = write(tmp_path, sources, noted, workers=1)
  assert made == [f'uid-{number}' for number in range(12, COUNT)]
  assert content(resumed) == content(whole)
  assert [line.uid for line in report.lines] == ['uid-9']


def fail_at(uid):
  def failing(samples, note):
    for sample, record in make(samples, note):
      if sample.uid == uid:
        raise InputError('source-1 is damaged')
      yield sample, record

  return failing


def test_a_repaired_file_remakes_only_its_own_parts(tmp_path, sources):
  with pytest.raises(InputError, match='source-1 is damaged'):
    write(tmp_path, sources, fail_at('uid-14'), workers=1)
  sources[1].write_bytes(b'whole again')
  made = []

  def noted(samples, note):
    made.append(samples[0].uid)
    yield from make(samples, note)

  folder, _ = write(tmp_path, sources, noted, workers=1)
  # The parts of the first file stay; the second file's other part is made again.
  assert made == ['uid-8', 'uid-12', 'uid-16', 'uid-20']
  assert len(open_split(folder, 'train')) == 16


def test_changed_settings_or_inputs_remake_everything(tmp_path, sources):
  for options in (
    {'settings': {'drawn': 'discs'}},
    {'settings': {'drawn': 'gaussians'}},
    {'inputs': [sources[0]]},
  ):
    made = []

    def noted(samples, note, made=made):
      made.append(samples[0].uid)
      yield from fail_at('uid-21')(samples, note)

    with pytest.raises(InputError):
      write(tmp_path, sources, noted, workers=1, **options)
    assert made == ['uid-0', 'uid-4', 'uid-8', 'uid-12', 'uid-16', 'uid-20']


def test_the_first_failure_stops_all_threads(tmp_path, sources):
  def failing(samples, note):
    if samples[0].uid == 'uid-4':
      raise InputError('source-0 is damaged')
    for sample, record in make(samples, note):
      time.sleep(0.5)
      yield sample, record

  begun = time.monotonic()
  with pytest.raises(InputError, match='source-0 is damaged'):
    write(tmp_path, sources, failing, workers=2)
  # Less than the two seconds of a part, and the five of all parts.
  assert time.monotonic() - begun < 1.9


def test_existing_data_stay_until_the_new_are_complete(tmp_path, sources):
  folder, _ = write(tmp_path, sources, make)
  before = content(folder)
  with pytest.raises(InputError, match='is damaged'):
    write(tmp_path, sources, fail_at('uid-21'), overwrite=True)
  assert content(folder) == before


def test_two_processes_at_once_are_refused(tmp_path, sources):
  partial = tmp_path / '.mine-1.0.0.partial'
  partial.mkdir()
  with (partial / '.lock').open('w') as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    with pytest.raises(InputError, match='another process is writing'):
      write(tmp_path, sources, make)
  write(tmp_path, sources, make)


@pytest.mark.parametrize('spoil', ['part-00001.json', 'part-00001-train.tfrecord'])
def test_incomplete_parts_are_remade(tmp_path, sources, spoil):
  whole, _ = write(tmp_path / 'whole', sources, make)
  with pytest.raises(InputError):
    write(tmp_path, sources, fail_at('uid-21'), workers=1)
  (tmp_path / '.mine-1.0.0.partial' / spoil).write_bytes(b'')
  folder, _ = write(tmp_path, sources, make)
  assert content(folder) == content(whole)


def test_a_failure_after_joining_keeps_the_parts(tmp_path, sources):
  def full(folder, uids):
    raise OSError('no space left')

  with pytest.raises(OSError, match='no space'):
    write(tmp_path, sources, make, finish=full)
  write(tmp_path, sources, None)  # Nothing is made.


def test_replaced_data_may_be_left_over(tmp_path, sources):
  """If the process was killed at the very end."""
  write(tmp_path, sources, make)
  left = tmp_path / '.mine-1.0.0.partial/replaced'
  left.mkdir(parents=True)
  (left / 'old').write_bytes(b'')
  write(tmp_path, sources, make, overwrite=True)
  with pytest.raises(InputError, match='give --overwrite'):
    write(tmp_path, sources, make)
