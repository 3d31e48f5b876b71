"""Damaged checkpoint files give the saved numbers, or those of the previous checkpoint
with a message."""

import collections
import json
import shutil
import time

import numpy as np
import pytest
from etils import epath

import runs
import tiny
from rahf.runtime.tree import by_path
from rahf.tasks import make_task
from rahf.training.setup import set_up
from rahf.workdir.checkpoint import Checkpoints


@pytest.fixture(scope='module')
def abstract(trained, data_dir):
  """The abstract state for restoring a checkpoint of `trained`."""
  return set_up(make_task(tiny.get_config(data_dir))).states.abstract.to_tree()


@pytest.fixture(scope='module')
def expected(trained):
  return {step: runs.read_checkpoint(trained, step) for step in (2, 4)}


def flip(path, rng):
  data = bytearray(path.read_bytes())
  data[rng.integers(len(data))] ^= 1 << rng.integers(8)
  path.write_bytes(data)


def cut(path, rng):
  data = path.read_bytes()
  path.write_bytes(data[: rng.integers(len(data))])


def scramble(path, rng):
  """Overwrites a file with random bytes of the same length."""
  path.write_bytes(rng.bytes(path.stat().st_size))


def remove(path, rng):
  path.unlink()


FAULTS = (flip, cut, scramble, remove)


def restore(workdir, abstract):
  """Restores the newest checkpoint like a resumed run."""
  checkpoints = Checkpoints(epath.Path(workdir))
  step, state = checkpoints.restore_newest(abstract)
  checkpoints.close()
  return step, {path: np.asarray(leaf) for path, leaf in by_path(state).items()}


def test_any_fault_in_any_file(
  trained, abstract, expected, tmp_path, long, capsys, record_property
):
  seed = time.time_ns()
  print(f'seed {seed}')
  rng = np.random.default_rng(seed)
  newest = trained / 'checkpoints/4'
  files = sorted(p.relative_to(newest) for p in newest.rglob('*') if p.is_file())
  cases = [(file, fault) for file in files for fault in FAULTS] * (5 if long else 1)
  if not long:
    cases = [cases[n] for n in rng.choice(len(cases), 16, replace=False)]
  outcomes = collections.Counter()
  for number, (file, fault) in enumerate(cases):
    workdir = tmp_path / str(number)
    shutil.copytree(trained / 'checkpoints', workdir / 'checkpoints')
    fault(workdir / 'checkpoints/4' / file, rng)
    step, found = restore(workdir, abstract)
    for name, values in expected[step].items():
      np.testing.assert_array_equal(found[name], values, err_msg=f'{file} {fault}')
    if step == 2:
      # Without its metadata, the checkpoint only looks unfinished.
      reported = f'{workdir}/checkpoints/4' in capsys.readouterr().out
      assert reported or file.name == '_CHECKPOINT_METADATA'
    outcomes[fault.__name__, step] += 1
    shutil.rmtree(workdir)
  record_property('outcomes', str(dict(outcomes)))
  print(f'\n{dict(outcomes)}')


def replace(old: str, new: str):
  """Returns a function that replaces `old`, which must occur, in a text."""

  def change(text: str) -> str:
    assert old in text
    return text.replace(old, new)

  return change


METADATA, TREE = '_CHECKPOINT_METADATA', 'default/_METADATA'
HOSTILE = {
  'a handler that is a command': (METADATA, replace('orbax.checkpoint', 'os.system')),
  'an item elsewhere': (METADATA, replace('"default"', '"../../../outside"')),
  'a name elsewhere': (TREE, replace('"step"', '"../../../outside"')),
  'an absolute name': (TREE, replace('"step"', '"/outside"')),
  'an object of Python': (TREE, replace('jax.Array', 'builtins.object')),
  'thousands of levels': (TREE, lambda text: '[' * 100_000),
  'a long list': (TREE, lambda text: json.dumps(list(range(10**6)))),
  'an array of 4 TB': (METADATA, replace('float32[8]', 'float32[1000000000000]')),
  'a path that is not base64': ('default/_sharding', lambda text: '{"../x": "{}"}'),
  'an invalid mesh': ('default/_sharding', replace('NamedSharding', 'eval')),
}


@pytest.mark.parametrize('name', HOSTILE)
def test_hostile_descriptions(trained, abstract, expected, tmp_path, name):
  workdir, (file, change) = tmp_path / 'a/run', HOSTILE[name]
  shutil.copytree(trained / 'checkpoints', workdir / 'checkpoints')
  path = workdir / 'checkpoints/4' / file
  path.write_text(change(path.read_text()))
  begun = time.monotonic()
  step, found = restore(workdir, abstract)
  assert time.monotonic() - begun < 30
  for leaf, values in expected[step].items():
    np.testing.assert_array_equal(found[leaf], values, err_msg=leaf)
  assert list(tmp_path.iterdir()) == [tmp_path / 'a']
  assert list((tmp_path / 'a').iterdir()) == [workdir]
