"""Runs commands as a user would, but faster, by forking instead of importing again.

A process imports the modules that commands need, without opening devices or defining
flags. For each command it forks, and the child runs the module like `python -m`.
"""

import json
import os
import pathlib
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parents[2]
# Limits of one command, in seconds and bytes of address space.
TIME, MEMORY = 100, 16 * 2**30


class Result(NamedTuple):
  """The result of a command; `status` is minus the signal number if one killed it."""

  status: int
  printed: str
  errors: str


class Commands:
  """A process that runs commands one by one."""

  def __init__(self):
    self._process = subprocess.Popen(
      [sys.executable, '-W', 'ignore', __file__],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      cwd=ROOT,
      env=os.environ | {'TF_CPP_MIN_LOG_LEVEL': '3'},
      text=True,
    )

  def run(self, module: str, *arguments: str) -> Result:
    """Runs `python -m module arguments…` from the project's root."""
    self._process.stdin.write(json.dumps([module, *arguments]) + '\n')
    self._process.stdin.flush()
    return Result(*json.loads(self._process.stdout.readline()))

  def close(self) -> None:
    self._process.stdin.close()
    self._process.wait(TIME)


def serve() -> None:
  """Runs commands given as lines of JSON until the input ends."""
  answers = os.fdopen(os.dup(1), 'w')
  os.dup2(2, 1)
  from rahf.data import quiet_tensorflow

  quiet_tensorflow.import_tensorflow()
  import rahf.data.datasets.annotated
  import rahf.data.datasets.rapidata
  import rahf.data.datasets.richhf18k.builder
  import rahf.data.datasets.shapes.builder
  import rahf.export
  import rahf.infer
  import rahf.precompile
  import rahf.pretrained.formats
  import rahf.service.app
  import rahf.train  # noqa: F401

  for line in sys.stdin:
    answers.write(json.dumps(_fork(json.loads(line))) + '\n')
    answers.flush()


def _fork(command: Sequence[str]) -> Result:
  with tempfile.TemporaryFile('w+') as out, tempfile.TemporaryFile('w+') as err:
    child = os.fork()
    if child == 0:
      _run_child(command, out.fileno(), err.fileno())
    _, status = os.waitpid(child, 0)
    texts = []
    for file in (out, err):
      file.seek(0)
      texts.append(file.buffer.read().decode(errors='replace'))
  return Result(os.waitstatus_to_exitcode(status), *texts)


def _run_child(command: Sequence[str], out: int, err: int) -> None:
  """Runs the command in the child process like Python, then exits."""
  import runpy
  import traceback

  os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
  os.dup2(out, 1)
  os.dup2(err, 2)
  signal.alarm(TIME)
  resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
  module, *sys.argv[1:] = command
  status = 0
  try:
    runpy.run_module(module, run_name='__main__', alter_sys=True)
  except SystemExit as end:
    status = end.code if isinstance(end.code, int) else int(end.code is not None)
    if isinstance(end.code, str):
      print(end.code, file=sys.stderr)
  except BaseException:
    traceback.print_exc()
    status = 1
  finally:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == '__main__':
  # As for `python -m`, instead of the folder of this file.
  sys.path[0] = str(ROOT)
  serve()
