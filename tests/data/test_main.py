"""The data commands: their output, and one-line errors for mistakes."""

import json
import os
import subprocess
import sys

import pytest

from rahf.data.__main__ import main


def _prepare(labels, images, out, *more):
  paths = ['--labels', labels, '--images', images, '--out', out, *more]
  return main(['prepare', 'richhf18k', *map(str, paths)])


def test_prepare_verify_stats_on_the_sample(assets, tmp_path, capfd):
  folder = assets / 'richhf_sample'
  assert _prepare(folder, folder / 'pickapic', tmp_path) == 0
  printed, progress = capfd.readouterr()
  counts = {line[:40].strip(): line[40:].split() for line in printed.splitlines()}
  assert counts['annotated samples'] == ['13', '2', '3']
  assert counts['prepared'] == ['13', '2', '3']
  assert counts['keyword labels do not fit the prompt'] == ['1', '0', '0']
  assert 'Joining: 100%' in progress
  target = tmp_path / 'richhf18k/1.0.0'
  assert f'Prepared: {target}' in printed
  report = json.loads((target / 'report.json').read_text())
  assert report['sources']['images'] == str(folder / 'pickapic')
  assert sorted(path.name for path in tmp_path.iterdir()) == ['richhf18k']

  assert main(['verify', str(tmp_path)]) == 0
  assert capfd.readouterr().out == 'Read train 13, dev 2, test 3: no problems.\n'
  assert main(['stats', str(tmp_path), '--split', 'dev']) == 0
  printed = capfd.readouterr().out
  assert '1024x1024' in printed
  assert f'Drawn: {target}/stats/scores.png, coverage.png, words.png' in printed
  assert (target / 'stats/words.png').exists()
  assert main(['stats', str(tmp_path), '--out', str(tmp_path / 'here')]) == 0
  assert len(list((tmp_path / 'here').iterdir())) == 3
  assert main(['verify', str(tmp_path)]) == 0


def test_verify_lists_problems_and_fails(release, tmp_path, capfd):
  for split in ('train', 'dev', 'test'):
    release.add(split, split)
  release.write()
  _prepare(release.labels, release.images, tmp_path / 'out')
  (shard,) = (tmp_path / 'out').rglob('*-dev.tfrecord-*')
  shard.write_bytes(shard.read_bytes()[:-1])
  capfd.readouterr()
  assert main(['verify', str(tmp_path / 'out')]) == 1
  *problems, summary = capfd.readouterr().out.splitlines()
  assert all(shard.name in problem for problem in problems)
  assert summary == 'Read train 1, dev 0, test 1: 2 problems.'


@pytest.mark.parametrize('missing', ['labels', 'images', 'prompts', 'dev.tfrecord'])
def test_missing_path_is_one_line(release, tmp_path, capfd, missing):
  release.add('train', 'a').write()
  (release.images / 'b.png').touch()
  (release.labels / 'dev.tfrecord').unlink()
  if missing != 'dev.tfrecord':
    (release.labels / 'dev.tfrecord').touch()
  labels, images = (
    tmp_path / 'absent' if missing == name else path
    for name, path in (('labels', release.labels), ('images', release.images))
  )
  more = ('--prompts', tmp_path / 'absent') if missing == 'prompts' else ()
  assert _prepare(labels, images, tmp_path / 'out', *more) == 2
  printed, error = capfd.readouterr()
  assert printed == ''
  assert error.startswith('error: --')
  assert error.count('\n') == 1
  assert ('absent' if 'tfrecord' not in missing else missing) in error
  assert not (tmp_path / 'out').exists()


def test_truncated_label_file_is_one_line_without_traceback(release, tmp_path):
  release.add('test', 'a').write()
  path = release.labels / 'test.tfrecord'
  path.write_bytes(path.read_bytes()[:-9])
  command = [sys.executable, '-m', 'rahf.data', 'prepare', 'richhf18k', '--labels']
  command += [release.labels, '--images', release.images, '--out', tmp_path / 'out']
  # The tests' own log level would let TensorFlow's errors about CUDA through.
  env = {k: v for k, v in os.environ.items() if k != 'TF_CPP_MIN_LOG_LEVEL'}
  done = subprocess.run(command, capture_output=True, text=True, env=env)
  assert done.returncode == 2
  assert done.stdout == ''
  assert done.stderr == (
    f'error: {path}: record 0 (counted from 0), at byte 0 of {path.stat().st_size}, '
    'is truncated or damaged; download the file again\n'
  )


def test_missing_extra_is_named(monkeypatch, tmp_path, capfd):
  monkeypatch.setitem(sys.modules, 'tensorflow', None)
  assert main(['stats', str(tmp_path)]) == 2
  assert 'pip install "rahf[train]"' in capfd.readouterr().err


@pytest.mark.parametrize(
  'command',
  [
    [],
    ['prepare'],
    ['prepare', 'richhf18k'],
    ['prepare', 'shapes'],
    ['verify'],
    ['stats'],
  ],
)
def test_help(command, capsys):
  with pytest.raises(SystemExit) as stop:
    main([*command, '--help'])
  assert stop.value.code == 0
  assert 'usage: python -m rahf.data' in capsys.readouterr().out


def test_prepare_shapes(tmp_path, capfd):
  sizes = ['--train', '3', '--dev', '2', '--test', '1', '--image-size', '64']
  assert main(['prepare', 'shapes', '--out', str(tmp_path), *sizes]) == 0
  assert 'Prepared: ' in capfd.readouterr().out
  assert main(['verify', str(tmp_path)]) == 0
  assert 'train 3, dev 2, test 1: no problems' in capfd.readouterr().out
