"""python -m rahf.serve as a process: mistakes, warm-up and shutdown."""

import contextlib
import http.client
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from rahf import serve
from served import ask, ask_json, make_image, together, wait_until, write_model

# Scoring does not need these.
BLOCKED = ('tensorflow', 'tensorflow_datasets', 'pyarrow', 'matplotlib')


@pytest.fixture(scope='module')
def directory(tmp_path_factory):
  return write_model(tmp_path_factory.mktemp('served'))


@contextlib.contextmanager
def started(*arguments: object, before: str = '') -> Iterator[subprocess.Popen]:
  code = (
    f'import sys\nfor name in {BLOCKED}:\n  sys.modules[name] = None\n'
    f'{before}\nfrom rahf import serve\nsys.exit(serve.main(sys.argv[1:]))'
  )
  command = [sys.executable, '-c', code, *map(str, arguments), '--port=0']
  process = subprocess.Popen(
    command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
  )
  try:
    yield process
  finally:
    process.kill()
    process.communicate()


def read_until(process: subprocess.Popen, start: str) -> list[str]:
  lines = []
  for line in process.stdout:
    lines.append(line.strip())
    if line.startswith(start):
      return lines
  raise AssertionError(process.stderr.read())


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_admitted_requests_are_answered_after_a_signal(directory, number):
  with started(directory, '--batch_size=4', '--wait=60000', '--grace=9') as process:
    lines = read_until(process, 'Ready')
    # It uses the first of this process's eight devices.
    assert lines.pop(0) == 'Running on 1 CPU device'
    assert [line.split(' in ')[0] for line in lines[1:3]] == [
      'Compiled batch size 1, 1 of 2,',
      'Compiled batch size 4, 2 of 2,',
    ]
    port = int(lines[0].split(';')[0].rpartition(':')[2])
    assert lines[-1] == f'Ready: http://127.0.0.1:{port}'
    # Malformed bodies are reported to the client only.
    kind = 'multipart/form-data'
    assert ask(port, 'POST', '/score', b'', Content_Type=kind).status == 422
    # They wait for the batch to fill up, until the signal comes.
    futures = together(*[lambda: ask_json(port, make_image())] * 2)
    waiting = b'rahf_images_waiting 2.0'
    wait_until(lambda: waiting in ask(port, 'GET', '/metrics').body)
    process.send_signal(number)
    assert [future.result(30).status for future in futures] == [200, 200]
    assert process.wait(10) == 0
    assert process.stdout.read() == 'Stopped\n'
    assert process.stderr.read() == ''


# Every batch after the warm-up takes very long.
SLOW = """
import time
from rahf.inference.model import Model
batches, score = [], Model.score_examples
def score_slowly(self, examples):
  batches.append(len(examples))
  time.sleep(60 * (len(batches) > 1))
  return score(self, examples)
Model.score_examples = score_slowly
"""


def test_requests_that_take_too_long_are_dropped(directory):
  arguments = (directory, '--batch_size=1', '--grace=2')
  with started(*arguments, before=SLOW) as process:
    port = int(read_until(process, 'Ready')[-1].rpartition(':')[2])
    futures = together(*[lambda: ask_json(port, make_image())] * 3)
    waiting = b'rahf_images_waiting 2.0'
    wait_until(lambda: waiting in ask(port, 'GET', '/metrics').body)
    process.terminate()
    time.sleep(0.5)
    with pytest.raises(ConnectionRefusedError):
      ask(port, 'GET', '/health')
    assert process.poll() is None
    for future in futures:
      answer = future.result(30)
      assert answer.status == 503
      assert answer.json == {'detail': 'the service has stopped'}
    assert process.wait(10) == 1
    assert process.stdout.read().startswith('Stopped; 3 requests were dropped after ')
    assert 'Traceback' not in process.stderr.read()


