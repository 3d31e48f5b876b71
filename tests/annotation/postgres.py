"""A PostgreSQL server of our own, in a temporary folder, reached through its socket."""

import contextlib
import getpass
import os
import pathlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator

import psycopg

# Debian does not put the server on the path.
DEBIAN = pathlib.Path('/usr/lib/postgresql')


def binaries() -> pathlib.Path | None:
  """Returns the folder of the newest server's programs."""
  if found := shutil.which('initdb'):
    return pathlib.Path(found).parent
  folders = DEBIAN.glob('*/bin/initdb') if DEBIAN.is_dir() else ()
  newest = sorted(folders, key=lambda path: int(path.parts[-3]))
  return newest[-1].parent if newest else None


@contextlib.contextmanager
def running() -> Iterator[str]:
  """Starts a server; yields the start of its URLs, which the name completes."""
  bin_folder = binaries()
  assert bin_folder
  folder = pathlib.Path(tempfile.mkdtemp(prefix='rahf-postgres-'))
  user, as_user = getpass.getuser(), []
  if os.getuid() == 0:  # It refuses to run as root.
    user, as_user = 'postgres', ['runuser', '-u', 'postgres', '--']
    shutil.chown(folder, 'postgres')

  def run(program: str, *arguments: object) -> None:
    command = [*as_user, str(bin_folder / program), *map(str, arguments)]
    done = subprocess.run(
      command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=folder
    )
    assert done.returncode == 0, done.stderr

  data = folder / 'data'
  try:
    run('initdb', '-D', data, '-A', 'trust', '-U', user, '--no-sync')
    options = f"-c listen_addresses='' -c unix_socket_directories={folder}"
    run('pg_ctl', '-D', data, '-w', '-l', folder / 'log', '-o', options, 'start')
    try:
      yield f'postgresql://{user}@/{{name}}?host={folder}'
    finally:
      run('pg_ctl', '-D', data, '-m', 'immediate', 'stop')
  finally:
    shutil.rmtree(folder, ignore_errors=True)


def create(urls: str, name: str) -> str:
  """Returns the URL of a new, empty database."""
  url = urls.format(name='postgres')
  with psycopg.connect(url, autocommit=True) as connection:
    connection.execute(f'CREATE DATABASE {name}')
  return urls.format(name=name)
