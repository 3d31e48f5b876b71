"""python -m rahf.best: tables of prompts, the chosen images, and mistakes."""

import collections
import csv
import functools
import os
import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import clip_directory
import rahf
import tiny_directory
from rahf import best
from rahf.data.images import codec
from rahf.inference import open_scorer

ORIGINALS = ('a large red circle at the top left', 'two small blue squares')
TEMPLATES = ('{prompt}', 'green {prompt}')
SEEDS = 3


@pytest.fixture(scope='module')
def models(tmp_path_factory) -> dict[str, pathlib.Path]:
  folder = tmp_path_factory.mktemp('models')
  return {
    'rahf': tiny_directory.write(folder),
    'clip': clip_directory.write(folder / 'clip'),
  }


@pytest.fixture(scope='module')
def load():
  """Loads each model once for all tests."""
  real = open_scorer.load
  return functools.cache(lambda path, devices, **options: real(path, **options))


@pytest.fixture(autouse=True)
def _load_once(load, monkeypatch):
  monkeypatch.setattr(
    open_scorer, 'load', lambda path, **_: load(str(path), None, batch_size=4)
  )


def pixels_of(number: int) -> np.ndarray:
  return np.random.default_rng(number).integers(0, 256, (20, 30 + number, 3), np.uint8)


@pytest.fixture
def table(tmp_path, capsys) -> pathlib.Path:
  """A table of prompts, and the images that a generator made."""
  folder = tmp_path / 'run'
  folder.mkdir()
  (tmp_path / 'prompts.txt').write_text('\n'.join(ORIGINALS))
  (tmp_path / 'templates.txt').write_text('\n'.join(TEMPLATES))
  out = folder / 'prompts.csv'
  options = (f'--templates={tmp_path}/templates.txt', f'--seeds={SEEDS}')
  printed = run(capsys, 'prompts', tmp_path / 'prompts.txt', f'--out={out}', *options)
  assert printed.startswith(f'Written to {out}: 12 images to generate, from 2 prompts')
  (folder / 'images').mkdir()
  for number, row in enumerate(read(out)):
    data = codec.encode_png(pixels_of(number))
    (folder / row['file_name']).write_bytes(data)
  return out


def read(path: pathlib.Path) -> list[dict[str, str]]:
  with path.open(newline='') as file:
    return [*csv.DictReader(file)]


def run(capsys, *arguments: object, status: int = 0) -> str:
  """Runs the command and returns what it prints."""
  assert best.main([*map(str, arguments)]) == status
  return capsys.readouterr().out


def fails(capsys, *arguments: object) -> str:
  """Runs the command, which must fail, and returns its one error."""
  assert best.main([*map(str, arguments)]) == 2
  errors = capsys.readouterr().err
  # A progress bar may stand before it.
  assert errors.count('error: ') == 1
  return errors[errors.index('error: ') :]


