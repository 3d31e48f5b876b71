"""launch/ at work: a folder is the machine, a stand-in trains."""

import os
import pathlib
import signal

import pytest

from launch_sandbox import FLAGS, SETTINGS, TRAINING, Sandbox, remote, wait_for

ON_MACHINE = 'cd "$MACHINE" && HOME=$MACHINE bash -c'
COPY = 'cp "${1/#*:/$MACHINE/}" "${2/#*:/$MACHINE/}"'


def script(name: str) -> str:
  return f'checkout/launch/{name}.sh'


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
def cloud(site) -> Sandbox:
  folder = site.folder / 'cloud'
  folder.mkdir()
  (folder / 'answers').touch()
  site.stub('gcloud', CLOUD)
  site.env |= SETTINGS | {'CLOUD': str(folder), 'POLL': '0.1', 'RESTARTS': '3'}
  return site


def did(sandbox: Sandbox) -> list[str]:
  """Returns what was done to the slice, looks left out."""
  found = []
  for call in sandbox.calls():
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
  assert errors.count('resume failed; trying again') == 2
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
