"""Scores images over HTTP: python -m rahf.serve MODEL_DIRECTORY.

A page for people at /, the reference at /docs. Scores are 0 to 1, higher is better;
maps and words' probabilities 0 to 1, higher is worse.
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

if TYPE_CHECKING:
  import uvicorn

  from rahf.service.engine import Engine

# Seconds of an idle connection: longer than proxies keep one, 60 as a rule, which would
# send a request while it is being closed.
KEEP_ALIVE = 75
LOOPBACK = ('127.0.0.1', '::1')


def main(argv: Sequence[str] | None = None) -> int:
  """Serves until SIGTERM or Ctrl-C.

  Returns:
    The exit status: 0, 1 where requests were dropped or the model does not run, 2 for a
    mistake, or 130 for Ctrl-C before it listens.
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
  from rahf import accelerator
  from rahf.feedback import load

  # It logs every body that it cannot read, which the sender is told.
  logging.getLogger('python_multipart').setLevel(logging.CRITICAL)
  # Before the model, whose reading takes time.
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
  """Warms up and answers, until a signal comes; finishes what has been let in."""
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
    # The second Ctrl-C is for who does not want to wait.
    server.force_exit = bool(signals) and number == signal.SIGINT
    server.should_exit = True
    signals.append(time.monotonic())

  # Uvicorn has a handler of its own while it runs.
  server.handle_exit = end
  for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, end)
  if not _is_loopback(listener):
    _say('Everybody who reaches this address can use the model')
  sizes = ', '.join(map(str, engine.model.buckets))
  _say(f'Listening on {address}; compiling for batches of {sizes}')
  warming = threading.Thread(target=warm_up, name='warm-up', daemon=True)
  warming.start()
  server.run(sockets=[listener])
  seconds = time.monotonic() - signals[0] if signals else 0.0
  # All are answered by now, or nobody waits for the answer any more.
  done = engine.stop(1)
  status = _conclude(engine, failures, seconds)
  if warming.is_alive() or not done:
    # A compilation or a batch cannot be interrupted, and may take minutes.
    os._exit(status)
  return status


def _conclude(engine: 'Engine', failures: list[Exception], seconds: float) -> int:
  """Says how it ended; returns the exit status."""
  for error in failures:
    fail(f'the model does not run: {type(error).__name__}: {error}')
  if engine.dropped:
    _say(
      f'Stopped; {engine.dropped} requests were dropped after {seconds:.0f} s; give '
      'them more time with --grace'
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
    # Not the other way round: NaN is no number of seconds.
    if not low <= (value := getattr(arguments, name)) < math.inf:
      raise InputError(f'--{name}={value} must be {low} or more')


def _listen(host: str, port: int) -> socket.socket:
  family = socket.AF_INET6 if ':' in host else socket.AF_INET
  try:
    return socket.create_server((host, port), family=family, backlog=1024)
  except (OSError, OverflowError) as error:
    raise InputError(
      f'{host} port {port} cannot be bound ({error}); choose with --host and --port'
    ) from None


def _is_loopback(listener: socket.socket) -> bool:
  return listener.getsockname()[0] in LOOPBACK


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
  add('directory', help='of the model, which --mode=export wrote')
  add(
    '--host',
    default=LOOPBACK[0],
    help='address to listen on; the default is for this machine alone. There is no '
    'authentication and no encryption: with any other address, such as 0.0.0.0, '
    'everybody who reaches it can use the model. Put a proxy in front that checks who '
    'asks. With the default, requests must name localhost, 127.0.0.1 or [::1] as Host',
  )
  add('--port', type=int, default=8000, help='0 is any that is free')
  add('--batch_size', type=int, default=32, help='images computed together at most')
  add('--wait', type=float, default=0, help='ms in which a batch may fill up')
  add('--queue', type=int, default=128, help='requests that wait; further ones get 429')
  add('--max_mb', type=int, default=20, help='MiB of a request; larger ones get 413')
  add(
    '--grace',
    type=float,
    default=30,
    help='s in which what was let in is answered after SIGTERM or Ctrl-C; then it is '
    'dropped with 503, and the exit status is 1',
  )
  add('--dtype', help='float32 or bfloat16; that of training if not given')
  return parser


if __name__ == '__main__':
  sys.exit(main())
