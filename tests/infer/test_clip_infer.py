"""--mode=infer with a CLIP: its column, its range in the manifest, nothing else."""

import json

import pytest
from absl.testing import flagsaver
from inference_files import COUNT, image_of, prompt_of, run, write_folder

import clip_directory
import rahf
from rahf import main
from rahf.errors import InputError
from rahf.infer import Job
from rahf.inference import results_folder

COLUMNS = ['uid', 'prompt', 'height', 'width', 'similarity', 'truncated', 'error']


@pytest.fixture(scope='module')
def clip(tmp_path_factory):
  return clip_directory.write(tmp_path_factory.mktemp('weights') / 'clip')


@pytest.fixture(scope='module')
def expected(clip):
  numbers = range(COUNT)
  model = rahf.load(clip, batch_size=8)
  return model.score([*map(image_of, numbers)], [*map(prompt_of, numbers)])


@pytest.mark.parametrize('format_', ['jsonl', 'parquet'])
def test_rows_have_the_columns_of_a_clip(clip, expected, tmp_path, format_, capsys):
  folder, out = write_folder(tmp_path / 'images'), tmp_path / 'out'
  (folder / '003x.png').write_bytes(b'no image')
  (folder / '003x.txt').write_text('a ring')
  job = Job(str(clip), str(folder), str(out), format=format_, batch_size=1)
  status, rows = run(job)
  assert status == 1
  bad = rows.pop(4)
  assert list(bad) == COLUMNS
  assert bad['similarity'] is None
  assert 'not a PNG' in bad['error']
  for row, one in zip(rows, expected, strict=True):
    assert list(row) == COLUMNS
    assert row['similarity'] == pytest.approx(one.scores['similarity'], abs=1e-5)
    assert row['truncated'] == one.truncated
  manifest = json.loads((out / results_folder.MANIFEST).read_text())
  assert manifest['model'] == 'Hugging Face CLIP, 32 px'
  assert manifest['outputs'].keys() == {'scores'}
  (similarity,) = manifest['outputs']['scores'].values()
  assert similarity['range'] == pytest.approx([-1 / 0.07, 1 / 0.07], rel=1e-5)
  assert similarity['direction'] == 'higher is better'
  printed = capsys.readouterr().out
  assert 'Scores are from -14.2857 to 14.2857, higher is better' in printed
  assert run(job) == (1, [*rows[:4], bad, *rows[4:]])  # Finished already.


def test_maps_cannot_be_asked_for(clip, tmp_path):
  job = Job(str(clip), str(write_folder(tmp_path / 'images')), str(tmp_path / 'out'))
  with pytest.raises(InputError, match=r'--maps=png, but .*clip makes no heatmaps'):
    run(Job(job.model, job.input, job.output, maps='png'))


def test_the_export_of_a_run_that_trained_a_clip_is_found(tmp_path, monkeypatch):
  clip_directory.write(tmp_path / 'run/export')
  jobs = []
  monkeypatch.setattr('rahf.infer.infer', lambda job, _: jobs.append(job) or 0)
  with flagsaver.flagsaver():
    flags = ['--mode=infer', f'--workdir={tmp_path}/run', '--input=a', '--output=b']
    main.parse_flags(['', *flags])
    assert main.main(['']) == 0
  assert [job.model for job in jobs] == [str(tmp_path / 'run/export')]
