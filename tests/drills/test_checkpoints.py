"""Whatever happens to the files of a checkpoint: the numbers that were saved, or those
of the one before, and it is said why."""

import collections
import shutil
import time

import jax
import numpy as np
import pytest
from etils import epath

import runs
import tiny
from rahf.checkpoint import Checkpoints
from rahf.experiment import set_up


@pytest.fixture(scope='module')
def abstract(trained, data_dir):
  """What a checkpoint of `trained` is read into."""
  return set_up(tiny.get_config(data_dir)).states.abstract


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
  """Other bytes of the same number, as of a disk that wrote elsewhere."""
  path.write_bytes(rng.bytes(path.stat().st_size))


def remove(path, rng):
  path.unlink()


FAULTS = (flip, cut, scramble, remove)


def restore(workdir, abstract):
  """Restores the newest checkpoint, as a run does that goes on."""
  checkpoints = Checkpoints(epath.Path(workdir))
  step, state = checkpoints.restore_newest(abstract)
  checkpoints.close()
  return step, {
    jax.tree_util.keystr(path, simple=True, separator='/'): np.asarray(leaf)
    for path, leaf in jax.tree_util.tree_leaves_with_path(state)
  }


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
      # Unless it is as if it had never been finished.
      said = f'{workdir}/checkpoints/4' in capsys.readouterr().out
      assert said or file.name == '_CHECKPOINT_METADATA'
    outcomes[fault.__name__, step] += 1
    shutil.rmtree(workdir)
  record_property('outcomes', str(dict(outcomes)))
  print(f'\n{dict(outcomes)}')
