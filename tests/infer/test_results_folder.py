"""Results are complete or can be completed, and belong to one job."""

import json
import os
import shutil
import signal
import socket

import numpy as np
import pytest
from absl.testing import flagsaver
from inference_files import (
  COUNT,
  image_of,
  run,
  start,
  table_rows,
  wait_for_parts,
  write_folder,
  write_table,
)

import runs
from rahf import infer, main
from rahf.data import schema
from rahf.errors import InputError
from rahf.infer import Job
from rahf.inference import results_folder
from rahf.runtime.preemption import Interrupted, Interruption


def test_a_kill_neither_loses_nor_duplicates_rows(directory, job, tmp_path):
  """The real command without the extra `train`, with one bad image."""
  folder = write_folder(tmp_path / 'images', 60)
  (folder / '007.png').write_bytes(b'')
  status, uninterrupted = run(
    job(folder, maps='npz', output=tmp_path / 'uninterrupted')
  )
  assert status == 1

  out = tmp_path / 'out'
  arguments = (f'--input={folder}', f'--output={out}', '--maps=npz')
  extra = 'tensorflow tensorflow_datasets pyarrow matplotlib'
  process = start(directory, *arguments, blocked=extra, seconds=0.5)
  wait_for_parts(process, out, 3)
  with pytest.raises(InputError, match=r'another process is writing to .*out'):
    run(job(folder, maps='npz'))
  process.kill()
  process.communicate()
  assert not (out / 'results.jsonl').exists()
  # A leftover of a kill, and a mark that shows that a part is not made again.
  (out / 'parts/.00005.host.1').write_text('{"uid": "half a li')
  part = out / 'parts/00001.jsonl'
  part.write_text(part.read_text().replace('008.png"', '008.png kept"'))

  process = start(directory, *arguments, blocked=extra)
  printed, errors = process.communicate(timeout=200)
  assert process.returncode == 1, errors
  assert '1 of them have no result' in printed
  rows = [json.loads(line) for line in (out / 'results.jsonl').open()]
  assert rows[8]['uid'] == '008.png kept'
  rows[8]['uid'] = '008.png'
  assert rows == uninterrupted
  for path in (tmp_path / 'uninterrupted/maps').rglob('*.npz'):
    other = out / path.relative_to(tmp_path / 'uninterrupted')
    with np.load(path) as one, np.load(other) as two:
      for name in schema.MAPS:
        np.testing.assert_array_equal(one[name], two[name])


def test_a_signal_keeps_complete_parts(job, tmp_path, monkeypatch):
  folder = write_folder(tmp_path / 'images', 40)
  _, expected = run(job(folder, output=tmp_path / 'uninterrupted'))
  write = results_folder.Output.write_part
  made = []

  def write_and_end(self, part, rows):
    write(self, part, rows)
    made.append(part)
    if part == 1:
      os.kill(os.getpid(), signal.SIGTERM)

  monkeypatch.setattr(results_folder.Output, 'write_part', write_and_end)
  with Interruption() as interruption, pytest.raises(Interrupted):
    infer.infer(job(folder), interruption)
  assert run(job(folder)) == (0, expected)
  assert made == [*range(5)]


def test_the_status_after_an_interruption(monkeypatch, tmp_path, capsys):
  def stop(*_):
    raise Interrupted

  monkeypatch.setattr(infer, 'infer', stop)
  with flagsaver.flagsaver():
    main.parse_flags(['', '--mode=infer', '--model=a', '--input=b', '--output=c'])
    assert main.main(['']) == 1
  assert 'run the same command to continue' in capsys.readouterr().out


@pytest.mark.parametrize('moment', ['before', 'after'])
def test_a_stop_around_the_last_step(moment, job, tmp_path, monkeypatch):
  """Parts stay until the manifest says that the results are complete."""
  folder = write_folder(tmp_path / 'images')
  _, expected = run(job(folder, output=tmp_path / 'uninterrupted'))
  finish, remove = results_folder.Output.finish, results_folder.Output.remove_parts

  def stop(*_):
    raise Interrupted

  def finish_but_note(self):
    finish(self)
    manifest = json.loads((self.folder / 'manifest.json').read_text())
    del manifest['summary']
    (self.folder / 'manifest.json').write_text(json.dumps(manifest))
    stop()

  if moment == 'before':
    monkeypatch.setattr(results_folder.Output, 'finish', finish_but_note)
  else:
    monkeypatch.setattr(results_folder.Output, 'remove_parts', stop)
  with pytest.raises(Interrupted):
    run(job(folder))
  assert (tmp_path / 'out/results.jsonl').exists()
  assert (tmp_path / 'out/parts').exists()
  monkeypatch.setattr(results_folder.Output, 'finish', finish)
  monkeypatch.setattr(results_folder.Output, 'remove_parts', remove)
  assert run(job(folder)) == (0, expected)
  assert not (tmp_path / 'out/parts').exists()


