"""Measures the service's requests per second, also under overload.

  python benchmarks/serving.py --model=runs/quickstart/export [--seconds=10]

Starts `python -m rahf.serve` with at most 1, 8 and 32 images per batch and sends
requests over the loopback interface, from the same cores: first over as many
connections as saturate it, then at half and at twice that rate, at random times
(Poisson), without waiting for answers.
"""

import asyncio
import collections
import io
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import machine
import numpy as np
from absl import app, flags
from PIL import Image

from rahf.data.images.codec import encode_png

_MODEL = flags.DEFINE_string('model', None, 'Model directory.', required=True)
_SECONDS = flags.DEFINE_float('seconds', 10, 'Length of each measurement.')
_SIDE = flags.DEFINE_integer('side', 64, 'Image width in pixels.')
_MAPS = flags.DEFINE_boolean('maps', True, 'Whether to request heatmaps.')
BATCHES = (1, 8, 32)
PROMPT = 'two small red triangles at the top left, one cyan cross.'


class Load(NamedTuple):
  """The result of a measurement.

  Attributes:
    statuses: HTTP status -> number of responses; 0 is a broken connection.
    latencies: seconds from when a request was due to its score.
    seconds: duration of the measurement.
  """

  statuses: collections.Counter
  latencies: list[float]
  seconds: float

  @property
  def rate(self) -> float:
    """Scores per second."""
    return self.statuses[200] / self.seconds

  def milliseconds(self, percentile: float) -> float:
    return 1e3 * float(np.percentile(self.latencies, percentile))


class Client:
  """Sends requests to one port over persistent connections."""

  def __init__(self, port: int, requests: list[bytes]):
    self._port, self._requests = port, requests
    self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    self.statuses = collections.Counter()
    self.latencies = []

  async def ask(self, due: float) -> None:
    try:
      status = await self._exchange(random.choice(self._requests))
    except (OSError, asyncio.IncompleteReadError):
      status = 0
    self.statuses[status] += 1
    if status == 200:
      self.latencies.append(time.perf_counter() - due)

  async def _exchange(self, request: bytes) -> int:
    if self._idle:
      reader, writer = self._idle.pop()
    else:
      reader, writer = await asyncio.open_connection('127.0.0.1', self._port)
    writer.write(request)
    head = (await reader.readuntil(b'\r\n\r\n')).lower()
    length = int(head.partition(b'content-length: ')[2].partition(b'\r')[0])
    await reader.readexactly(length)
    if b'connection: close' in head:
      writer.close()
    else:
      self._idle.append((reader, writer))
    return int(head.split(b' ', 2)[1])


async def fill(client: Client, seconds: float, connections: int) -> None:
  """Sends a request over each connection as soon as the previous one is answered."""
  end = time.perf_counter() + seconds

  async def one() -> None:
    while (now := time.perf_counter()) < end:
      await client.ask(now)

  await asyncio.gather(*(one() for _ in range(connections)))


async def arrive(client: Client, seconds: float, rate: float) -> None:
  """Sends `rate` requests per second at random times, without waiting for answers."""
  due = time.perf_counter()
  end, tasks = due + seconds, set()
  while (due := due + random.expovariate(rate)) < end:
    if (pause := due - time.perf_counter()) > 0:
      await asyncio.sleep(pause)
    task = asyncio.create_task(client.ask(due))
    tasks.add(task)
    task.add_done_callback(tasks.discard)
  await asyncio.gather(*tasks)


def measure(run: Callable, port: int, requests: list[bytes], amount: float) -> Load:
  client = Client(port, requests)
  start = time.perf_counter()
  asyncio.run(run(client, _SECONDS.value, amount))
  return Load(client.statuses, client.latencies, time.perf_counter() - start)


def make_requests() -> list[bytes]:
  """Returns raw HTTP requests: forms with images of smooth noise."""
  found = []
  for number in range(16):
    noise = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
    image = Image.fromarray(noise).resize((_SIDE.value, _SIDE.value))
    parts = {'prompt': PROMPT.encode(), 'maps': json.dumps(_MAPS.value).encode()}
    body = io.BytesIO()
    for name, value in (parts | {'image': encode_png(np.asarray(image))}).items():
      file = '; filename="a.png"' * (name == 'image')
      head = f'--x\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
      body.write(head.encode() + value + b'\r\n')
    body.write(b'--x--\r\n')
    head = (
      'POST /score HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; '
      f'boundary=x\r\nContent-Length: {body.tell()}\r\n\r\n'
    )
    found.append(head.encode() + body.getvalue())
  return found


def main(argv: list[str]) -> None:
  del argv
  random.seed(0)
  print(machine.processor())
  requests = make_requests()
  print(
    f'{"":10}{"full":>10}{"half load, ms":>20}{"twice":>10}{"of it, %":>16}'
    f'{"p99":>8}\n{"batch":10}{"1/s":>10}{"p50":>10}{"p99":>10}{"1/s":>10}'
    f'{"200":>8}{"429":>8}{"ms":>8}'
  )
  for batch in BATCHES:
    server = subprocess.Popen(
      [
        *(sys.executable, '-m', 'rahf.serve', _MODEL.value, '--port=0'),
        f'--batch_size={batch}',
      ],
      stdout=subprocess.PIPE,
      text=True,
      env=os.environ,
    )
    try:
      line = next(line for line in server.stdout if line.startswith('Ready'))
      port = int(line.rpartition(':')[2])
      measure(arrive, port, requests, 20)  # Warm-up.
      full = measure(fill, port, requests, max(4, 2 * batch))
      half = measure(arrive, port, requests, full.rate / 2)
      twice = measure(arrive, port, requests, full.rate * 2)
    finally:
      server.terminate()
      status = server.wait(30)
    total = twice.statuses.total()
    print(
      f'{batch:<10}{full.rate:10.1f}{half.milliseconds(50):10.1f}'
      f'{half.milliseconds(99):10.1f}{twice.rate:10.1f}'
      f'{twice.statuses[200] / total:8.1%}{twice.statuses[429] / total:8.1%}'
      f'{twice.milliseconds(99):8.0f}'
    )
    others = full.statuses + half.statuses + twice.statuses
    others = {key: count for key, count in others.items() if key not in (200, 429)}
    print(f'{"":10}other answers: {others or "none"}; exit status {status}')


if __name__ == '__main__':
  app.run(main)
