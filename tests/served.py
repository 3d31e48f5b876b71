"""Serves a tiny model on a free port, and sends requests to it."""

import base64
import concurrent.futures
import contextlib
import http.client
import json
import pathlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import util
import uvicorn
from prometheus_client.parser import text_string_to_metric_families

import tiny_directory
from rahf.data.images import codec
from rahf.service.admission import Limits
from rahf.service.app import make_app
from rahf.service.connection import Connection
from rahf.service.engine import Engine

PROMPT = 'a red circle, a blue square'
ANY = Limits()


def write_model(folder: pathlib.Path) -> pathlib.Path:
  """Writes a model directory with random parameters."""
  data = {'<b>': {'weight': 1, 'terms': 'none'}}
  return tiny_directory.write(folder, threshold=0.25, data=data)


def make_image(number: int = 0, height: int = 24, width: int = 40) -> bytes:
  """Returns a PNG of noise."""
  return codec.encode_png(util.make_pixels(number, height, width))


@contextlib.contextmanager
def running(
  engine: Engine, limits: Limits = ANY, http: type = Connection
) -> Iterator[int]:
  """Serves from a thread; yields the local port."""
  app = make_app(engine, limits, loopback=True)
  config = uvicorn.Config(
    app, http=http, ws='none', log_level='warning', lifespan='off'
  )
  server = uvicorn.Server(config)
  with socket.create_server(('127.0.0.1', 0)) as listener:
    thread = threading.Thread(target=server.run, kwargs={'sockets': [listener]})
    thread.start()
    try:
      yield listener.getsockname()[1]
    finally:
      server.should_exit = True
      thread.join(20)
  assert not thread.is_alive()


class Answer(NamedTuple):
  """The answer to a request."""

  status: int
  headers: Any
  body: bytes

  @property
  def json(self) -> dict:
    return json.loads(self.body)


def ask(port: int, method: str, path: str, body: Any = None, **headers: str) -> Answer:
  """Sends one request; underscores in header names become hyphens."""
  connection = http.client.HTTPConnection('127.0.0.1', port, timeout=60)
  names = {name.replace('_', '-'): value for name, value in headers.items()}
  with contextlib.closing(connection):
    connection.request(method, path, body, names)
    response = connection.getresponse()
    return Answer(response.status, response.headers, response.read())


def ask_json(port: int, image: bytes, prompt: Any = PROMPT, **more: Any) -> Answer:
  fields = {'image': base64.b64encode(image).decode(), 'prompt': prompt, **more}
  body = json.dumps(fields).encode()
  return ask(port, 'POST', '/score', body, Content_Type='application/json')


def ask_form(
  port: int, image: bytes, /, filename: str = 'a.png', **fields: str
) -> Answer:
  parts = [
    f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
    for name, value in fields.items()
  ]
  head = (
    '--x\r\nContent-Disposition: form-data; name="image"; '
    f'filename="{filename}"\r\n\r\n'
  ).encode()
  body = b''.join([*parts, head, image, b'\r\n--x--\r\n'])
  kind = 'multipart/form-data; boundary=x'
  return ask(port, 'POST', '/score', body, Content_Type=kind)


def read_metrics(port: int) -> dict[str, float]:
  """Returns the metrics by name and label values."""
  text = ask(port, 'GET', '/metrics').body.decode()
  return {
    sample.name + ''.join(sample.labels.values()): sample.value
    for family in text_string_to_metric_families(text)
    for sample in family.samples
  }


class Gate:
  """Blocks an engine's batches until it is opened.

  Attributes:
    sizes: of the batches that have arrived, without padding.
  """

  def __init__(self, engine: Engine, monkeypatch: Any):
    self.sizes: list[int] = []
    self._open = threading.Event()
    score_examples = engine.model.score_examples

    def wait(examples: Any) -> Any:
      self.sizes.append(len(examples))
      assert self._open.wait(60)
      return score_examples(examples)

    monkeypatch.setattr(engine.model, 'score_examples', wait)

  def open(self) -> None:
    self._open.set()


def wait_until(condition: Any) -> None:
  end = time.monotonic() + 30
  while not condition():
    assert time.monotonic() < end, 'timed out'
    time.sleep(0.01)


def together(*calls: Any) -> list[concurrent.futures.Future]:
  """Starts each call in its own thread."""
  pool = concurrent.futures.ThreadPoolExecutor(len(calls))
  found = [pool.submit(call) for call in calls]
  pool.shutdown(wait=False)
  return found