def test_scores_are_those_against_the_original_prompt(models, table, tmp_path, capsys):
  out = tmp_path / 'best'
  printed = run(capsys, 'choose', table, f'--model={models["clip"]}', f'--out={out}')
  rows, given = read(out / 'choices.csv'), read(table)
  assert len(rows) == len(given) == 12
  images = [pixels_of(number) for number in range(12)]
  model = rahf.load(models['clip'])
  expected, templated = (
    [one.scores['similarity'] for one in model.score(images, [r[name] for r in given])]
    for name in ('original', 'prompt')
  )
  by_uid = {row['uid']: row for row in rows}
  found = [float(by_uid[row['file_name']]['similarity']) for row in given]
  assert found == pytest.approx(expected, abs=1e-5)
  # The test could not fail if the templates made no difference.
  assert max(np.abs(np.subtract(expected, templated))) > 1e-3
  for number, original in enumerate(ORIGINALS):
    of_prompt = [row for row in rows if row['original'] == original]
    values = [float(row['value']) for row in of_prompt]
    assert values == sorted(values, reverse=True)
    assert [row['rank'] for row in of_prompt] == list('123456')
    assert [row['chosen'] for row in of_prompt] == ['yes'] + ['no'] * 5
    top = max(range(6 * number, 6 * number + 6), key=expected.__getitem__)
    assert of_prompt[0]['uid'] == given[top]['file_name']
    assert of_prompt[0]['file'] == f'images/{number}-1.png'
    copied = (out / of_prompt[0]['file']).read_bytes()
    assert copied == (table.parent / given[top]['file_name']).read_bytes()
  assert [row['prompt'] for row in read(out / 'images' / 'metadata.csv')] == [
    *ORIGINALS
  ]
  assert len([*(out / 'images').iterdir()]) == 3
  assert {path.name for path in tmp_path.iterdir()} == {
    *('run', 'prompts.txt', 'templates.txt', 'best')
  }
  report = (out / 'best.md').read_text()
  assert report in f'# Chosen images\n\n{printed}'
  best_mean = np.mean([max(expected[:6]), max(expected[6:])])
  row = next(line for line in report.splitlines() if line.startswith('| value'))
  cells = [cell.strip() for cell in row.strip('|').split('|')]
  plain = np.mean([expected[:3], expected[6:9]])
  assert float(cells[1]) == pytest.approx(best_mean, abs=1e-4)
  assert float(cells[2]) == pytest.approx(np.mean(expected), abs=1e-4)
  assert float(cells[3]) == pytest.approx(best_mean - np.mean(expected), abs=2e-4)
  assert float(cells[5]) == pytest.approx(plain, abs=1e-4)
  assert float(cells[6]) == pytest.approx(best_mean - plain, abs=2e-4)


def test_a_sum_of_two_models_shows_its_terms(models, table, tmp_path, capsys):
  out = tmp_path / 'best'
  printed = run(
    capsys,
    *('choose', table, f'--model=a={models["rahf"]}', f'--model=b={models["clip"]}'),
    *('--by=a.alignment - 0.1*b.similarity', '--keep=2', f'--out={out}'),
  )
  rows = read(out / 'choices.csv')
  assert [*rows[0]] == [
    *('original', 'prompt', 'uid', 'a.plausibility', 'a.alignment', 'a.aesthetics'),
    *('a.overall', 'b.similarity', '1*a.alignment', '-0.1*b.similarity', 'value'),
    *('rank', 'chosen', 'file', 'error'),
  ]
  for row in rows:
    terms = [float(row['1*a.alignment']), float(row['-0.1*b.similarity'])]
    assert terms[0] == float(row['a.alignment'])
    assert terms[1] == pytest.approx(-0.1 * float(row['b.similarity']))
    assert float(row['value']) == pytest.approx(sum(terms))
  assert collections.Counter(row['chosen'] for row in rows) == {'yes': 4, 'no': 8}
  names = {path.name for path in (out / 'images').iterdir()}
  assert names == {'0-1.png', '0-2.png', '1-1.png', '1-2.png', 'metadata.csv'}
  assert '0 to 1, higher is better' in printed
  assert '-14.2857 to 14.2857, higher is better' in printed


def test_unreadable_images_are_named_and_never_chosen(models, table, tmp_path, capsys):
  images, given = table.parent / 'images', read(table)
  for number in (1, *range(6, 12)):
    (table.parent / given[number]['file_name']).write_bytes(b'no image')
  (images / '0-1-2.png').unlink()
  out = tmp_path / 'best'
  options = (f'--model={models["clip"]}', f'--out={out}', '--keep=9')
  printed = run(capsys, 'choose', table, *options, status=1)
  assert 'Images without scores, never chosen (8): images/0-0-1.png (' in printed
  assert f'Prompts without any image with scores (1): {ORIGINALS[1]}' in printed
  rows = read(out / 'choices.csv')
  bad = [row for row in rows if row['error']]
  assert len(bad) == 8
  assert {(row['value'], row['rank'], row['chosen']) for row in bad} == {('', '', 'no')}
  assert sum(row['chosen'] == 'yes' for row in rows) == 4
  assert len([*(out / 'images').iterdir()]) == 5
  run(capsys, 'choose', table, *options, '--sheet_prompts=0', status=2)
  assert (out / 'contact_sheet.png').exists()
  page = (out / 'choices.html').read_text()
  assert page.count('<figure class="kept">') == 4


