"""Compiled programs are kept for later processes, where and as long as users want."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
# Prints how often the cache had the program, and how often it did not.
SCRIPT = """
import jax, jax.numpy as jnp
from rahf.runtime import accelerator
counts = {'hits': 0, 'misses': 0}
def count(event, **_):
  name = event.removeprefix('/jax/compilation_cache/cache_')
  if name in counts: counts[name] += 1
jax.monitoring.register_event_listener(count)
accelerator.start(accelerator.choose())
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
jax.jit(lambda x: jnp.sin(x) @ x)(jnp.ones((8, 8))).block_until_ready()
print(counts['hits'], counts['misses'], jax.config.jax_compilation_cache_dir)
"""


def start(home: pathlib.Path, **environment: str) -> subprocess.Popen:
  kept = {k: v for k, v in os.environ.items() if not k.startswith(('JAX_', 'XDG_'))}
  return subprocess.Popen(
    [sys.executable, '-c', SCRIPT],
    cwd=ROOT,
    env=kept | {'HOME': str(home), 'JAX_PLATFORMS': 'cpu'} | environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def finish(process: subprocess.Popen) -> tuple[int, int, str, str]:
  """Returns hits, misses, the folder, and what was written to stderr."""
  printed, errors = process.communicate(timeout=120)
  assert process.returncode == 0, errors
  hits, misses, folder = printed.split()
  return int(hits), int(misses), folder, errors


def run(home: pathlib.Path, **environment: str) -> tuple[int, int, str, str]:
  return finish(start(home, **environment))


def test_the_second_process_compiles_nothing(tmp_path):
  _, misses, folder, _ = run(tmp_path)
  assert misses > 0
  assert pathlib.Path(folder).parent == tmp_path / '.cache/rahf'
  assert any(pathlib.Path(folder).glob('*-cache'))
  hits, misses, again, _ = run(tmp_path)
  assert (hits > 0, misses, again) == (True, 0, folder)
  # Two at once, beginning with nothing.
  both = [finish(one) for one in [start(tmp_path / 'new'), start(tmp_path / 'new')]]
  assert all(hits + misses > 0 for hits, misses, *_ in both)
  assert run(tmp_path / 'new')[1] == 0


def test_another_folder_or_none(tmp_path):
  own = tmp_path / 'own'
  *_, folder, _ = run(tmp_path, JAX_COMPILATION_CACHE_DIR=str(own))
  assert folder == str(own)
  *_, folder, _ = run(tmp_path, XDG_CACHE_HOME=str(tmp_path / 'xdg'))
  assert pathlib.Path(folder).parent == tmp_path / 'xdg/rahf'
  *_, folder, _ = run(tmp_path, JAX_ENABLE_COMPILATION_CACHE='false')
  assert folder == 'None'
  assert not (tmp_path / '.cache').exists()


def test_a_folder_that_cannot_be_used(tmp_path):
  """It works without the cache, and says so."""
  (tmp_path / '.cache').write_text('a file')
  *_, folder, errors = run(tmp_path)
  assert folder == 'None'
  assert 'Compiled programs are not kept' in errors
  assert 'JAX_COMPILATION_CACHE_DIR' in errors


def test_without_a_home_it_works(tmp_path):
  script = "import os\nos.environ.pop('HOME')\nos.getuid = lambda: 987654\n" + SCRIPT
  kept = {k: v for k, v in os.environ.items() if not k.startswith(('JAX_', 'XDG_'))}
  found = subprocess.run(
    [sys.executable, '-c', script],
    cwd=ROOT,
    env=kept | {'JAX_PLATFORMS': 'cpu'},
    capture_output=True,
    text=True,
  )
  assert found.returncode == 0, found.stderr
  assert 'Compiled programs are not kept' in found.stderr


@pytest.mark.parametrize('damage', [b'', b'no program'])
def test_a_damaged_program_is_compiled_again(tmp_path, damage):
  _, misses, folder, _ = run(tmp_path)
  for file in pathlib.Path(folder).glob('*-cache'):
    file.write_bytes(damage)
  assert run(tmp_path)[1] == misses
