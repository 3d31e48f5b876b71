"""Scores images over HTTP: python -m rahf.serve MODEL_DIRECTORY.

Open / for a page to try it, and /docs for the reference. Scores of a RAHF are from 0 to
1, higher is better; maps and word probabilities are from 0 to 1, higher is worse. A
CLIP such as PickScore gives one score, similarity; higher is better.
"""

import argparse
import logging
import math
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from types import FrameType
from typing import TYPE_CHECKING

from rahf.errors import InputError, fail
from rahf.service.listening import address_of, is_loopback, listen

if TYPE_CHECKING:
  import uvicorn

  from rahf.service.engine import Engine

# Seconds until an idle connection is closed. Longer than the usual 60 of proxies, which
# could otherwise send a request just as the connection closes.
KEEP_ALIVE = 75
HOST = '127.0.0.1'


def main(argv: Sequence[str] | None = None) -> int:
  """Serves until SIGTERM or Ctrl-C.

  Returns:
    The exit status: 0; 1 if requests were dropped or the model failed; 2 for a user's
    mistake; 130 for Ctrl-C before it listens.
  """
  arguments = _parser().parse_args(argv)
  try:
    return _serve(arguments)
  except (InputError, OSError) as error:
    return fail(error)
  except KeyboardInterrupt:
    return 128 + signal.SIGINT


def _serve(arguments: argparse.Namespace) -> int:
  _check(arguments)
  try:
    import uvicorn

    from rahf.service.admission import Limits
    from rahf.service.app import make_app
    from rahf.service.connection import Connection
    from rahf.service.engine import Engine
  except ModuleNotFoundError as error:
    raise InputError(
      f'the service needs {error.name}, which is not installed: '
      "pip install 'rahf[serve]'"
    ) from None
  from rahf.inference.open_scorer import load
  from rahf.runtime import accelerator

  # It logs every malformed body; the client gets an error anyway.
  logging.getLogger('python_multipart').setLevel(logging.CRITICAL)
  # Before loading the model, so that a port in use is reported at once.
  listener = listen(arguments.host, arguments.port)
  model = load(
    arguments.directory, batch_size=arguments.batch_size, dtype=arguments.dtype
  )
  _print(f'Running on {accelerator.describe(model.devices)}')
  engine = Engine(model, wait=arguments.wait / 1e3)
  limits = Limits(arguments.queue, arguments.max_mb * 1024 * 1024)
  config = uvicorn.Config(
    make_app(engine, limits, loopback=is_loopback(listener)),
    http=Connection,
    ws='none',
    log_level='warning',
    lifespan='off',
    timeout_graceful_shutdown=arguments.grace,
    timeout_keep_alive=KEEP_ALIVE,
  )
  return _run(uvicorn.Server(config), engine, listener, arguments.grace)


def _run(
  server: 'uvicorn.Server', engine: 'Engine', listener: socket.socket, grace: float
) -> int:
  """Warms up and serves until a signal; then finishes the admitted requests."""
  address, failures, signals = address_of(listener), [], []

  def warm_up() -> None:
    try:
      engine.warm_up(_print)
    except Exception as error:
      failures.append(error)
      server.should_exit = True
    else:
      if engine.state == 'ready':
        _print(f'Ready: {address}')

  def shut_down(number: int, frame: FrameType | None) -> None:
    engine.begin_shutdown()
    # A second Ctrl-C means that the user does not want to wait.
    server.force_exit = bool(signals) and number == signal.SIGINT
    server.should_exit = True
    signals.append(time.monotonic())

  # While it runs, Uvicorn installs this as its signal handler.
  server.handle_exit = shut_down
  for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, shut_down)
  if not is_loopback(listener):
    _print('Warning: anyone who can reach this address can use the model')
  sizes = ', '.join(map(str, engine.model.buckets))
  _print(f'Listening on {address}; compiling for batches of {sizes}')
  warming = threading.Thread(target=warm_up, name='warm-up', daemon=True)
  warming.start()
  server.run(sockets=[listener])
  seconds = time.monotonic() - signals[0] if signals else 0.0
  # By now, all requests have been answered or dropped.
  done = engine.stop(1)
  status = _conclude(engine, failures, seconds)
  if warming.is_alive() or not done:
    # A compilation or a batch cannot be interrupted and may take minutes.
    os._exit(status)
  return status


def _conclude(engine: 'Engine', failures: list[Exception], seconds: float) -> int:
  """Prints how the service ended; returns the exit status."""
  for error in failures:
    fail(f'the model failed: {type(error).__name__}: {error}')
  if engine.dropped:
    _print(
      f'Stopped; {engine.dropped} requests were dropped after {seconds:.0f} s; raise '
      '--grace to allow more time'
    )
  elif not failures:
    _print('Stopped')
  return 1 if failures or engine.dropped else 0


def _print(line: str) -> None:
  print(line, flush=True)


def _check(arguments: argparse.Namespace) -> None:
  for name, low in (
    ('queue', 1),
    ('max_mb', 1),
    ('wait', 0),
    ('grace', 0),
    ('batch_size', 1),
  ):
    # Written this way round to reject NaN too.
    if not low <= (value := getattr(arguments, name)) < math.inf:
      raise InputError(f'--{name}={value} must be {low} or more')


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='python -m rahf.serve',
    description=__doc__,
    formatter_class=argparse.ArgumentDefaultsHelpFormatter,
  )
  add = parser.add_argument
  add('directory', help='model directory, written by --mode=export, or a CLIP')
  add(
    '--host',
    default=HOST,
    help='address to listen on; by default only this machine can connect, and the '
    'Host header must be localhost, 127.0.0.1 or [::1]. There is no authentication or '
    'encryption: with another address, such as 0.0.0.0, anyone who can reach it can '
    'use the model, so put an authenticating proxy in front',
  )
  add('--port', type=int, default=8000, help='port to listen on; 0 for any free port')
  add('--batch_size', type=int, default=32, help='maximum images in a batch')
  add(
    '--wait',
    type=float,
    default=0,
    help='milliseconds for which a batch that is not full waits for more images',
  )
  add('--queue', type=int, default=128, help='maximum waiting requests; more get 429')
  add('--max_mb', type=int, default=20, help='maximum MiB in a request; more get 413')
  add(
    '--grace',
    type=float,
    default=30,
    help='seconds after SIGTERM or Ctrl-C in which waiting requests are still '
    'answered; then the rest get 503 and the exit status is 1',
  )
  add(
    '--dtype', help='float32 or bfloat16; by default as in training, for a CLIP float32'
  )
  return parser


if __name__ == '__main__':
  sys.exit(main())
