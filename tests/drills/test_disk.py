"""Full and read-only disks: existing files are kept."""

import pathlib
import shutil
import subprocess

import pytest
from test_parts import make, plan, write

import runs
from rahf.data.datasets.joining import parts
from rahf.data.storage import manifest
from rahf.workdir.checkpoint import Checkpoints


@pytest.fixture
def disk(tmp_path):
  """Returns a function that creates or recreates a file system of a given size."""
  folder = tmp_path / 'disk'
  folder.mkdir()

  def mount(*options):
    done = subprocess.run(
      ['mount', '-t', 'tmpfs', '-o', ','.join(options), 'tmpfs', folder],
      capture_output=True,
      text=True,
    )
    if done.returncode:
      pytest.skip(f'mounting needs root: {done.stderr}')
    mounted.append(folder)
    return folder

  mounted: list[pathlib.Path] = []
  yield mount
  if mounted:
    subprocess.run(['umount', folder], check=True)


def remount(folder, *options):
  subprocess.run(['mount', '-o', ','.join(['remount', *options]), folder], check=True)


def run(data_dir, workdir):
  process = runs.start_tiny(data_dir, f'--workdir={workdir}')
  printed, errors = process.communicate(timeout=200)
  return process.returncode, printed, errors


def test_training_on_a_full_disk_resumes_when_there_is_space(trained, data_dir, disk):
  folder = disk('size=40m')
  workdir = folder / 'run'
  stopped = runs.start_tiny(data_dir, f'--workdir={workdir}')
  runs.wait_for(stopped, 'step 2/4')
  stopped.terminate()
  _, errors = stopped.communicate(timeout=100)
  assert stopped.returncode == 0, errors
  checkpoint = workdir / 'checkpoints/2'
  size = sum(path.stat().st_size for path in checkpoint.rglob('*') if path.is_file())
  free = shutil.disk_usage(folder).free
  # Enough space for other files, but not for a checkpoint.
  (folder / 'filler').write_bytes(bytes(free - size // 2))
  status, _, errors = run(data_dir, workdir)
  assert status == 1
  assert 'cannot be written' in errors or 'No space left' in errors
  assert Checkpoints(workdir).latest_step() == 2
  (folder / 'filler').unlink()
  status, printed, errors = run(data_dir, workdir)
  assert status == 0, errors
  assert 'at step 2' in printed
  runs.assert_same_run(trained, workdir)


def test_a_read_only_work_directory(data_dir, disk):
  folder = disk('size=3m')
  remount(folder, 'ro')
  status, _, errors = run(data_dir, folder / 'run')
  assert status == 1
  assert 'Read-only file system' in errors
  assert 'Traceback' not in errors


def test_a_data_set_on_a_full_disk(tmp_path, disk, monkeypatch):
  """Finished parts are kept, and the rest is written once there is space."""
  monkeypatch.setattr(parts, 'SAMPLES_PER_PART', 4)
  # Enough for the records of some parts.
  folder = disk('size=64k')
  sources = [tmp_path / f'source-{number}' for number in range(3)]
  for path in sources:
    path.write_bytes(b'content')
  assert len(plan(sources)) == 22
  with pytest.raises(OSError, match=r'partial|No space'):
    write(folder, sources, make, workers=1)
  assert not (folder / 'mine').exists()
  remount(folder, 'size=4m')
  made = []

  def noted(samples, note):
    made.append(samples[0].uid)
    yield from make(samples, note)

  prepared, _ = write(folder, sources, noted)
  assert 0 < len(made) < 6
  assert sum(s.records for s in manifest.read(prepared).shards.values()) == 21
