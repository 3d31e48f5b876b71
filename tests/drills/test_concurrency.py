"""Two writers to the same place, and more requests than the service can answer."""

import collections
import concurrent.futures
import contextlib
import http.client
import json
import pathlib
import shutil
import socket
import time
from typing import NamedTuple

import pytest
from inference_files import image_of, prompt_of, start, wait_for_parts, write_folder
from test_memory import SLACK, resident

import rahf
import runs
from served import (
  Answer,
  ask,
  ask_json,
  make_image,
  read_metrics,
  wait_until,
  write_model,
)
from test_serve import read_until, started

IMAGES = 40


@pytest.fixture(scope='module')
def directory(tmp_path_factory) -> pathlib.Path:
  return write_model(tmp_path_factory.mktemp('model'))


@pytest.fixture(scope='module')
def rows(directory) -> list[dict]:
  """The expected row of each image, computed separately."""
  model = rahf.load(directory)
  numbers = range(IMAGES)
  found = model.score([*map(image_of, numbers)], [*map(prompt_of, numbers)])
  return [one.to_dict(maps=False) for one in found]


# Two writers


def finished(process, status=0, seconds=300):
  printed, errors = process.communicate(timeout=seconds)
  assert process.returncode == status, errors
  assert 'Traceback' not in errors
  return printed, errors


@pytest.mark.parametrize('kills', range(3))
def test_two_inferences_into_one_folder(directory, rows, tmp_path, kills):
  """One works, the other is refused; despite kills, each row is written once."""
  folder, out = write_folder(tmp_path / 'images', IMAGES), tmp_path / 'out'
  arguments = f'--input={folder}', f'--output={out}'
  first = start(directory, *arguments, seconds=0.3)
  second = start(directory, *arguments, seconds=0.3)
  # Either may come first.
  while (first.poll(), second.poll()) == (None, None):
    time.sleep(0.1)
  if second.poll() is None:
    first, second = second, first
  _, errors = finished(second, 2)
  assert f'another process is writing to {out}' in errors
  for kill in range(kills):
    wait_for_parts(first, out, 2 + kill)
    first.kill()
    first.communicate()
    first = start(directory, *arguments, seconds=0.3)
  finished(first)
  found = [json.loads(line) for line in (out / 'results.jsonl').open()]
  assert [row['uid'] for row in found] == [f'{n:03d}.png' for n in range(IMAGES)]
  for row, expected in zip(found, rows, strict=True):
    for name, value in expected['scores'].items():
      assert row[name] == pytest.approx(value, abs=1e-5)
  assert {path.name for path in out.iterdir()} == {
    *('.lock', 'manifest.json', 'results.jsonl')
  }


@pytest.fixture
def workdir(trained, tmp_path):
  return pathlib.Path(shutil.copytree(trained, tmp_path / 'run'))


def test_two_exports_into_one_directory(workdir, data_dir, tmp_path):
  target = tmp_path / 'model'
  flags = f'--workdir={workdir}', '--mode=export', f'--config.export.dir={target}'
  both = [runs.start_tiny(data_dir, *flags) for _ in range(2)]
  ends = [process.communicate(timeout=300) for process in both]
  # Both succeed if one started after the other had finished.
  statuses = sorted(process.returncode for process in both)
  assert statuses in ([0, 0], [0, 2]), ends
  assert not any('Traceback' in errors for _, errors in ends)
  if statuses[1]:
    assert any('another process is writing to' in errors for _, errors in ends)
  (one,) = rahf.load(target).score(make_image(), 'a red circle')
  assert all(0 <= value <= 1 for value in one.scores.values())
  assert not [path for path in tmp_path.iterdir() if path.name.startswith('.')]


def test_two_evaluations_in_one_work_directory(workdir, data_dir):
  expected = {p.name: p.read_bytes() for p in (workdir / 'eval').iterdir()}
  shutil.rmtree(workdir / 'eval')
  flags = f'--workdir={workdir}', '--mode=eval', '--config.eval.split=test'
  both = [runs.start_tiny(data_dir, *flags, PYTHONHASHSEED=str(n)) for n in range(2)]
  ends = [process.communicate(timeout=300) for process in both]
  statuses = sorted(process.returncode for process in both)
  assert statuses in ([0, 0], [0, 2]), ends
  assert not any('Traceback' in errors for _, errors in ends)
  found = {p.name: p.read_bytes() for p in (workdir / 'eval').iterdir()}
  assert found.pop('.lock') == b''
  assert found == {name: data for name, data in expected.items() if '-2.' not in name}


# A service at twice its capacity

