"""--mode=infer: kinds of input, order, errors, maps, several processes."""

import pathlib
import shutil

import numpy as np
import pytest
from absl.testing import flagsaver
from inference_files import (
  COUNT,
  assert_rows,
  image_of,
  make_input,
  prompt_of,
  run,
  table_rows,
  write_folder,
  write_table,
  write_tar,
)
from PIL import Image

import runs
from rahf import infer, main
from rahf.data import schema
from rahf.data.images import codec
from rahf.inference import results_folder
from rahf.runtime.preemption import Interrupted, Interruption


@pytest.mark.parametrize(
  'kind',
  [
    *('folder', 'folder and table', '.csv', '.tsv', '.jsonl', '.parquet'),
    *('other columns', 'parquet of bytes', 'parquet of Hugging Face', 'tar'),
    *('tar.gz of JSON', 'shards', 'pattern', 'prepared data set'),
    'TFRecords of others',
  ],
)
def test_every_input_gives_the_same_rows_in_order(kind, job, expected, tmp_path):
  given, prompts = make_input(kind, tmp_path)
  status, rows = run(job(given, prompts=prompts))
  assert status == 0
  assert_rows(rows, expected)
  # Scores differ enough to tell one image from another.
  assert len({row['overall'] for row in rows}) == COUNT
  assert not (tmp_path / 'out/parts').exists()


def test_uids(job, tmp_path):
  _, rows = run(job(write_folder(tmp_path / 'images' / 'deep').parent))
  assert [row['uid'] for row in rows[:2]] == ['deep/000.png', 'deep/001.png']
  table = table_rows(tmp_path / 'images')
  for number, row in enumerate(table):
    row['uid'] = 100 - number
  _, rows = run(job(write_table(tmp_path / 't.jsonl', table), output=tmp_path / 'b'))
  assert [row['uid'] for row in rows] == [str(100 - n) for n in range(COUNT)]


def test_parquet_has_the_same_rows(job, tmp_path):
  bad = tmp_path / 'images/003x.png'
  folder = write_folder(tmp_path / 'images')
  bad.write_bytes(b'no image')
  lines = run(job(folder, output=tmp_path / 'lines'))
  columns = run(job(folder, output=tmp_path / 'columns', format='parquet'))
  assert lines[0] == 1
  # JSON has all digits of values that are float32 in parquet.
  assert columns == lines
  assert len(lines[1]) == COUNT + 1


def test_maps(job, expected, tmp_path):
  folder = write_folder(tmp_path / 'images')
  png = run(job(folder, maps='png', output=tmp_path / 'png'))[1]
  npz = run(job(folder, maps='npz', output=tmp_path / 'npz'))[1]
  for row, other, one in zip(png, npz, expected, strict=True):
    for name, heatmap in one.heatmaps.items():
      column = f'{name}_map'
      found = codec.decode_map((tmp_path / 'png' / row[column]).read_bytes())
      np.testing.assert_allclose(found, heatmap, atol=0.5 / 255 + 1e-5)
      with np.load(tmp_path / 'npz' / other[column]) as stored:
        assert stored[name].dtype == np.float16
        np.testing.assert_allclose(stored[name], heatmap, atol=1e-3)
  # A folder for each part.
  assert [path.name for path in sorted((tmp_path / 'npz/maps').iterdir())] == [
    '00000',
    '00001',
  ]


BROKEN = [
  ({'image': 'x/cut.png', 'prompt': 'a'}, 'cannot be decoded'),
  ({'image': 'x/gif.png', 'prompt': 'a'}, 'not a PNG, JPEG or WEBP image'),
  ({'image': 'nowhere.png', 'prompt': 'a'}, 'nowhere.png cannot be read: No such file'),
  ({'image': 'a\0b.png', 'prompt': 'a'}, 'null byte'),
  ({'image': 'https://a.b/c.png', 'prompt': 'a'}, 'is a URL; download the image'),
  ({'image': None, 'prompt': 'a'}, 'its image is None'),
  ({'image': 'x/000.png', 'prompt': ' '}, "its prompt is ' '"),
  ({'image': 'x/000.png', 'prompt': 7}, 'its prompt is 7'),
  ({'image': 'x/000.png', 'prompt': 'a \ud800'}, 'not valid Unicode'),
  ({'picture': 'x/000.png', 'prompt': 'a'}, 'needs a prompt column, prompt or caption'),
  ([1], 'not a JSON object'),
]


