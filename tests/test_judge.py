"""python -m rahf.judge with a tiny RAHF and a tiny CLIP, on small folders."""

import csv
import os
import pathlib
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

import clip_directory
import rahf
import tiny_directory
from rahf import judge
from rahf.evaluation.image_features import clip_features, extract
from rahf.metrics import bootstrap, correlation
from rahf.metrics.distribution import cmmd

PROMPTS = (
  *('a red circle', 'a "blue" square', 'two green <b>rings</b>, one star', 'no words'),
  'a large red circle, two small blue squares next to a green ring. ' * 10,
)
SCORES = ('plausibility', 'alignment', 'aesthetics', 'overall')
MEASURES = (
  *(f'tiny/{name}' for name in (*SCORES, 'implausibility_map', 'misalignment_map')),
  *('tiny/misaligned', 'clip/similarity'),
)


def write_images(folder: pathlib.Path, names, seed: int) -> pathlib.Path:
  random = np.random.default_rng(seed)
  folder.mkdir(parents=True)
  for name in names:
    pixels = random.integers(0, 90 + 40 * seed, (24 + seed, 30, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(folder / f'{name}.png')
  return folder


def write_prompts(path: pathlib.Path, prompts: dict[str, str]) -> pathlib.Path:
  with path.open('w', newline='') as file:
    csv.writer(file).writerows([('image', 'prompt'), *prompts.items()])
  return path


def read(path: pathlib.Path) -> list[dict[str, str]]:
  with path.open(newline='') as file:
    return list(csv.DictReader(file))


@pytest.fixture(scope='module')
def place(tmp_path_factory) -> pathlib.Path:
  """A folder with two models, and the images of three generators."""
  place = tmp_path_factory.mktemp('judge')
  (place / 'x').mkdir()
  tiny_directory.write(place / 'x', threshold=0.45)
  clip_directory.write(place / 'clip')
  names = [f'{number}{turn}' for number in range(len(PROMPTS)) for turn in 'ab']
  table = {f'{name}.png': PROMPTS[int(name[0])] for name in names}
  write_prompts(place / 'prompts.csv', table | {'lonely.png': 'only of b'})
  for seed, name in enumerate(('a', 'b', 'c', 'real')):
    write_images(place / name, names, seed)
  (place / 'a' / '0b.png').write_bytes(b'no image')
  (place / 'c' / '1a.png').unlink()
  shutil.copy(place / 'b' / '0a.png', place / 'b' / 'lonely.png')
  shutil.copy(place / 'b' / '0a.png', place / 'b' / 'unknown.png')
  return place


def arguments(place: pathlib.Path, *others: object) -> list[str]:
  images = [f'{name}={place / name}' for name in 'abc']
  given = ['--images', *images, f'--prompts={place}/prompts.csv', '--batch_size=1']
  models = [f'tiny={place}/x/model', str(place / 'clip')]
  return [*given, '--model', *models, *map(str, others)]


@pytest.fixture(scope='module')
def out(place) -> pathlib.Path:
  """What the command writes."""
  options = (f'--reference={place}/real', f'--clip={place}/clip', f'--out={place}/out')
  assert judge.main(arguments(place, *options)) == 0
  return place / 'out'


@pytest.fixture(scope='module')
def table(out) -> dict[str, dict[str, np.ndarray]]:
  """From scores.csv: measure -> generator -> mean of each prompt."""
  rows = [row for row in read(out / 'scores.csv') if not row['left_out']]
  return {
    measure: {
      name: np.array(
        [
          np.mean(
            [
              float(row[measure])
              for row in rows
              if (row['generator'], row['prompt']) == (name, prompt.strip())
            ]
          )
          for prompt in PROMPTS
        ]
      )
      for name in 'abc'
    }
    for measure in MEASURES
  }


def test_every_image_has_a_row_with_its_scores_or_its_error(place, out):
  rows = read(out / 'scores.csv')
  assert [*rows[0]] == ['generator', 'uid', 'prompt', *MEASURES, 'left_out']
  assert [row['uid'] for row in rows if row['generator'] == 'c'] == [
    path.name for path in sorted((place / 'c').iterdir())
  ]
  errors = {(row['generator'], row['uid']): row['left_out'] for row in rows}
  errors = {key: error for key, error in errors.items() if error}
  assert errors.keys() == {('a', '0b.png'), ('b', 'lonely.png'), ('b', 'unknown.png')}
  assert errors['b', 'lonely.png'] == 'other generators lack its prompt'
  assert errors['b', 'unknown.png'] == 'no prompt: no prompt in prompts.csv'
  assert errors['a', '0b.png'].startswith('unreadable: ')
  good = [row for row in rows if row['generator'] == 'b' and row['clip/similarity']]
  paths = [place / 'b' / row['uid'] for row in good]
  prompts = [row['prompt'] for row in good]
  for name, folder in (('tiny', place / 'x/model'), ('clip', place / 'clip')):
    model = rahf.load(folder, batch_size=8, devices=jax.devices())
    for row, said in zip(good, model.score(paths, prompts), strict=True):
      expected = {f'{name}/{key}': value for key, value in said.scores.items()}
      for key, found in said.small_maps.items():
        expected[f'{name}/{key}_map'] = found.mean()
      if name == 'tiny':
        words = [p for _, p in said.keywords]
        expected['tiny/misaligned'] = sum(p > 0.45 for p in words) / len(words)
      found = {key: float(row[key]) for key in expected}
      assert found == pytest.approx(expected, abs=2e-5)


def test_numbers_are_those_of_the_scores(out, table):
  rows = read(out / 'judge.csv')
  assert [*rows[0]] == ['generator', 'measure', 'value', 'low', 'high', 'rank']
  found = {(row['generator'], row['measure']): row for row in rows}
  assert len(found) == len(rows) == 3 * (2 * len(MEASURES) + 1)
  for measure in MEASURES:
    scores = table[measure]
    sign = -1 if measure.endswith(('_map', 'misaligned')) else 1
    for name in 'abc':
      row = found[name, f'{measure}/mean']
      expected = bootstrap.resample(bootstrap.mean(scores[name]), 5).interval
      values = [float(row[key]) for key in ('value', 'low', 'high')]
      assert values == pytest.approx([*expected], abs=1e-9)
      others = [scores[other] for other in 'abc' if other != name]
      ahead = [sign * (scores[name] - other) for other in others]
      won = np.mean([(a > 0) + (a == 0) / 2 for a in ahead])
      assert float(found[name, f'{measure}/win_rate']['value']) == pytest.approx(won)
    for key in ('mean', 'win_rate'):
      best = sign if key == 'mean' else 1
      values = {n: best * float(found[n, f'{measure}/{key}']['value']) for n in 'abc'}
      for name in 'abc':
        rank = 1 + sum(other > values[name] for other in values.values())
        assert int(found[name, f'{measure}/{key}']['rank']) == rank


def test_cmmd_of_all_readable_images(place, out):
  extractor = clip_features(place / 'clip')
  real = extract(extractor, str(place / 'real')).features
  for row in read(out / 'judge.csv'):
    if row['measure'] == 'CMMD':
      features = extract(extractor, str(place / row['generator'])).features
      assert float(row['value']) == pytest.approx(cmmd(features, real), rel=1e-3)
      assert row['low'] == row['high'] == ''


def test_the_report_has_tables_agreement_and_what_was_left_out(out, table):
  text = (out / 'judge.md').read_text()
  assert '3 generators on 5 prompts of which all have images.' in text
  for heading in ('Ranks', 'tiny/overall ↑', 'tiny/misaligned ↓', 'CMMD ↓', 'Images'):
    assert f'\n## {heading}\n' in text
  assert 'by CLIP of 32 px, not a published size' in text
  note = "- a has no scores for 1 of 6 prompts, which are therefore not compared: 'only"
  assert note in text
  assert "- a: left out of 10 images: 1 (unreadable), '0b.png' (" in text
  assert "- b: left out of 12 images: 1 (no prompt), 'unknown.png' (" in text
  assert '- c: clip did not read the end of prompts that are too long for it: 2 of' in (
    text
  )
  lines = text.partition('Agreement of rankings: Kendall')[2].splitlines()
  rows = [line.strip('| ').split('|') for line in lines if line.startswith('| ')]
  rates = []
  for measure in ('tiny/overall', 'clip/similarity'):
    scores = np.stack([*table[measure].values()])
    rates.append([(one > scores).sum() for one in scores])
  (row,) = (row for row in rows if row[0].strip() == '4 tiny/overall')
  assert float(row[8]) == pytest.approx(
    correlation.kendall(*map(np.array, rates)), abs=1e-3
  )


def test_the_page_holds_all_tables_and_runs_nothing(out):
  page = (out / 'judge.html').read_text()
  assert {path.name for path in out.iterdir()} == {
    *('judge.md', 'judge.csv', 'judge.html', 'scores.csv')
  }
  text = (out / 'judge.md').read_text()
  assert page.count('<table>') == text.count('\n## ') - text.count('\n## Notes')
  assert page.count('<svg') == 3 * len(MEASURES)
  assert 'default-src &#39;none&#39;' in page
  assert '<script' not in page
  assert 'http' not in page.replace('http-equiv', '')


def test_names_that_cannot_be_printed_are_escaped(place, tmp_path, capsys):
  folder = write_images(tmp_path / 'images', ['x'], 0)
  (folder / 'x.txt').write_text('a cat')
  for name in (b'\x1b[31m.png', b'\xff.png', b'a\nb.png'):
    (folder / os.fsdecode(name)).write_bytes(b'no image')
    (folder / os.fsdecode(name)).with_suffix('.txt').write_text('a cat')
  given = ['--images', f'a={folder}', '--model', f'{place}/clip', '--batch_size=1']
  assert judge.main([*given, f'--out={tmp_path}/out']) == 0
  text = capsys.readouterr().out
  assert (tmp_path / 'out' / 'judge.md').read_text() in text
  assert '\x1b' not in text
  (note,) = (line for line in text.splitlines() if 'left out of' in line)
  assert all(f"'{name}.png' (" in note for name in (r'\x1b[31m', r'\udcff', r'a\nb'))
  assert len(read(tmp_path / 'out' / 'scores.csv')) == 4


def test_one_generator_without_a_folder_to_write(place, capsys):
  given = ['--images', f'a={place}/a', '--model', f'{place}/clip', '--batch_size=1']
  given += [f'--prompts={place}/prompts.csv', '--draws=0']
  assert judge.main(given) == 0
  printed = capsys.readouterr().out
  assert printed.startswith('# Image generators')
  assert '1 generator on 5 prompts. Each prompt' in printed
  assert 'rank' not in printed.lower()
  assert 'interval' not in printed.partition('##')[0]
  assert 'Written' not in printed


def test_generators_that_share_no_prompt_are_not_scored(place, tmp_path, capsys):
  for name in ('one', 'two'):
    folder = write_images(tmp_path / name, ['x'], 0)
    (folder / 'x.txt').write_text(f'of {name}')
  given = ['--images', f'one={tmp_path}/one', f'two={tmp_path}/two']
  assert judge.main([*given, '--model', f'{place}/clip', f'--out={tmp_path}/out']) == 2
  errors = capsys.readouterr().err
  assert errors.startswith('error: no prompt has images of all generators')
  assert "one 'of one', two 'of two'" in errors
  assert errors.count('\n') == 1
  assert {path.name for path in tmp_path.iterdir()} == {'one', 'two'}


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    (['--images=a=T/b'], '--images: a stands twice, for T/a and T/b'),
    (['--images', 'T/b'], "--images 'T/b' has no path; give --images NAME=FOLDER"),
    (['--images', 'a b=T/b'], "the name 'a b' must consist of letters"),
    (['--images', 'd=T/empty'], '--images d: T/empty contains no known files'),
    (['--images', 'd=T/none'], '--images d: T/none: no such file or folder'),
    (['--model', 'T/none'], 'T/none does not exist'),
    (['--model', 'T/a'], 'T/a is not a model directory'),
    (['--model', 'clip=T/x/model'], '--model: clip stands twice'),
    (['--prompts=T/none.csv'], '--prompts T/none.csv: no such file'),
    (['--prompts='], '--prompts is empty'),
    (['--clip=T/clip', '--reference='], '--reference is empty'),
    (['--out=T/empty'], '--out=T/empty exists; delete it'),
    (['--out=T/none/out'], 'the folder T/none does not exist'),
    (['--out=gs://x/y'], '--out=gs://x/y is not a local folder'),
    (['--clip=T/clip'], '--clip and --inception need --reference=FOLDER'),
    (['--reference=T/real'], '--reference needs --clip=WEIGHTS for CMMD'),
    (['--reference=T/real', '--inception=T/none'], 'T/none does not exist'),
    # Found before the distances by the other network.
    (['--reference=T/real', '--clip=T/clip', '--inception=T/a/0a.png'], 'T/a/0a.png'),
    (['--reference=T/empty', '--clip=T/clip'], '--reference T/empty contains no known'),
  ],
)
def test_mistakes(place, capsys, monkeypatch, options, message):
  if '--reference=T/empty' not in options:
    monkeypatch.delattr('rahf.evaluation.generator_distances.extract')
  (place / 'empty').mkdir(exist_ok=True)
  given = [word.replace('T/', f'{place}/') for word in options]
  if not any(word.startswith('--out') for word in given):
    given.append(f'--out={place}/new')
  assert judge.main(arguments(place, *given)) == 2
  errors = capsys.readouterr().err
  (line,) = (line for line in errors.splitlines() if line.startswith('error: '))
  assert message.replace('T/', f'{place}/') in line
  assert not (place / 'new').exists()


@pytest.mark.parametrize('option', ['--draws=50', '--seed=-1', '--batch_size=0'])
def test_numbers_out_of_range(place, capsys, option):
  with pytest.raises(SystemExit):
    judge.main(arguments(place, option))
  name, value = option.split('=')
  assert f'argument {name}: {value} must be ' in capsys.readouterr().err
