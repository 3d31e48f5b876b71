"""Runs scripts of launch/ with fakes of external commands."""

import os
import pathlib
import shlex
import subprocess
import time

ROOT = pathlib.Path(__file__).parents[1]
LAUNCH = ROOT / 'launch'
SETTINGS = {
  'PROJECT': 'my-project',
  'ZONE': 'us-west4-a',
  'HOST': 'me@gpu-node',
  'DATA': 'gs://bucket/data',
  'WORKDIR': 'gs://bucket/runs/first',
}
# Commands that would contact other machines, or need the results of such commands.
OUTSIDE = (
  *('gcloud', 'xpk', 'kubectl', 'ssh', 'scp', 'sbatch', 'squeue', 'scancel'),
  *('srun', 'scontrol', 'git', 'curl', 'uv', 'tar', 'tail'),
)
# Training flags that quoting must preserve.
FLAGS = ['--config.model.heatmap_head.convs=(8, 4)', '--config.x=it\'s "so" $HOME ~ *']
TRAINING = [
  '--config=source/configs/augmented_prompt.py',
  '--workdir=gs://bucket/runs/first',
  '--config.data.dir=gs://bucket/data',
]


def write_stub(folder: pathlib.Path, name: str, body: str) -> None:
  folder.mkdir(parents=True, exist_ok=True)
  (folder / name).write_text(f'#!/usr/bin/env bash\n{body}\n')
  (folder / name).chmod(0o755)


class Sandbox:
  """Starts scripts with a PATH of fake commands, which record their calls."""

  def __init__(self, folder: pathlib.Path):
    self.folder = folder
    self.bin = folder / 'bin'
    self.env = {
      'PATH': f'{self.bin}:/usr/bin:/bin',
      'HOME': str(folder),
      'TMPDIR': str(folder),
      'CALLS': str(folder / 'calls'),
    }

  def stub(self, name: str, body: str = '') -> None:
    record = '{ printf "%s\\0" "${0##*/}" "$@"; echo; } >>"$CALLS"'
    write_stub(self.bin, name, f'{record}\n{body}')

  def calls(self) -> list[list[str]]:
    """Returns the words of each call of a fake command since the last time."""
    path = self.folder / 'calls'
    text = path.read_text() if path.exists() else ''
    path.unlink(missing_ok=True)
    return [call.split('\0') for call in text.split('\0\n') if call]

  def start(self, *command: str | os.PathLike, **settings: str) -> subprocess.Popen:
    return subprocess.Popen(
      command,
      cwd=self.folder,
      env=self.env | settings,
      stdin=subprocess.DEVNULL,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
      start_new_session=True,
    )

  def run(self, *command: str | os.PathLike, status: int = 0, **settings: str):
    """Runs a command, checks its status and returns (stdout, stderr)."""
    process = self.start(*command, **settings)
    printed, errors = process.communicate(timeout=60)
    assert process.returncode == status, printed + errors
    return printed, errors

  def launch(self, script: str, *words: str, status: int = 0, **settings: str):
    return self.run(LAUNCH / f'{script}.sh', *words, status=status, **settings)

  def dry(self, script: str, *words: str, **settings: str) -> list[list[str]]:
    """Returns the words of each command that a dry run prints."""
    printed, _ = self.launch(script, '--dry-run', *words, **SETTINGS | settings)
    return [shlex.split(line) for line in printed.splitlines()]


def remote(command: list[str]) -> list[str]:
  """Returns the words of the command that gcloud would run remotely."""
  (flag,) = (word for word in command if word.startswith('--command='))
  return shlex.split(flag.removeprefix('--command='))


def wait_for(state: str, ask) -> None:
  for _ in range(200):
    if state in ask():
      return
    time.sleep(0.05)
  raise AssertionError(f'not {state}: {ask()}')