def write_broken(folder: pathlib.Path) -> pathlib.Path:
  """Writes a table in which a good row comes before each of BROKEN."""
  write_folder(folder / 'x', prompts=False)
  (folder / 'x/cut.png').write_bytes(image_of(0)[:300])
  (folder / 'x/gif.png').write_bytes(b'GIF89a')
  rows = []
  for number, (row, _) in enumerate(BROKEN):
    rows += [{'image': f'x/{number:03d}.png', 'prompt': prompt_of(number)}, row]
  return write_table(folder / 't.jsonl', rows)


def test_a_bad_image_is_a_row_with_an_error(job, expected, tmp_path, capsys):
  status, rows = run(job(write_broken(tmp_path), maps='png'))
  assert status == 1
  assert_rows(rows[::2], expected)
  assert len(rows) == 2 * len(BROKEN)
  for row, (_, message) in zip(rows[1::2], BROKEN, strict=True):
    assert message in row['error']
    empty = {value for name, value in row.items() if name not in ('uid', 'prompt')}
    assert empty == {None, row['error']}
  assert f'{len(BROKEN)} of them have no result' in capsys.readouterr().out
  # A finished job keeps its exit status.
  assert infer.infer(job(tmp_path / 't.jsonl', maps='png'), Interruption()) == 1


def test_an_exception_of_a_decoder_becomes_a_row(job, model, tmp_path, monkeypatch):
  def prepare(image, prompt):
    raise IndexError('out of a decoder')

  monkeypatch.setattr(type(model), 'prepare', staticmethod(prepare))
  status, rows = run(job(write_folder(tmp_path / 'images')))
  assert status == 1
  assert {row['error'] for row in rows} == {'IndexError: out of a decoder'}


def test_scores_that_are_not_finite_are_an_error(job, model, tmp_path, monkeypatch):
  score = model.score_examples

  def diverged(examples):
    found = score(examples)
    found[0].scores['overall'] = float('nan')
    return found

  monkeypatch.setattr(model, 'score_examples', diverged)
  status, rows = run(job(write_folder(tmp_path / 'images', 3)))
  assert status == 1
  errors = [row['error'] for row in rows]
  assert errors == ['its scores are not finite', None, None]


def test_names_cannot_escape_the_folder(job, tmp_path):
  """Mainly those of tar members; two with the same name get separate maps."""
  keys = ['../../../evil', '/etc/evil', 'a/1', '..', 'a/1', 'ü/ \n', 'n' * 90]
  files = []
  for number, key in enumerate(keys):
    if key == '..':  # Nothing before the first dot.
      key = 'x/../y'
    files += [(f'{key}.png', image_of(number)), (f'{key}.txt', b'a red circle')]
    files += [
      (f'between{number}.png', image_of(number)),
      (f'between{number}.txt', b'a'),
    ]
  write_tar(tmp_path / 'in/t.tar', files)
  status, rows = run(job(tmp_path / 'in/t.tar', maps='png'))
  assert status == 0
  assert len(rows) == 2 * len(keys)
  assert rows[0]['uid'] == '../../../evil'
  paths = [row[f'{name}_map'] for row in rows for name in schema.MAPS]
  assert len(set(paths)) == len(paths)
  maps = (tmp_path / 'out/maps').resolve()
  written = {path.resolve() for path in maps.rglob('*.png')}
  assert {(tmp_path / 'out' / path).resolve() for path in paths} == written
  assert {path.name for path in tmp_path.iterdir()} == {'in', 'out'}