QUEUE, BATCH, SECONDS = 8, 4, 0.25
COUNT, RATE = 96, 2 * BATCH / SECONDS
# Makes every batch take this long on any machine.
PACED = f"""
import time
from rahf.inference.model import Model
score = Model.score_examples
def score_paced(self, examples):
  end = time.monotonic() + {SECONDS}
  found = score(self, examples)
  time.sleep(max(0, end - time.monotonic()))
  return found
Model.score_examples = score_paced
"""
# Extra time in seconds, for a busy machine.
LATE = 5.0


class Exchange(NamedTuple):
  """A request: when it was sent, how long it took, and the answer if there was one."""

  begun: float
  seconds: float
  answer: Answer | None


class Load:
  """Sends requests at a fixed rate without waiting for answers (open loop).

  Attributes:
    exchanges: each request, by number, once it has ended.
  """

  def __init__(self, port: int):
    self.exchanges: list[Exchange | None] = [None] * COUNT
    self._port = port
    pool, begun = concurrent.futures.ThreadPoolExecutor(COUNT), time.monotonic()
    self._futures = [
      pool.submit(self._ask, number, begun + number / RATE) for number in range(COUNT)
    ]
    pool.shutdown(wait=False)

  def _ask(self, number: int, when: float) -> None:
    time.sleep(max(0.0, when - time.monotonic()))
    begun, answer = time.monotonic(), None
    # The service may have stopped listening.
    with contextlib.suppress(ConnectionError, http.client.RemoteDisconnected):
      which = number % IMAGES
      answer = ask_json(self._port, image_of(which), prompt_of(which))
    self.exchanges[number] = Exchange(begun, time.monotonic() - begun, answer)

  def wait(self) -> collections.Counter:
    """Waits for all requests; returns the number of each status."""
    for future in self._futures:
      future.result(120)
    return collections.Counter(
      one.answer.status if one.answer else None for one in self.exchanges
    )

  def check(self, rows: list[dict]) -> None:
    """Checks that answers are correct and no later than the queue allows."""
    for number, one in enumerate(self.exchanges):
      if one.answer is None:
        continue
      if one.answer.status != 200:
        assert int(one.answer.headers['Retry-After']) > 0
        assert one.answer.json['detail']
        assert one.seconds < LATE
        continue
      expected = rows[number % IMAGES]
      assert one.answer.json['prompt'] == expected['prompt']
      assert one.answer.json['scores'] == pytest.approx(expected['scores'], abs=1e-5)
      assert one.seconds < (QUEUE / BATCH + 2) * SECONDS + LATE


def begin(port: int, text: bytes) -> socket.socket:
  connection = socket.create_connection(('127.0.0.1', port), timeout=30)
  connection.sendall(text)
  return connection


HALF = (
  b'POST /score HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n'
  b'Content-Length: 9999\r\n\r\n{"prompt": "a red'
)


def test_twice_the_capacity(directory, rows):
  """With clients that disconnect, and clients that stall."""
  with started(
    directory, f'--queue={QUEUE}', f'--batch_size={BATCH}', before=PACED
  ) as process:
    port = int(read_until(process, 'Ready')[-1].rpartition(':')[2])
    memory = []
    for _round in range(2):
      load, waiting = Load(port), []
      slow = [begin(port, HALF[: 9 * (n + 1)]) for n in range(30)]
      for _ in range(10):
        begin(port, HALF).close()
        waiting.append(read_metrics(port)['rahf_images_waiting'])
        time.sleep(0.2)
      found = load.wait()
      load.check(rows)
      # Which requests are refused depends on chance, but there are always some.
      assert found.keys() == {200, 429}
      assert min(found.values()) > COUNT / 6
      assert found.total() == COUNT
      assert 0 < max(waiting) <= QUEUE
      for connection in slow:
        connection.close()
      wait_until(lambda: read_metrics(port)['rahf_requests_in_work'] == 0)
      assert ask(port, 'GET', '/health').status == 200
      assert ask_json(port, make_image()).status == 200
      memory.append(resident(process.pid))
    assert memory[1] - memory[0] < SLACK
    process.terminate()
    assert process.wait(30) == 0
    assert 'Traceback' not in process.stderr.read()


def test_a_stop_at_twice_the_capacity(directory, rows):
  with started(
    directory, f'--queue={QUEUE}', f'--batch_size={BATCH}', before=PACED
  ) as process:
    port = int(read_until(process, 'Ready')[-1].rpartition(':')[2])
    load = Load(port)
    wait_until(lambda: sum(one is not None for one in load.exchanges) > COUNT / 4)
    process.terminate()
    stopped = time.monotonic()
    found = load.wait()
    load.check(rows)
    assert found[200] >= QUEUE
    assert found[None] > 0
    assert found.keys() <= {200, 429, 503, None}
    # Accepted requests are answered; only late ones find nobody listening.
    assert all(one.answer or one.begun > stopped - 0.5 for one in load.exchanges)
    assert process.wait(30) == 0
    assert process.stdout.read() == 'Stopped\n'
    assert process.stderr.read() == ''