def test_names_that_cannot_be_printed(models, tmp_path, capsys):
  folder = tmp_path / 'images'
  folder.mkdir()
  for name in (b'a\xff\n.png', b'b\x1b[31m.png'):
    path = folder / os.fsdecode(name)
    path.write_bytes(codec.encode_png(pixels_of(0)) if b'a' in name else b'no image')
    path.with_suffix('.txt').write_text(ORIGINALS[0])
  out = tmp_path / 'best'
  options = (f'--model={models["clip"]}', f'--out={out}')
  printed = run(capsys, 'choose', folder, *options, status=1)
  assert '(1): b\\x1b[31m.png (' in printed
  assert '\x1b' not in printed
  first, second = read(out / 'choices.csv')
  assert (first['uid'], first['file']) == ('a?\n.png', 'images/0-1.png')
  assert second['uid'] == 'b\x1b[31m.png'


def test_prompts_below_the_minimum_are_named(models, table, tmp_path, capsys):
  out = tmp_path / 'best'
  arguments = 'choose', str(table), f'--model={models["rahf"]}', f'--out={out}'
  assert best.main([*arguments, '--minimum=1.5', '--sheet_prompts=0']) == 1
  printed, errors = capsys.readouterr()
  assert 'lower --minimum' in errors
  poor = 'Prompts without a chosen image, since all values are below 1.5 (2): '
  assert f'{poor}{ORIGINALS[0]}; ' in printed
  assert '| value' not in printed
  assert not read(out / 'images' / 'metadata.csv')
  assert not (out / 'contact_sheet.png').exists()


def test_images_in_parquet_of_other_formats_and_equal_values(models, tmp_path, capsys):
  """Of copies, the first is chosen; names follow the content."""
  rows = []
  for number, kind in enumerate(('JPEG', 'WEBP')):
    path = tmp_path / 'image'
    Image.fromarray(pixels_of(number)).save(path, kind)
    row = {'image': path.read_bytes(), 'prompt': f'{ORIGINALS[number]}'}
    rows += [row | {'uid': f'{number}-{copy}'} for copy in range(2)]
  pq.write_table(pa.Table.from_pylist(rows), tmp_path / 't.parquet')
  out = tmp_path / 'best'
  printed = run(
    capsys,
    *('choose', tmp_path / 't.parquet', f'--model={models["clip"]}', f'--out={out}'),
  )
  assert 'unchanged' not in printed  # There are no templates.
  first, second, third, fourth = read(out / 'choices.csv')
  assert first['value'] == second['value']
  assert (first['uid'], first['file']) == ('0-0', 'images/0-1.jpg')
  assert (third['uid'], third['file']) == ('1-0', 'images/1-1.webp')
  assert (second['chosen'], fourth['chosen']) == ('no', 'no')
  for row, given in ((first, rows[0]), (third, rows[2])):
    assert (out / row['file']).read_bytes() == given['image']


def test_a_folder_with_the_table_as_prompts(models, table, tmp_path, capsys):
  """Its images compete for the original prompts, too."""
  arguments = (f'--model={models["clip"]}', '--sheet_prompts=0')
  run(capsys, 'choose', table, *arguments, f'--out={tmp_path}/a')
  folder = (table.parent / 'images', f'--prompts={table}')
  run(capsys, 'choose', *folder, *arguments, f'--out={tmp_path}/b')
  run(capsys, 'choose', table, *arguments, '--group=prompt', f'--out={tmp_path}/c')
  a, b, c = (read(tmp_path / name / 'choices.csv') for name in 'abc')
  assert [row['file'] for row in a] == [row['file'] for row in b]
  assert [row['value'] for row in a] == [row['value'] for row in b]
  assert [row['prompt'] for row in a] == [row['prompt'] for row in b]
  assert sum(row['chosen'] == 'yes' for row in c) == len(ORIGINALS) * len(TEMPLATES)
  assert all(row['original'] == row['prompt'] for row in c)