def test_results_of_something_else_are_refused(job, directory, tmp_path, monkeypatch):
  folder = write_folder(tmp_path / 'images')
  run(job(folder))
  before = (tmp_path / 'out/results.jsonl').read_bytes()
  with pytest.raises(InputError, match=r'maps was none, is png.*another --output'):
    run(job(folder, maps='png'))
  with pytest.raises(InputError, match='format was jsonl, is parquet'):
    run(job(folder, format='parquet'))
  other = shutil.copytree(directory, tmp_path / 'model')
  settings = json.loads((other / 'model.json').read_text())
  settings['outputs']['keywords']['threshold'] = 0.75
  del settings['sha256']  # Marks the change as intended.
  (other / 'model.json').write_text(json.dumps(settings))
  with pytest.raises(InputError, match=r'model was [0-9a-f]{64}, is'):
    run(Job(str(other), str(folder), str(tmp_path / 'out'), batch_size=1))
  (folder / '999.png').write_bytes(image_of(1))
  with pytest.raises(InputError, match=f'input was .*rows was {COUNT}, is {COUNT + 1}'):
    run(job(folder))
  (tmp_path / 'notes').mkdir()
  (tmp_path / 'notes/a.txt').write_text('mine')
  with pytest.raises(InputError, match=r'notes has other files and no manifest'):
    run(job(folder, output=tmp_path / 'notes'))
  assert (tmp_path / 'out/results.jsonl').read_bytes() == before


def test_leftovers_of_kills_do_no_harm(job, tmp_path):
  folder, out = write_folder(tmp_path / 'images', 3), tmp_path / 'out'
  out.mkdir()
  for name in ('.lock', '.manifest.json', '.manifest.json.host.1'):
    (out / name).write_text('')
  assert run(job(folder))[0] == 0
  (tmp_path / 'other').mkdir()
  settings = results_folder.Settings('m', 'i', 1, 'none', 'jsonl')
  finished = results_folder.Output(tmp_path / 'other', settings, about={})
  finished.write_part(0, [{'error': None}])
  (tmp_path / 'other/.results.jsonl.host.1').write_text('as large as the results')
  finished.finish()
  left = {path.name for path in finished.folder.iterdir()}
  assert left == {'manifest.json', 'results.jsonl', 'parts'}


@pytest.mark.parametrize(
  ('given', 'out'),
  [
    ('images', 'images'),
    ('images', 'images/results'),
    ('images/../images', 'images/a/b'),
    ('images/deep', 'images'),
    ('images/**/*.tar', 'images/results'),
    ('images/x/*.tar', 'images'),
  ],
)
def test_input_and_output_must_not_contain_each_other(given, out, job, tmp_path):
  """Otherwise maps just written would be read as images."""
  write_folder(tmp_path / 'images/deep', 1)
  before = sorted(tmp_path.rglob('*'))
  with pytest.raises(InputError, match='inside the other: results would be read as'):
    run(job(tmp_path / given, output=tmp_path / out, maps='png'))
  assert sorted(tmp_path.rglob('*')) == before


def test_results_beside_a_table(job, tmp_path):
  """The table's folder is not searched for images."""
  table = write_table(tmp_path / 't.csv', table_rows(tmp_path / 'images'))
  assert run(job(table, output=tmp_path / 'results', maps='png'))[0] == 0
  (tmp_path / 'link').symlink_to(tmp_path / 'images')
  with pytest.raises(InputError, match='inside the other'):
    run(job(tmp_path / 'link', output=tmp_path / 'images/results'))


def test_deleted_results(job, tmp_path):
  folder = write_folder(tmp_path / 'images', 3)
  _, expected = run(job(folder))
  (tmp_path / 'out/results.jsonl').unlink()
  with pytest.raises(
    InputError, match=r'results\.jsonl is missing.*; delete .*out and'
  ):
    run(job(folder))
  shutil.rmtree(tmp_path / 'out')
  assert run(job(folder)) == (0, expected)


@pytest.mark.parametrize('name', ['input', 'prompts', 'output'])
def test_buckets_are_refused(name, job, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  given = {'input': write_folder(tmp_path / 'images', 1)} | {name: 'gs://bucket/x'}
  with pytest.raises(InputError, match=f'--{name}=gs://bucket/x is not a local path'):
    run(job(given.pop('input'), **given))
  assert {path.name for path in tmp_path.iterdir()} == {'images'}


def test_ranges_are_printed(job, tmp_path, capsys):
  run(job(write_folder(tmp_path / 'images', 1)))
  assert (
    'Scores are from 0 to 1, higher is better; maps from' in capsys.readouterr().out
  )


def test_two_processes_share_the_work(directory, job, tmp_path):
  folder = write_folder(tmp_path / 'images', 40)
  _, single = run(job(folder, output=tmp_path / 'single'))
  with socket.socket() as free:
    free.bind(('localhost', 0))
    address = f'localhost:{free.getsockname()[1]}'
  both = [
    start(
      directory,
      *(f'--input={folder}', f'--output={tmp_path / "out"}', '--multihost'),
      seconds=0.5 * number,  # The first has to wait for the second.
      XLA_FLAGS=runs.os.environ['XLA_FLAGS'].replace('count=8', 'count=2'),
      JAX_COORDINATOR_ADDRESS=address,
      JAX_NUM_PROCESSES='2',
      JAX_PROCESS_ID=str(number),
    )
    for number in range(2)
  ]
  ends = [process.communicate(timeout=200) for process in both]
  assert [process.returncode for process in both] == [0, 0], ends
  assert '40 images' in ends[0][0]
  assert 'images' not in ends[1][0]
  assert 'Scoring' not in ends[1][1]
  rows = [json.loads(line) for line in (tmp_path / 'out/results.jsonl').open()]
  assert [row['uid'] for row in rows] == [row['uid'] for row in single]
  for row, other in zip(rows, single, strict=True):
    assert row['overall'] == pytest.approx(other['overall'], abs=1e-5)
