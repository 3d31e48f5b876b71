"""Files are replaced completely or stay unchanged."""

import multiprocessing
import os
import signal
import subprocess
import sys

import pytest
from etils.epath import testing

from rahf.fileio import atomic_write


def write_often(path, letter, times):
  for _ in range(times):
    atomic_write.write(path, letter * 100_000)


@pytest.mark.parametrize('content', ['two\nlines – ü\n', b'\x00\r\n'])
def test_content_is_written_unchanged(tmp_path, content):
  path = tmp_path / 'file'
  path.write_text('older and longer than what follows')
  atomic_write.write(path, content)
  expected = content.encode() if isinstance(content, str) else content
  assert path.read_bytes() == expected
  assert list(tmp_path.iterdir()) == [path]


def test_a_failing_writer_leaves_the_old_file(tmp_path):
  path = tmp_path / 'file'
  atomic_write.write(path, 'old')

  def fail():
    with atomic_write.temp_then_rename(path) as partial:
      partial.write_text('half of the ne')
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    fail()
  assert path.read_text() == 'old'
  assert list(tmp_path.iterdir()) == [path]


def test_an_impossible_write_leaves_the_old_file(tmp_path):
  (tmp_path / 'folder').mkdir()
  (tmp_path / 'folder/file').write_text('old')
  with pytest.raises(OSError, match='folder'):
    atomic_write.write(tmp_path / 'folder', 'new')
  assert [path.name for path in tmp_path.iterdir()] == ['folder']
  with pytest.raises(FileNotFoundError, match='nowhere'):
    atomic_write.write(tmp_path / 'nowhere/file', 'new')


def test_a_killed_writer_leaves_the_old_file(tmp_path):
  path = tmp_path / 'file'
  atomic_write.write(path, 'old')
  code = (
    'import os, signal, sys\n'
    'from rahf.fileio import atomic_write\n'
    'with atomic_write.temp_then_rename(sys.argv[1]) as partial:\n'
    "  partial.write_text('half of the ne')\n"
    '  os.kill(os.getpid(), signal.SIGKILL)\n'
  )
  done = subprocess.run([sys.executable, '-c', code, path])
  assert done.returncode == -signal.SIGKILL
  assert path.read_text() == 'old'
  (left,) = {other.name for other in tmp_path.iterdir()} - {'file'}
  assert left.startswith('.file.')
  atomic_write.write(path, 'new')
  assert path.read_text() == 'new'


def test_two_processes_write_the_same_file(tmp_path):
  """Readers always find the complete content of one of them."""
  path = tmp_path / 'file'
  spawn = multiprocessing.get_context('spawn')
  writers = [
    spawn.Process(target=write_often, args=(path, letter, 200)) for letter in 'ab'
  ]
  for writer in writers:
    writer.start()
  found = set()
  while any(writer.is_alive() for writer in writers):
    if path.exists():
      found.add(path.read_text())
  assert [writer.exitcode for writer in writers] == [0, 0]
  assert found <= {'a' * 100_000, 'b' * 100_000}
  assert found
  assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize('mask', [0o022, 0o077, 0o002])
def test_permissions_are_those_of_a_plain_file(tmp_path, mask):
  before = os.umask(mask)
  try:
    atomic_write.write(tmp_path / 'file', 'new')
    (tmp_path / 'plain').write_text('new')
  finally:
    os.umask(before)
  assert (tmp_path / 'file').stat().st_mode == (tmp_path / 'plain').stat().st_mode


def test_in_a_bucket(tmp_path, monkeypatch):
  """The operating system cannot flush files in buckets."""
  # Its bucket client would take precedence.
  monkeypatch.setattr('etils.epath.gpath._is_tf_installed', lambda: False)

  def inside(path):
    return tmp_path / path.removeprefix('gs://bucket/')

  bucket = testing.mock_epath(
    open=lambda real, path, mode: real(inside(path), mode),
    replace=lambda real, path, target: real(inside(path), inside(target)),
  )
  with bucket:
    atomic_write.write('gs://bucket/file', 'old')
    atomic_write.write('gs://bucket/file', 'new')
  assert (tmp_path / 'file').read_text() == 'new'
  assert [path.name for path in tmp_path.iterdir()] == ['file']
