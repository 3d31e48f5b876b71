"""Scores images over HTTP: python -m rahf.serve MODEL_DIRECTORY.

There is a page to try it at / and a reference at /docs. Scores are from 0 to 1, higher
is better; maps and the probabilities of words are from 0 to 1, higher is worse.
"""

import argparse
import ipaddress
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

if TYPE_CHECKING:
  import uvicorn

  from rahf.service.engine import Engine

# Seconds that an idle connection is kept. Longer than proxies keep one, usually 60: a
# proxy could otherwise send a request just when the connection is closed.
KEEP_ALIVE = 75
HOST = '127.0.0.1'


def main(argv: Sequence[str] | None = None) -> int:
  """Serves until SIGTERM or Ctrl-C.

  Returns:
    The exit status: 0; 1 if requests were dropped or the model does not run; 2 for a
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
  from rahf.inference.model import load
  from rahf.runtime import accelerator

  # It logs every body it cannot read; the client is told anyway.
  logging.getLogger('python_multipart').setLevel(logging.CRITICAL)
  # Before the model is loaded, which takes time.
  listener = _listen(arguments.host, arguments.port)
  model = load(
    arguments.directory, batch_size=arguments.batch_size, dtype=arguments.dtype
  )
  _say(f'Running on {accelerator.describe(model.devices)}')
  engine = Engine(model, wait=arguments.wait / 1e3)
  limits = Limits(arguments.queue, arguments.max_mb * 1024 * 1024)
  config = uvicorn.Config(
    make_app(engine, limits, loopback=_is_loopback(listener)),
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
  """Warms up and answers until a signal comes; finishes the admitted requests."""
  address, failures, signals = _address(listener), [], []

  def warm_up() -> None:
    try:
      engine.warm_up(_say)
    except Exception as error:
      failures.append(error)
      server.should_exit = True
    else:
      if engine.state == 'ready':
        _say(f'Ready: {address}')

  def end(number: int, frame: FrameType | None) -> None:
    engine.end_soon()
    # A second Ctrl-C is from somebody who does not want to wait.
    server.force_exit = bool(signals) and number == signal.SIGINT
    server.should_exit = True
    signals.append(time.monotonic())

  # Uvicorn installs its own handler while it runs.
  server.handle_exit = end
  for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, end)
  if not _is_loopback(listener):
    _say('Anybody who can reach this address can use the model')
  sizes = ', '.join(map(str, engine.model.buckets))
  _say(f'Listening on {address}; compiling for batches of {sizes}')
  warming = threading.Thread(target=warm_up, name='warm-up', daemon=True)
  warming.start()
  server.run(sockets=[listener])
  seconds = time.monotonic() - signals[0] if signals else 0.0
  # By now, all requests are answered or given up.
  done = engine.stop(1)
  status = _conclude(engine, failures, seconds)
  if warming.is_alive() or not done:
    # A compilation or a batch cannot be interrupted and may take minutes.
    os._exit(status)
  return status


def _conclude(engine: 'Engine', failures: list[Exception], seconds: float) -> int:
  """Reports how it ended; returns the exit status."""
  for error in failures:
    fail(f'the model does not run: {type(error).__name__}: {error}')
  if engine.dropped:
    _say(
      f'Stopped; {engine.dropped} requests were dropped after {seconds:.0f} s; allow '
      'more time with --grace'
    )
  elif not failures:
    _say('Stopped')
  return 1 if failures or engine.dropped else 0


def _say(line: str) -> None:
  print(line, flush=True)


def _check(arguments: argparse.Namespace) -> None:
  for name, low in (
    ('queue', 1),
    ('max_mb', 1),
    ('wait', 0),
    ('grace', 0),
    ('batch_size', 1),
  ):
    # In this order, so that NaN is refused too.
    if not low <= (value := getattr(arguments, name)) < math.inf:
      raise InputError(f'--{name}={value} must be {low} or more')


def _listen(host: str, port: int) -> socket.socket:
  family = socket.AF_INET6 if ':' in host else socket.AF_INET
  try:
    return socket.create_server((host, port), family=family, backlog=1024)
  except (OSError, OverflowError) as error:
    raise InputError(
      f'cannot listen on {host} port {port} ({error}); choose others with --host and '
      '--port'
    ) from None


def _is_loopback(listener: socket.socket) -> bool:
  return ipaddress.ip_address(listener.getsockname()[0]).is_loopback


def _address(listener: socket.socket) -> str:
  host, port, *_ = listener.getsockname()
  return f'http://[{host}]:{port}' if ':' in host else f'http://{host}:{port}'


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='python -m rahf.serve',
    description=__doc__,
    formatter_class=argparse.ArgumentDefaultsHelpFormatter,
  )
  add = parser.add_argument
  add('directory', help='directory of the model, written by --mode=export')
  add(
    '--host',
    default=HOST,
    help='address to listen on; by default only this machine can connect, and '
    'requests must name localhost, 127.0.0.1 or [::1] as their Host. There is no '
    'authentication and no encryption: with another address, such as 0.0.0.0, anybody '
    'who can reach it can use the model. Put a proxy in front that checks who asks',
  )
  add('--port', type=int, default=8000, help='port to listen on; 0 means any free one')
  add('--batch_size', type=int, default=32, help='most images in a batch')
  add(
    '--wait',
    type=float,
    default=0,
    help='milliseconds that a batch that is not full waits for more images',
  )
  add('--queue', type=int, default=128, help='most requests waiting; more get 429')
  add(
    '--max_mb', type=int, default=20, help='most MiB in a request; larger ones get 413'
  )
  add(
    '--grace',
    type=float,
    default=30,
    help='seconds after SIGTERM or Ctrl-C in which waiting requests are still '
    'answered; the rest then get 503, and the exit status is 1',
  )
  add('--dtype', help='float32 or bfloat16; as in training if not given')
  return parser


if __name__ == '__main__':
  sys.exit(main())