def test_new_requests_are_refused_right_after_the_signal(directory):
  # The main loop ignores the signal, so only its handler can act.
  before = """
import signal, uvicorn
async def main_loop(server):
  import asyncio
  while not server.should_exit or not asked.exists():
    await asyncio.sleep(0.05)
uvicorn.Server.main_loop = main_loop
"""
  asked = directory.parent / 'asked'
  before = f'import pathlib\nasked = pathlib.Path({str(asked)!r})\n{before}'
  with started(directory, '--batch_size=1', before=before) as process:
    port = int(read_until(process, 'Ready')[-1].rpartition(':')[2])
    assert ask(port, 'GET', '/health').status == 200
    process.terminate()
    wait_until(lambda: ask(port, 'GET', '/health').status == 503)
    assert ask(port, 'GET', '/health').json['status'] == 'stopping'
    assert ask_json(port, make_image()).status == 503
    asked.touch()
    assert process.wait(10) == 0


def test_a_model_that_fails(directory):
  before = """
from rahf.inference.model import Model
def score_examples(self, examples):
  raise RuntimeError('out of memory')
Model.score_examples = score_examples
"""
  with started(directory, before=before) as process:
    assert process.wait(60) == 1
    found = process.stderr.read()
    assert found == 'error: the model failed: RuntimeError: out of memory\n'


def test_ctrl_c_while_the_model_loads(directory):
  before = """
import os, signal, time, rahf.inference.open_scorer
# As in a terminal; processes that a shell starts in the background ignore SIGINT.
signal.signal(signal.SIGINT, signal.default_int_handler)
def load(*arguments, **named):
  os.kill(os.getpid(), signal.SIGINT)
  time.sleep(60)  # Lets the signal arrive.
rahf.inference.open_scorer.load = load
"""
  with started(directory, before=before) as process:
    assert process.wait(60) == 130
    assert process.stderr.read() == ''


def test_a_signal_during_the_warm_up(directory):
  with started(directory, '--host=0.0.0.0') as process:
    read_until(process, 'Warning: anyone who can reach this address can use the')
    lines = read_until(process, 'Listening')
    port = int(lines[0].split(';')[0].rpartition(':')[2])
    wait_until(lambda: connects(port))
    assert ask(port, 'GET', '/health').json['compiled'] < 4
    process.terminate()
    assert process.wait(15) == 0
    assert process.stderr.read() == ''


def connects(port: int) -> bool:
  try:
    return ask(port, 'GET', '/health').status > 0
  except (OSError, http.client.HTTPException):
    return False


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['nowhere'], 'nowhere does not exist'),
    (['.', '--queue=0'], '--queue=0 must be 1 or more'),
    (['.', '--grace=-1'], '--grace=-1.0 must be 0 or more'),
    (['.', '--wait=-1'], '--wait=-1.0 must be 0 or more'),
    (['.', '--host=192.0.2.1'], 'cannot listen on 192.0.2.1 port 8000'),
    (['.', '--port=70000'], 'port 70000'),
  ],
)
def test_mistakes(arguments, message, capsys):
  if not any('port' in argument or 'host' in argument for argument in arguments):
    arguments = [*arguments, '--port=0']
  assert serve.main(arguments) == 2
  found = capsys.readouterr().err
  assert found.startswith('error: ')
  assert message in found


def test_a_port_in_use(capsys):
  with socket.create_server(('127.0.0.1', 0)) as other:
    port = other.getsockname()[1]
    assert serve.main(['.', f'--port={port}']) == 2
  assert f'cannot listen on 127.0.0.1 port {port}' in capsys.readouterr().err


@pytest.mark.parametrize('name', ['uvicorn', 'fastapi', 'prometheus_client'])
def test_without_the_extra(name, monkeypatch, capsys):
  for module in [m for m in sys.modules if m.startswith('rahf.service')]:
    monkeypatch.delitem(sys.modules, module)
  monkeypatch.setitem(sys.modules, name, None)
  assert serve.main(['.']) == 2
  found = capsys.readouterr().err
  assert f'needs {name}' in found
  assert "pip install 'rahf[serve]'" in found


def test_help_warns_about_other_addresses(capsys):
  with pytest.raises(SystemExit):
    serve.main(['--help'])
  found = ' '.join(capsys.readouterr().out.split())
  assert 'no authentication' in found
  assert '127.0.0.1' in found
