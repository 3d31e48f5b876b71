"""`python -m rahf.annotate serve` as a process, and people who use it."""

import contextlib
import pathlib
import random
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import browsing
import projects

import runs


class Server:
  """A server that can be killed and started again on its port."""

  def __init__(self, folder: pathlib.Path, *flags: str):
    self.folder, self.flags = folder, flags
    with socket.create_server(('127.0.0.1', 0)) as free:
      self.port = free.getsockname()[1]
    self.process: subprocess.Popen | None = None

  def start(self, *flags: str) -> list[str]:
    """Starts it; returns what it has printed once it is ready."""
    command = [sys.executable, '-m', 'rahf.annotate', 'serve', str(self.folder)]
    self.process = subprocess.Popen(
      [*command, f'--port={self.port}', *self.flags, *flags],
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
      cwd=runs.ROOT,
    )
    lines = []
    for line in self.process.stdout:
      lines.append(line.strip())
      if line.startswith('Ready'):
        return lines
    raise AssertionError(self.process.stderr.read())

  def kill(self) -> None:
    self.process.kill()
    self.process.communicate()


@contextlib.contextmanager
def started(folder: pathlib.Path, *flags: str) -> Iterator[Server]:
  server = Server(folder, *flags)
  server.start()
  try:
    yield server
  finally:
    server.kill()


class Worker(threading.Thread):
  """Somebody who answers until nothing is left, whatever happens to the servers.

  Attributes:
    acknowledged: keys of the answers that a server said it has stored.
    seconds: that each of these took, when it was stored at once.
    error: why the thread ended early.
  """

  def __init__(self, ports: list[int], name: str, pause: float = 0.0):
    super().__init__(name=name)
    self.ports, self.pause = ports, pause
    self.acknowledged: list[str] = []
    self.seconds: list[float] = []
    self.error: Exception | None = None
    self._random = random.Random(name)
    self._page: browsing.Page | None = None

  def run(self) -> None:
    # People do not begin in the same tenth of a second.
    time.sleep(self.pause * self._random.random())
    try:
      self._enter()
      while (found := self._retried(lambda page: (200, page.json('/api/task'))))[
        'task'
      ]:
        self._answer(found['task'])
    except Exception as error:
      self.error = error
      raise

  def _enter(self) -> None:
    while self._page is None:
      with contextlib.suppress(OSError):
        self._page = browsing.Page(self._random.choice(self.ports), name=self.name)

  def _answer(self, task: dict) -> None:
    key, number = secrets.token_hex(16), self._random.randrange(20)
    body = {
      'lease': task['lease'],
      'key': key,
      'value': projects.rich_value(number),
      'seconds': 1.0,
    }
    attempts = 0

    def send(page: browsing.Page):
      nonlocal attempts
      attempts += 1
      return page.send('/api/answer', body)

    begun = time.perf_counter()
    self._retried(send)
    if attempts == 1:
      self.seconds.append(time.perf_counter() - begun)
    self.acknowledged.append(key)
    time.sleep(self.pause * self._random.random())

  def _retried(self, act) -> dict:
    """Tries until a server answers."""
    while True:
      self._page.port = self._random.choice(self.ports)
      try:
        status, found = act(self._page)
      except OSError:
        time.sleep(0.05)
        continue
      if status == 200:
        return found
      assert status in (429, 507), (status, found)
      time.sleep(0.2)
