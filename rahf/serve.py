"""Scores images over HTTP: python -m rahf.serve MODEL_DIRECTORY.

A page for people at /, the reference at /docs. Scores are 0 to 1, higher is better;
maps and words' probabilities 0 to 1, higher is worse.
"""

import argparse
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from types import FrameType
from typing import TYPE_CHECKING

from rahf.errors import InputError

if TYPE_CHECKING:
  import uvicorn

  from rahf.service.engine import Engine

# Seconds for what is queued, once the service is told to stop.
GRACE = 10
# Seconds of an idle connection: longer than proxies keep one, 60 as a rule, which would
# send a request while it is being closed.
KEEP_ALIVE = 75
LOOPBACK = ('127.0.0.1', '::1')


def main(argv: Sequence[str] | None = None) -> int:
  """Serves until SIGTERM or Ctrl-C; returns the exit status: 0, or 2 for a mistake."""
  arguments = _parser().parse_args(argv)
  try:
    return _serve(arguments)
  except (InputError, OSError) as error:
    print(f'error: {error}', file=sys.stderr)
    return 2


def _serve(arguments: argparse.Namespace) -> int:
  _check(arguments)
  try:
    import uvicorn

    from rahf.service.admission import Limits
    from rahf.service.app import make_app
    from rahf.service.engine import Engine
  except ModuleNotFoundError as error:
    raise InputError(
      f'the service needs {error.name}, which is not installed: '
      "pip install 'rahf[serve]'"
    ) from None
  from rahf.feedback import load

  # It warns of every body that it cannot read, which the sender is told.
  logging.getLogger('python_multipart').setLevel(logging.ERROR)
  # Before the model, whose reading takes time.
  listener = _listen(arguments.host, arguments.port)
  model = load(
    arguments.directory, batch_size=arguments.batch_size, dtype=arguments.dtype
  )
  engine = Engine(model, wait=arguments.wait / 1e3)
  limits = Limits(arguments.queue, arguments.max_mb * 1024 * 1024)
  config = uvicorn.Config(
    make_app(engine, limits),
    log_level='warning',
    lifespan='off',
    timeout_graceful_shutdown=GRACE,
    timeout_keep_alive=KEEP_ALIVE,
  )
  return _run(uvicorn.Server(config), engine, listener)


def _run(server: 'uvicorn.Server', engine: 'Engine', listener: socket.socket) -> int:
  """Warms up and answers, until a signal comes; finishes what has been let in."""
  address, failures = _address(listener), []

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
    server.should_exit = True

  # Uvicorn has handlers of its own while it runs. Behind that it raises the signals
  # again, which would end the process.
  for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, end)
  if listener.getsockname()[0] not in LOOPBACK:
    _say('Everybody who reaches this address can use the model')
  sizes = ', '.join(map(str, engine.model.buckets))
  _say(f'Listening on {address}; compiling for batches of {sizes}')
  warming = threading.Thread(target=warm_up, name='warm-up', daemon=True)
  warming.start()
  server.run(sockets=[listener])
  done = engine.stop(GRACE)
  if failures:
    raise failures[0]
  _say('Stopped' if done else f'Stopped; a batch had not ended after {GRACE} s')
  if warming.is_alive() or not done:
    # A compilation cannot be interrupted, and takes minutes for large models.
    os._exit(0 if done else 1)
  return 0


def _say(line: str) -> None:
  print(line, flush=True)


def _check(arguments: argparse.Namespace) -> None:
  for name, low in (('queue', 1), ('max_mb', 1), ('wait', 0), ('batch_size', 1)):
    if (value := getattr(arguments, name)) < low:
      raise InputError(f'--{name}={value} must be {low} or more')


def _listen(host: str, port: int) -> socket.socket:
  family = socket.AF_INET6 if ':' in host else socket.AF_INET
  try:
    return socket.create_server((host, port), family=family, backlog=1024)
  except (OSError, OverflowError) as error:
    raise InputError(
      f'{host} port {port} cannot be bound ({error}); choose with --host and --port'
    ) from None


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
    'asks',
  )
  add('--port', type=int, default=8000, help='0 is any that is free')
  add('--batch_size', type=int, default=32, help='images computed together at most')
  add('--wait', type=float, default=0, help='ms in which a batch may fill up')
  add('--queue', type=int, default=128, help='requests at once; further ones get 429')
  add('--max_mb', type=int, default=20, help='MiB of a request; larger ones get 413')
  add('--dtype', help='float32 or bfloat16; that of training if not given')
  return parser


if __name__ == '__main__':
  sys.exit(main())