def test_each_process_has_its_own_parts(job, expected, tmp_path, monkeypatch):
  """Simulated without JAX processes: the first finds the second's parts."""
  folder = write_folder(tmp_path / 'images')
  made = []
  write = results_folder.Output.write_part

  def note(self, part, rows):
    made.append(part)
    write(self, part, rows)

  def stop(*_):
    raise Interrupted

  monkeypatch.setattr(results_folder.Output, 'write_part', note)
  monkeypatch.setattr(infer.jax, 'process_count', lambda: 2)
  with monkeypatch.context() as patch:
    patch.setattr(infer, '_complete', stop)
    for number in (0, 1):
      patch.setattr(infer.jax, 'process_index', lambda number=number: number)
      patch.setattr(infer.distributed, 'check_joined', lambda: None)
      with pytest.raises(Interrupted):
        run(job(folder))
      assert made == [0, 1][: number + 1]
  monkeypatch.setattr(infer.jax, 'process_count', lambda: 1)
  assert_rows(run(job(folder))[1], expected)
  assert made == [0, 1]


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ('--mode=infer', '--input is missing'),
    ('--mode=infer --input=x', '--output is missing'),
    ('--mode=infer --input=x --output=y', '--model is missing'),
    ('--mode=infer --input=x --output=y --model=z --maps=gif', 'maps=gif is not one'),
    ('--mode=infer --input=x --output=gs://b/x --model=z', 'mount the bucket'),
    ('--mode=infer --input=gs://b/x --output=y --model=z', 'mount the bucket'),
    ('--config=tests/tiny.py --input=x', '--input is for --mode=infer'),
  ],
)
def test_mistakes_in_flags(arguments, message):
  _, errors = (process := runs.start(*arguments.split())).communicate(timeout=60)
  assert process.returncode == 2
  assert message in errors
  assert 'Traceback' not in errors


def test_the_export_of_a_work_directory_is_found(directory, tmp_path, monkeypatch):
  jobs = []
  monkeypatch.setattr(infer, 'infer', lambda job, _: jobs.append(job) or 1)
  shutil.copytree(directory, tmp_path / 'run/export')
  with flagsaver.flagsaver():
    for workdir in ('run', 'nothing'):
      main.parse_flags(
        [
          '',
          '--mode=infer',
          f'--workdir={tmp_path / workdir}',
          '--input=a',
          '--output=b',
        ]
      )
      status = main.main([''])
      assert status == {'run': 1, 'nothing': 2}[workdir]
  assert [job.model for job in jobs] == [str(tmp_path / 'run/export')]


def test_rotated_and_grey_images_are_read_as_in_training(job, model, tmp_path):
  """As JPEG, since all other tests use PNG."""
  picture = Image.fromarray(codec.decode_image(image_of(5))).convert('L')
  exif = Image.Exif()
  exif[0x0112] = 6
  (tmp_path / 'images').mkdir()
  picture.save(tmp_path / 'images/a.JPG', exif=exif)
  (tmp_path / 'images/a.txt').write_text('a red circle')
  _, rows = run(job(tmp_path / 'images'))
  assert_rows(rows, model.score(tmp_path / 'images/a.JPG', 'a red circle'))
  assert (rows[0]['width'], rows[0]['height']) == (25, 25)


def test_linked_folders_are_reported(job, tmp_path, capsys):
  """All images found have a result, but the status says that some were skipped."""
  folder = write_folder(tmp_path / 'images', 1)
  write_folder(tmp_path / 'elsewhere', 1)
  (folder / 'away').symlink_to(tmp_path / 'elsewhere')
  for _ in range(2):
    status, rows = run(job(folder))
    assert status == 1
    assert [(row['uid'], row['error']) for row in rows] == [('000.png', None)]
    errors = capsys.readouterr().err
    assert 'Warning: skipped 1 linked folders, the first ' in errors
    assert str(folder / 'away') in errors
