"""Any setting, flag or config file works, or gives one message that names it and says
what to do, with status 2 and without a traceback."""

import itertools
import re
import time

import jax
import numpy as np
import odd_settings
import pytest
from commands import Commands, Result

import runs
import tiny
from rahf.config import RULES, validate
from rahf.errors import InputError
from rahf.precompile import set_up_for_topology
from rahf.training.batch_spec import batch_shapes

# Limit of one command, in seconds; most of it goes into imports.
TIME = 60
CONTROL = re.compile('[\x00-\x08\x0b-\x0c\x0e-\x1f\x7f\u202e]')
# Settings that compiled programs depend on.
TRACED = ('model', 'optimizer', 'loss', 'mesh', 'keywords', 'seed')
TRACED += ('data.text', 'data.target', 'train.steps', 'train.batch', 'train.accum')


def default(field: str):
  value = tiny.get_config()
  for name in field.split('.'):
    value = value[name]
  return value


def with_value(field: str, value):
  """Returns a config with a setting changed, or None if the type is wrong."""
  config = tiny.get_config()
  try:
    config.update_from_flattened_dict({field: value})
  except TypeError:
    return None
  return config


def accepted(field: str) -> list:
  """Returns the odd values that a setting accepts; checks how others are refused."""
  found = []
  for value in odd_settings.values_of(default(field)):
    if (config := with_value(field, value)) is None:
      continue
    try:
      validate(config)
    except InputError as error:
      check_named(field, error)
    else:
      found.append(value)
  return found


def check_named(field: str, error: InputError) -> None:
  """Checks that the message is about the setting, or its section."""
  section = field.split('.')[0]
  assert re.search(rf'config\.{field}\b|config\.{section}\b', str(error))
  assert len(str(error)) < 500
  assert not CONTROL.search(str(error))


@pytest.mark.parametrize('field', RULES)
def test_every_value_of_every_setting_is_accepted_or_refused(field):
  found = accepted(field)
  assert default(field) in found
  assert None not in found or field == 'train.keep_checkpoints'
  assert not any(value != value or value == 10**30 for value in found)


def build(config) -> None:
  """Builds model, optimizer, mesh and steps of a config, from shapes only."""
  setup = set_up_for_topology(config)
  eval_step = setup.task.make_eval_step(setup.gather)
  state, key = setup.states.abstract, jax.random.key(0)
  with jax.set_mesh(setup.mesh):
    batch = batch_shapes(config, config.train.batch_size)
    _, metrics = jax.eval_shape(setup.make_train_step(), state, batch, key)
    assert metrics['loss/total'].shape == ()
    batch = batch_shapes(config, config.eval.batch_size)
    found = jax.eval_shape(eval_step, state.variables, batch)
    assert found.outputs.scores.shape[1] == 4


def test_accepted_values_can_be_used(long):
  """Or are refused by name when the parts are built."""
  fields = [field for field in RULES if field.startswith(TRACED)]
  pairs = [(field, v) for field in fields for v in accepted(field) if v is not True]
  if not long:
    chosen = np.random.default_rng(time.time_ns()).choice(len(pairs), 4, replace=False)
    pairs = [pairs[number] for number in chosen]
  refused = 0
  for field, value in pairs:
    print(field, repr(value)[:80])
    try:
      build(with_value(field, value))
    except InputError as error:
      check_named(field, error)
      refused += 1
  print(f'{len(pairs)} built, {refused} of them refused')


# Commands


@pytest.fixture(scope='module')
def commands():
  running = Commands()
  yield running
  running.close()


def check(done: Result, *parts: str, statuses: tuple[int, ...] = (2,)) -> None:
  """Checks status and message of a command that must fail."""
  assert done.status in statuses, done
  assert 'Traceback' not in done.errors, done.errors
  lines = done.errors.splitlines()
  assert sum(bool(re.match(r'(\S+ )*error: ', line)) for line in lines) == 1, done
  assert not CONTROL.search(done.errors.replace('\r', '')), done.errors
  for part in parts:
    assert part in done.errors, done.errors


def test_a_fork_behaves_like_a_process(commands, tmp_path):
  arguments = '--config=tests/tiny.py', '--mode=export', f'--workdir={tmp_path}/none'
  process = runs.start(*arguments)
  printed, errors = process.communicate(timeout=200)
  assert commands.run('rahf.main', *arguments) == (process.returncode, printed, errors)


