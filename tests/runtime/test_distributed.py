"""Two processes of four devices, as on two hosts, compared with one of eight."""

import re
import signal

import pytest

import runs
import tiny
from rahf.errors import InputError
from rahf.runtime import distributed
from rahf.workdir.checkpoint import Checkpoints


def resume_and_stop(data_dir, workdir, line) -> None:
  """Resumes a run, and stops it after the first process has printed `line`."""
  first, second = runs.start_two(data_dir, workdir)
  runs.wait_for(first, line)
  first.send_signal(signal.SIGTERM)
  for process in (first, second):
    printed, errors = process.communicate(timeout=100)
    assert process.returncode == 0, errors
    assert 'Traceback' not in errors
    # The second process prints nothing. Both learn of the signal one poll later.
    stopped = re.search(r'Interrupted after step (3|4);', printed)
    assert bool(stopped) == (process is first)
  assert Checkpoints(workdir).latest_step() in (3, 4)


def test_two_processes_train_as_one_through_a_kill_and_a_stop(
  trained, data_dir, tmp_path, capsys, pytestconfig
):
  first, second = runs.start_two(data_dir, tmp_path)
  runs.wait_for(first, 'step 3/4')
  second.kill()
  printed = second.communicate(timeout=100)[0]
  assert 'Model' not in printed  # Only the first process prints.
  assert 'step' not in printed
  first.communicate(timeout=200)
  assert first.returncode
  assert Checkpoints(tmp_path).latest_step() == 2

  resume_and_stop(data_dir, tmp_path, 'Resuming')
  newest = Checkpoints(tmp_path).latest_step()
  # Damages a file that both processes read.
  arrays = tmp_path.glob(f'checkpoints/{newest}/default/ocdbt.process_*/d/*')
  max(arrays, key=lambda path: path.stat().st_size).unlink()
  moved = f'Moved a damaged checkpoint to {tmp_path}/damaged'
  long = pytestconfig.getoption('--long')
  if long:
    resume_and_stop(data_dir, tmp_path, moved)

  config = tiny.get_config(data_dir)
  config.mesh.update(data=2, fsdp=2, tensor=2)
  runs.run_training(config, tmp_path)
  assert long or moved in capsys.readouterr().out
  runs.assert_close(runs.read_untimed(tmp_path), runs.read_untimed(trained))


def test_missing_variables_are_named(monkeypatch):
  for name in ('ADDRESS', 'PORT'):
    monkeypatch.delenv(f'JAX_COORDINATOR_{name}', raising=False)
  with pytest.raises(InputError, match=r'--multihost: .*\n.*set JAX_COORDINATOR_ADDR'):
    distributed.join()
