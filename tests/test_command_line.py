"""python -m rahf.main: each mistake of the user gives one message and status 2."""

import json
import pathlib
import re
import shutil
import subprocess

import numpy as np
import pytest

import runs
from rahf import main
from rahf.errors import InputError

T5_MODEL = 'tokenizer/t5-base.spiece.model'


def assert_refused(process: subprocess.Popen, *parts: str) -> str:
  """Asserts status 2 and one message that contains all parts; returns it."""
  _, errors = process.communicate(timeout=200)
  assert process.returncode == 2, errors
  assert 'Traceback' not in errors
  assert errors.count('error:') == 1
  for part in parts:
    assert part in errors
  return errors


@pytest.mark.parametrize(
  ('config', 'workdir'),
  [
    ('configs/quickstart.py', 'runs/quickstart'),
    ('baselines/shapes.py:resnet_maps', 'runs/shapes_resnet_maps'),
    ('a/clip_words.py:/models/clip-b.32,exact', 'runs/clip_words_clip-b.32_exact'),
  ],
)
def test_the_default_work_directory(config, workdir):
  assert main.default_workdir(config) == workdir


@pytest.mark.parametrize(
  ('arguments', 'parts'),
  [
    ('', ['--config is missing', 'configs/quickstart.py']),
    ('--config=configs/quickstrat.py', ['configs/quickstrat.py', 'no such file']),
    (
      '--config=tests/tiny.py --config.train.stepz=3',
      ["config.train has no field 'stepz'", 'did you mean steps?'],
    ),
    (
      '--config=tests/tiny.py --config.trian.steps 3',
      ["config has no field 'trian'", 'did you mean train?'],
    ),
    ('--config=tests/tiny.py --config.x=3', ["no field 'x'", "it has ['baseline'"]),
    ('--config=tests/tiny.py --config.train.steps=few', ['train.steps=few', 'int']),
    ('--config=tests/tiny.py --mode=evaluate', ['--mode=evaluate', 'train|eval']),
    ('--config=tests/tiny.py --workdri=x', ["'workdri'", 'workdir']),
    ('--config=tests/tiny.py train', ["unexpected arguments ['train']"]),
  ],
)
def test_mistakes_in_flags(arguments, parts):
  assert_refused(runs.start(*arguments.split()), *parts)


def test_help_names_the_flags_and_a_command():
  printed, errors = runs.start('--help').communicate(timeout=60)
  for part in ('--config=configs/quickstart.py', '--workdir', '--mode', 'runs/NAME'):
    assert part in printed
  assert errors == ''


def test_mistakes_in_the_config(data_dir, assets, tmp_path):
  config = f'--config.data.dir={data_dir}', f'--workdir={tmp_path}/run'
  # Batches of 12 on the eight devices of these tests.
  batch = runs.start_tiny(data_dir, *config, '--config.train.batch_size=12')
  tokenizer = f'--config.tokenizer={assets / T5_MODEL}'
  vocabulary = runs.start_tiny(data_dir, *config, tokenizer)
  assert_refused(batch, 'config.train.batch_size = 12', 'multiple of 8')
  assert_refused(vocabulary, '32000 pieces', 'only 288 rows', 'config.model.t5')
  no_data = runs.start_tiny(tmp_path, *config[1:], '--config.data.name=richhf18k')
  assert_refused(no_data, f'{tmp_path}/richhf18k', 'python -m rahf.data prepare')
  # None of these leaves a work directory.
  assert not (tmp_path / 'run').exists()


@pytest.fixture
def shards(trained, tmp_path) -> pathlib.Path:
  """A copy of the generated data to damage; the directory of its shards."""
  settings = json.loads((trained / 'config.json').read_text())
  shutil.copytree(settings['data']['dir'], tmp_path / 'data')
  (info,) = (tmp_path / 'data').rglob('shapes/*-12-61-3-*/*/dataset_info.json')
  return info.parent


def test_truncated_shard(shards, tmp_path):
  (shard,) = shards.glob('*-train.tfrecord*')
  shard.write_bytes(shard.read_bytes()[:-100])
  run = runs.start_tiny(tmp_path / 'data', f'--workdir={tmp_path}/run')
  assert_refused(run, str(shard), 'is truncated in record 11', 'copy it again')


def test_bytes_that_are_not_an_image(shards, tmp_path):
  # Imported here: the other tests of this file need no TensorFlow.
  import tensorflow as tf

  from rahf.data.datasets.joining.features import record_features
  from rahf.data.storage.records import open_split

  records = list(open_split(shards, 'train'))
  records[5] = records[5]._replace(image=b'GIF89a is not one of the formats')
  (shard,) = shards.glob('*-train.tfrecord*')
  with tf.io.TFRecordWriter(str(shard)) as writer:
    for record in records:
      writer.write(record_features().serialize_example(record._asdict()))
  run = runs.start_tiny(tmp_path / 'data', f'--workdir={tmp_path}/run')
  message = assert_refused(run, records[5].uid, 'not a PNG, JPEG or WEBP image')
  assert 'record 5' in message
  assert 'python -m rahf.data verify' in message


def test_only_our_own_value_errors_become_messages(monkeypatch, capsys):
  def end_with(error: Exception) -> int:
    def run(interruption):
      raise error

    monkeypatch.setattr(main, '_run', run)
    return main.main([''])

  assert end_with(InputError('train.steps = 0')) == 2
  assert 'error: train.steps = 0' in capsys.readouterr().err
  assert end_with(FileNotFoundError(2, 'No such file', '/nowhere')) == 2
  assert '/nowhere' in capsys.readouterr().err
  with pytest.raises(ValueError, match='out of a library'):
    end_with(ValueError('out of a library'))


def test_a_bug_in_a_config_shows_its_traceback_on_request(tmp_path):
  config = tmp_path / 'buggy.py'
  config.write_text('def get_config():\n  return undefined_name\n')
  assert_refused(runs.start(f'--config={config}'), 'line 2', 'undefined_name')
  process = runs.start(f'--config={config}', RAHF_TRACEBACK='1')
  _, errors = process.communicate(timeout=60)
  assert 'Traceback' in errors
  assert re.search(r'buggy.py", line 2[^$]*undefined_name', errors)


def test_too_little_memory_is_not_a_bug(monkeypatch, capsys):
  def run(interruption):
    np.empty(2**50)

  monkeypatch.setattr(main, '_run', run)
  assert main.main(['']) == 1
  assert 'out of memory: Unable to allocate' in capsys.readouterr().err