def test_settings_typed_as_flags(commands, tmp_path, long):
  """Export validates all settings before it finds no checkpoint."""
  pairs = list(itertools.product(RULES, odd_settings.TYPED))
  if not long:
    chosen = np.random.default_rng(time.time_ns()).choice(len(pairs), 90, replace=False)
    pairs = [pairs[number] for number in chosen]
  accepted_count = 0
  for field, value in pairs:
    flag = f'--config.{field}={value}'
    print(repr(flag)[:200])
    start = time.monotonic()
    done = commands.run(
      *('rahf.main', '--config=tests/tiny.py', '--mode=export'),
      *(f'--workdir={tmp_path}/none', flag),
    )
    assert time.monotonic() - start < TIME
    check(done)
    if 'has no checkpoint to export' in done.errors:
      accepted_count += 1
    elif 'unknown kind of URL' not in done.errors:
      assert f'config.{field.rpartition(".")[0]}' in done.errors, done.errors
  print(f'{len(pairs)} typed, {accepted_count} accepted')


CONFIG_FILES = {
  'no Python': ('def get_config(:\n', 'line 1'),
  'a pickle': ('\x80\x04\x00', 'SyntaxError'),
  'nothing': ('', 'no function get_config'),
  'no function': ('get_config = 3\n', "'int' object is not callable"),
  'an import': ('import nowhere\n', 'line 1: ModuleNotFoundError: No module named'),
  'an error': ('def get_config():\n  raise KeyError("k")\n', "line 2: KeyError: 'k'"),
  'an argument': ('def get_config(name):\n  return 3\n', "argument: 'name'"),
  'a number': ('def get_config():\n  return 3\n', 'returns int, not ConfigDict'),
  'a wrong type': (
    'from rahf.config import default_config\ndef get_config():\n'
    '  config = default_config()\n  config.train.steps = 1.5\n  return config\n',
    "line 4: TypeError: Could not override field 'steps'",
  ),
  'another project': (
    'from ml_collections import ConfigDict\ndef get_config():\n'
    '  return ConfigDict({"a": 1})\n',
    'config.baseline.deconvs is missing',
  ),
  'a section that is None': (
    'from rahf.config import default_config\ndef get_config():\n'
    '  config = default_config()\n  config.train = None\n  return config\n',
    'config.train.accumulate is missing',
  ),
  'a setting too many': (
    'from rahf.config import default_config\ndef get_config():\n'
    '  config = default_config().unlock()\n  config.train.speed = 1\n'
    '  return config\n',
    'config.train.speed is not a setting',
  ),
}


@pytest.mark.parametrize('name', CONFIG_FILES)
def test_config_files(commands, tmp_path, name):
  content, part = CONFIG_FILES[name]
  path = tmp_path / 'config.py'
  path.write_text(content)
  done = commands.run('rahf.main', f'--config={path}', f'--workdir={tmp_path}/run')
  check(done, part)
  assert list(tmp_path.iterdir()) in ([path], [path, tmp_path / '__pycache__'])