def test_the_contact_sheet_shows_the_best_first_and_framed(
  models, table, tmp_path, capsys
):
  out = tmp_path / 'best'
  run(capsys, 'choose', table, f'--model={models["clip"]}', f'--out={out}')
  from rahf.drawing import contact_sheet

  with Image.open(out / 'contact_sheet.png') as sheet:
    pixels = np.asarray(sheet.convert('RGB')).astype(int)
  colour = np.array([0x1C, 0x5F, 0xC4])
  framed = (pixels == colour).all(-1)
  # Captions of the chosen are in the same colour, but no wider than a picture.
  assert contact_sheet.CHOSEN == '#1c5fc4'
  edge = contact_sheet.MARGIN + contact_sheet.SIDE + contact_sheet.FRAME
  assert framed[:, :edge].any()
  assert not framed[:, edge:].any()
  full = framed[:, :edge].sum(1) >= contact_sheet.SIDE + 2 * contact_sheet.FRAME
  assert full.sum() == 2 * 2 * contact_sheet.FRAME  # Two prompts, top and bottom.


def test_mistakes_of_choose(models, table, tmp_path, capsys):
  clip, out = models['clip'], tmp_path / 'best'
  (tmp_path / 'empty').mkdir()

  def failing(*options, given=table, model=f'--model={clip}', where=out):
    message = fails(capsys, 'choose', given, model, f'--out={where}', *options)
    assert message.count('\n') == 1
    assert not out.exists()
    assert not (tmp_path / '.best.partial').exists()
    return message

  assert "--by=overall: 'overall' is not one of similarity" in failing('--by=overall')
  assert 'is not a score or a weighted sum' in failing('--by=similarity*2')
  assert 'contains no known files' in failing(given=tmp_path / 'empty')
  assert f'--out={table} exists; delete it' in failing(where=table)
  assert 'does not exist' in failing(where=tmp_path / 'no/where')
  assert 'a model directory' in failing(model=f'--model={tmp_path / "empty"}')
  second = f'--model={models["rahf"]}'
  assert 'of several models, each needs a name' in failing(second)
  named = (f'--model=a={clip}', f'--model=a={clip}')
  assert 'another model has the name a, too' in failing(named[0], model=named[1])
  assert '--by is missing; give one of a.similarity, b.similarity' in failing(
    f'--model=a={clip}', model=f'--model=b={clip}'
  ).replace('b.similarity, a.similarity', 'a.similarity, b.similarity')
  assert '--keep=0 must be at least 1' in failing('--keep=0')
  assert '--minimum=nan must be a number' in failing('--minimum=nan')
  assert 'is not a local path' in failing(where='gs://bucket/x')
  assert 'such a column; it has original, template, prompt' in failing('--group=theme')
  assert 'the path of a model is empty; give' in failing(model='--model=')
  inside = table.parent / 'images'
  assert 'are one inside the other' in failing(
    f'--prompts={table}', given=inside, where=inside / 'best'
  )


def test_mistakes_of_prompts(tmp_path, capsys):
  prompts, out = tmp_path / 'p.txt', tmp_path / 'out.csv'
  prompts.write_text('a red circle')
  bad = tmp_path / 'bad.txt'
  bad.write_text('{prompt}\nno place for it')

  def failing(*options, given=prompts, where=out):
    message = fails(capsys, 'prompts', given, f'--out={where}', *options)
    assert message.count('\n') == 1
    assert not out.exists()
    return message

  assert "line 2: 'no place for it' has {prompt} 0 times" in failing(
    f'--templates={bad}'
  )
  assert '--seeds=0 must be at least 1' in failing('--seeds=0')
  assert f'--out={prompts} exists' in failing(where=prompts)
  assert 'end it in .csv' in failing(where=tmp_path / 'out.txt')
  assert 'no such file' in failing(given=tmp_path / 'none.txt')
  assert '--templates is empty' in failing('--templates=')