TINY = ('rahf.main', '--config=tests/tiny.py', '--config.data.dir=T/data')
SHAPES = ('rahf.data', 'prepare', 'shapes', '--out=T/out', '--dev=1', '--test=1')
ANNOTATED = ('rahf.data', 'prepare', 'annotated', '--prompts=T/file', '--out=T/out')
ANNOTATED += ('--annotations=T/file', '--images=T/folder')
RAPIDATA = ('rahf.data', 'prepare', 'rapidata', '--name=x', '--out=T/out')
INFER = ('rahf.main', '--mode=infer', '--output=T/out')
SERVE = ('rahf.serve', 'T/folder', '--port=0')
JUDGE = ('rahf.judge', '--model=T/folder')
COMPARE = ('rahf.evaluate', 'compare', '--out=T/comparison')
BEST = ('rahf.best', 'choose', 'T/folder', '--model=T/none')
# A command, and a part of its message. T is a folder with an empty folder and a file
# that contains 'x'.
MISTAKES = [
  (('rahf.main', '--config='), '--config='),
  (('rahf.main', '--config=T/folder'), 'T/folder: there is no such file'),
  (('rahf.main', '--config=/dev/zero'), '/dev/zero: there is no such file'),
  (('rahf.main', '--config=configs/shapes.py:no'), 'the variants are'),
  ((*TINY, '--config.'), "config has no field ''"),
  ((*TINY, '--config.=3'), "config has no field ''"),
  ((*TINY, '--config.train=3'), '--config.train=3'),
  ((*TINY, '--config.train.steps.x=3'), "has no field 'x'"),
  ((*TINY, '--config.optimizer.freeze[0]=x'), 'give the whole sequence'),
  ((*TINY, '--config.model.score_head.convs[9]=1'), 'give the whole sequence'),
  ((*TINY, '--noconfig.train.steps'), 'noconfig.train.steps'),
  ((*TINY, '--mode='), '--mode='),
  ((*TINY, '--workdir='), '--workdir is empty'),
  ((*TINY, '--workdir=T/file'), 'T/file is a file'),
  ((*TINY, '--workdir=http://x/y', '--mode=eval'), '--workdir = http://x/y'),
  ((*TINY, '--workdir=\x1b[31m', '--mode=eval'), r'\x1b[31m has no checkpoint'),
  ((*TINY, '--workdir=\udcff', '--mode=export'), 'has no checkpoint'),
  ((*TINY, '--config.data.dir=http://x/y'), 'config.data.dir = http://x/y'),
  ((*TINY, '--mode=precompile', '--config.precompile.topology=x'), "topology = 'x'"),
  ((*TINY, '--mode=precompile', '--config.mesh.data=10'), 'config.mesh has data=10'),
  ((*TINY, '--multihost'), '--multihost'),
  ((*TINY, '--maps=png'), '--maps is for --mode=infer'),
  ((*INFER, '--model=x', '--input=T/none'), 'T/none: no such file'),
  ((*INFER, '--model=x', '--input=T/file'), 'T/file is not a known kind'),
  ((*INFER, '--model=x', '--input=T/folder'), 'no known files'),
  ((*INFER, '--model=x', '--input=T'), 'one inside the other'),
  ((*INFER, '--model=x', '--input=x', '--batch_size=0'), '--batch_size=0'),
  ((*INFER, '--model=x', '--input=x', '--maps=gif'), 'gif'),
  ((*INFER, '--model=x', '--input=x', '--format='), '--format'),
  ((*SERVE,), 'T/folder is not a model directory'),
  ((*SERVE, '--port=x'), '--port'),
  ((*SERVE, '--port=99999'), 'port 99999'),
  ((*SERVE, '--port=-1'), 'port -1'),
  ((*SERVE, '--host=a..b'), 'a..b port 0'),
  ((*SERVE, f'--host={"a" * 300}'), '--host'),
  ((*SERVE, '--host=🐈'), '--host'),
  ((*SERVE, '--wait=nan'), '--wait=nan'),
  ((*SERVE, '--grace=inf'), '--grace=inf'),
  ((*SERVE, '--queue=0'), '--queue=0'),
  ((*SERVE, '--max_mb=-1'), '--max_mb=-1'),
  ((*SERVE, '--batch_size=-1'), '--batch_size=-1'),
  (('rahf.data',), 'COMMAND'),
  (('rahf.data', 'prepare', 'x'), "invalid choice: 'x'"),
  (('rahf.data', 'verify', 'T/folder'), 'T/folder'),
  (('rahf.data', 'verify', 'T/file'), 'T/file'),
  (('rahf.data', 'stats', '🐈'), '🐈'),
  (('rahf.data', 'pairs', 'T/file'), 'T/file'),
  (('rahf.data', 'pairs', 'T/folder', '--split=../x'), 'T/folder'),
  ((*SHAPES, '--train=-1'), 'train -1'),
  ((*SHAPES, '--train=x'), '--train'),
  ((*SHAPES, '--train=1', '--seed=-1'), 'seed -1'),
  ((*SHAPES, '--train=1', '--image-size=0'), 'image_size 0'),
  ((*SHAPES, '--train=1', '--image-size=99999'), 'image_size 99999'),
  ((*SHAPES, '--train=1', '--out=T/file'), 'T/file is a file'),
  ((*ANNOTATED, '--name=../x'), "--name: '../x' is not a name"),
  ((*ANNOTATED, '--name=x', '--dev=nan'), '--dev'),
  ((*ANNOTATED, '--name=x', '--dev=.6', '--test=1.6'), '--test'),
  ((*ANNOTATED, '--name=x', '--workers=0'), '--workers'),
  ((*ANNOTATED, '--name=x'), 'T/file:1'),
  ((*RAPIDATA, '--files=T/folder'), 'T/folder'),
  ((*RAPIDATA, '--files=T/folder', '--threshold=nan'), '--threshold'),
  (('rahf.data', 'prepare', 'richhf18k', '--out=T/out'), '--labels'),
  ((*COMPARE,), 'RUN'),
  ((*COMPARE, 'T/folder'), "T/folder has no evaluation of the split 'test'"),
  ((*COMPARE, 'T/folder', '--split=*('), "split '*('"),
  ((*COMPARE, 'T/file'), 'T/file:1'),
  ((*COMPARE, 'T/file', '--draws=x'), '--draws'),
  ((*COMPARE, 'T/file', '--out=T/file/x'), '--out=T/file/x'),
  ((*COMPARE, 'http://x/y'), 'http://x/y'),
  (('rahf.evaluate', 'x'), 'usage: python -m rahf.evaluate preferences MODEL'),
  (('rahf.compare',), 'RUN'),
  (('rahf.compare', 'T/folder', '--out=T/c'), "no evaluation of the split 'test'"),
  (('rahf.pretrained',), 'source'),
  (('rahf.pretrained', ''), 'empty'),
  (('rahf.pretrained', 'T/file'), 'T/file has an unknown format'),
  (('rahf.pretrained', 'T/folder'), 'T/folder is an empty directory'),
  (('rahf.pretrained', '/dev/zero'), '/dev/zero'),
  (('rahf.pretrained', 'http://x/y'), 'http://x/y'),
  (('rahf.pretrained', '\x1b[31m' + 'a' * 4_000), r'\x1b[31maaa'),
  (('rahf.annotate', 'rapidata', '--images=x'), '--prompts'),
  (('rahf.rank',), 'VOTES'),
  (('rahf.rank', ''), 'VOTES is empty'),
  (('rahf.rank', 'http://x/y'), 'VOTES = http://x/y'),
  (('rahf.rank', 'T/file', '--out='), '--out is empty'),
  (('rahf.rank', 'T/file'), 'T/file is not a table'),
  (('rahf.rank', 'T/folder'), 'no .parquet file below it'),
  (('rahf.rank', '/dev/zero'), '/dev/zero is not a table'),
  (('rahf.rank', '\x1b[31m.csv'), r'\x1b[31m.csv: no such file'),
  (('rahf.rank', 'T/file', '--method=newman'), 'newman'),
  (('rahf.rank', 'T/file', '--prior=nan'), '--prior'),
  (('rahf.rank', 'T/file', '--draws=99'), '99 must be 0, or at least 100'),
  (('rahf.rank', 'T/file', '--method=elo', '--k=0'), '--k'),
  (('rahf.rank', 'T/file', '--out=T/file'), '--out=T/file exists'),
  (('rahf.rank', 'T/file', '--out=http://x/y'), '--out = http://x/y'),
  (('rahf.best',), 'prompts | choose'),
  (('rahf.best', 'prompts', 'T/file'), '--out'),
  (('rahf.best', 'prompts', '', '--out=T/out.csv'), 'PROMPTS is empty'),
  (('rahf.best', 'prompts', '/dev/zero', '--out=T/x.csv'), '/dev/zero: no such file'),
  (('rahf.best', 'prompts', 'T/folder', '--out=T/x.csv'), 'T/folder: is a folder;'),
  (('rahf.best', 'prompts', 'T/file', '--out=T/x.csv', '--seeds=x'), '--seeds'),
  ((*BEST, '--out=T/file'), '--out=T/file exists'),
  ((*BEST, '--out=http://x/y'), '--out = http://x/y'),
  ((*BEST, '--out=T/x'), 'T/none does not exist'),
  ((*BEST, '--out=T/x', '--minimum=nan'), '--minimum=nan must be a number'),
  ((*BEST, '--out=T/x', '--keep=1e3'), '--keep'),
  (('rahf.judge',), '--images'),
  (('rahf.judge', '--images=a=T/folder'), '--model'),
  ((*JUDGE, '--images=T/folder'), 'has no path; give --images NAME=FOLDER'),
  ((*JUDGE, '--images=a=T/folder'), 'folder contains no known files; give a folder'),
  ((*JUDGE, '--images=a=http://x/y'), '--images a: http://x/y'),
  ((*JUDGE, '--images=a=/dev/zero'), '/dev/zero is not a known kind'),
  ((*JUDGE, '--images=\x1b[31m=T/file'), 'must consist of letters'),
  ((*JUDGE, '--images=a=T/folder', '--out=T/file'), '--out=T/file exists'),
  ((*JUDGE, '--images=a=T/folder', '--out='), '--out is empty'),
  ((*JUDGE, '--images=a=T/folder', '--out=http://x/y'), '--out = http://x/y'),
  ((*JUDGE, '--images=a=T/folder', '--clip='), '--clip is empty'),
  ((*JUDGE, '--images=a=T/folder', '--draws=99'), '99 must be 0, or at least 100'),
]


@pytest.mark.parametrize(
  ('command', 'part'), MISTAKES, ids=[ascii(' '.join(c))[:60] for c, _ in MISTAKES]
)
def test_mistakes(commands, tmp_path, command, part):
  (tmp_path / 'folder').mkdir()
  (tmp_path / 'file').write_text('x')
  place = str(tmp_path)
  given = [re.sub(r'(^|=)T(?=/|$)', rf'\1{place}', word) for word in command]
  start = time.monotonic()
  done = commands.run(*given)
  assert time.monotonic() - start < TIME
  check(done, re.sub(r'(^|=)T/', rf'\1{place}/', part))
  left = {path.name for path in tmp_path.iterdir()}
  assert left - {'data', 'out'} == {'folder', 'file'}
