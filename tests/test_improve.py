"""python -m rahf.improve: what it keeps, what training reads, and mistakes."""

import csv
import pathlib

import numpy as np
import pytest
from PIL import Image

import rahf
import tiny_directory
import tiny_muse
from rahf import improve
from rahf.data.datasets.images import prepare_images
from rahf.inference.image_generator import Request

PROMPTS = ('a red circle', 'a blue cross', 'a green ring')


@pytest.fixture(scope='module')
def models(tmp_path_factory) -> dict[str, pathlib.Path]:
  folder = tmp_path_factory.mktemp('models')
  tiny_muse.write(folder / 'muse')
  return {'muse': folder / 'muse', 'rahf': tiny_directory.write(folder)}


def read(path: pathlib.Path) -> list[dict[str, str]]:
  with path.open(newline='') as file:
    return [*csv.DictReader(file)]


def test_the_best_drawn_images_are_kept_for_training(models, tmp_path, capsys):
  prompts, out = tmp_path / 'prompts.txt', tmp_path / 'kept'
  prompts.write_text('\n'.join(PROMPTS))
  arguments = [
    *('filter', str(prompts), f'--generator={models["muse"]}'),
    *(f'--model={models["rahf"]}', '--by=plausibility', '--batch_size=4'),
    *('--images_per_prompt=4', '--keep=2', '--top_share=0.5', f'--out={out}'),
  ]
  assert improve.main(arguments) == 0
  drawn = {
    path.name: path.read_bytes()
    for path in (tmp_path / 'kept-images' / 'images').iterdir()
  }
  assert len(drawn) == 12
  kept, candidates = read(out / 'images' / 'metadata.csv'), read(out / 'choices.csv')
  # The two best of each of three prompts, of which half.
  best = sorted(
    (float(row['value']) for row in candidates if row['rank'] in ('1', '2')),
    reverse=True,
  )
  assert sorted((float(row['value']) for row in kept), reverse=True) == best[:3]
  by_file = {row['file']: row for row in candidates if row['chosen'] == 'yes'}
  for row in kept:
    chosen = by_file[f'images/{row["file_name"]}']
    assert chosen['original'] == row['prompt']
    assert (out / chosen['file']).read_bytes() in drawn.values()

  # Training reads it.
  directory, report = prepare_images(
    tmp_path / 'data', name='kept', input=str(out / 'images' / 'metadata.csv')
  )
  assert (directory / 'dataset_info.json').exists()
  assert '3' in report.table()

  # The images stay, so that another choice does not draw them again.
  before = (tmp_path / 'kept-images' / 'images' / '0-0.png').stat().st_mtime_ns
  again = [*arguments[:-1], '--minimum=2', f'--out={tmp_path / "kept"}']
  assert improve.main(again) == 2
  assert 'exists' in capsys.readouterr().err
  assert (tmp_path / 'kept-images' / 'images' / '0-0.png').stat().st_mtime_ns == before


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    (['--top_share=0'], '--top_share=0.0 must'),
    (['--images_per_prompt=0'], '--images_per_prompt=0 must'),
    (['--batch_size=0'], '--batch_size=0 must'),
    (['--prompts=a.csv'], '--prompts is for a folder of images'),
    (['--by=beauty'], 'beauty'),
  ],
)
def test_mistakes(models, tmp_path, capsys, changes, message):
  prompts = tmp_path / 'prompts.txt'
  prompts.write_text('a red circle')
  arguments = [
    *('filter', str(prompts), f'--generator={models["muse"]}'),
    *(f'--model={models["rahf"]}', '--images_per_prompt=1'),
    *(*changes, f'--out={tmp_path / "kept"}'),
  ]
  assert improve.main(arguments) == 2
  assert message in capsys.readouterr().err
  # Mistakes are found before anything is drawn.
  assert {path.name for path in tmp_path.iterdir()} == {'prompts.txt'}


def test_images_are_repaired(models, tmp_path, capsys):
  """What is drawn anew lies in the mask; a stopped command continues."""
  folder, out = tmp_path / 'images', tmp_path / 'repaired'
  folder.mkdir()
  random = np.random.default_rng(0)
  for number in range(3):
    pixels = random.integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(pixels).save(folder / f'{number}.png')
    (folder / f'{number}.txt').write_text('a red circle')
  (feedback,) = rahf.load(models['rahf']).score([folder / '0.png'], 'a red circle')
  threshold = float(np.quantile(feedback.heatmaps['implausibility'], 0.9))
  arguments = [
    *('inpaint', str(folder), f'--generator={models["muse"]}'),
    *(f'--model={models["rahf"]}', f'--threshold={threshold}', '--widen=0'),
    *('--rounds=2', f'--out={out}'),
  ]
  assert improve.main(arguments) == 0
  rows = read(out / 'repairs.csv')
  assert [row['uid'] for row in rows] == ['0.png', '1.png', '2.png']
  assert all(float(row['after']) >= float(row['before']) for row in rows)
  assert any(int(row['rounds']) for row in rows)
  for number, row in enumerate(rows):
    before = np.asarray(Image.open(folder / f'{number}.png'))
    after = np.asarray(Image.open(out / row['file_name']))
    panel = np.asarray(Image.open(out / 'panels' / f'{number}.png'))
    np.testing.assert_array_equal(panel[:, :64], before)
    np.testing.assert_array_equal(panel[:, 192:], after)
    mask = panel[:, 128:192, 0] == 255
    # The panel also shows what was tried in vain.
    tried = row['note'] == 'no candidate was better'
    assert mask.mean() >= float(row['masked']) - 1e-6
    assert tried or mask.mean() == pytest.approx(float(row['masked']))
    np.testing.assert_array_equal(before[~mask], after[~mask])

  results = {path: path.read_bytes() for path in out.rglob('*') if path.is_file()}
  kept = (out / 'images' / '0.png').stat().st_mtime_ns
  for name in ('records/1.json', 'images/1.png', 'repairs.csv'):
    (out / name).unlink()
  assert improve.main(arguments) == 0
  assert {p: p.read_bytes() for p in out.rglob('*') if p.is_file()} == results
  assert (out / 'images' / '0.png').stat().st_mtime_ns == kept

  # An image or a prompt that has changed is done again, and nothing else.
  Image.fromarray(255 - np.asarray(Image.open(folder / '1.png'))).save(folder / '1.png')
  (folder / '2.txt').write_text('a blue cross')
  assert improve.main(arguments) == 0
  again = read(out / 'repairs.csv')
  assert again[0] == rows[0]
  assert again[1]['before'] != rows[1]['before']
  assert again[2]['prompt'] == 'a blue cross'
  assert (out / 'images' / '0.png').stat().st_mtime_ns == kept
  capsys.readouterr()
  assert improve.main([*arguments, '--rounds=1']) == 2
  assert 'other settings (rounds)' in capsys.readouterr().err


def test_images_that_cannot_be_repaired_are_named(models, tmp_path, capsys):
  folder, out = tmp_path / 'images', tmp_path / 'repaired'
  folder.mkdir()
  Image.new('RGB', (64, 64)).save(folder / 'a.png')
  (folder / 'b.png').write_bytes(b'no image')
  Image.new('RGB', (80, 64)).save(folder / 'c.png')
  for name in 'abc':
    (folder / f'{name}.txt').write_text('a red circle')
  arguments = [
    *('inpaint', str(folder), f'--generator={models["muse"]}', f'--out={out}'),
    *(f'--model={models["rahf"]}', '--threshold=0.001'),
  ]
  assert improve.main(arguments) == 1
  rows = read(out / 'repairs.csv')
  assert rows[0]['note'] == 'flaws cover the whole image'
  assert rows[1]['after'] == ''
  assert 'b.png' in capsys.readouterr().err


def test_why_nothing_is_drawn_anew(models, tmp_path, capsys):
  folder = tmp_path / 'images'
  folder.mkdir()
  Image.new('RGB', (64, 64)).save(folder / 'a.png')
  (folder / 'a.txt').write_text('a red circle')
  for threshold, found, advice in (
    (1, '1 without a flaw above the threshold; 0 with', 'lower --threshold'),
    (0.001, '0 without a flaw above the threshold; 1 with', 'raise --threshold'),
  ):
    arguments = [
      *('inpaint', str(folder), f'--generator={models["muse"]}'),
      *(f'--model={models["rahf"]}', f'--threshold={threshold}'),
      f'--out={tmp_path}/{threshold}',
    ]
    assert improve.main(arguments) == 0
    printed = capsys.readouterr().out
    assert found in printed
    assert '; 0 drawn anew' in printed
    assert advice in printed


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (('guide', '--steps=0'), '--steps=0 must be at least 1'),
    (('reprompt', '--weights', '0'), '--weights=0.0 must be above 0'),
    (('filter', '--minimum=inf'), '--minimum=inf must be at most'),
  ],
  ids=str,
)
def test_numbers_out_of_range(models, tmp_path, capsys, arguments, message):
  verb, *options = arguments
  prompts = tmp_path / 'prompts.txt'
  prompts.write_text('a red circle')
  common = f'--generator={models["muse"]}', f'--model={models["rahf"]}'
  out = f'--out={tmp_path / "out"}'
  assert improve.main([verb, str(prompts), *common, out, *options]) == 2
  assert message in capsys.readouterr().err


@pytest.mark.parametrize('verb', ['guide', 'reprompt'])
def test_prompts_that_are_cut_off_are_named(models, tmp_path, capsys, verb):
  prompts = tmp_path / 'prompts.txt'
  prompts.write_text('a red circle ' * 100)
  common = f'--generator={models["muse"]}', f'--model={models["rahf"]}'
  arguments = [verb, str(prompts), *common, f'--out={tmp_path / "out"}']
  assert improve.main(arguments) == 0
  warning = 'Warning: 1 prompts are longer than the model reads and lose their end'
  assert warning in capsys.readouterr().err


def test_missed_words_get_emphasis(models, tmp_path, capsys):
  """The best of the candidates is kept; a stopped command continues."""
  prompts, out = tmp_path / 'prompts.txt', tmp_path / 'again'
  prompts.write_text('\n'.join(PROMPTS))
  arguments = [
    *('reprompt', str(prompts), f'--generator={models["muse"]}'),
    *(f'--model={models["rahf"]}', '--weights', '1.5', '4', f'--out={out}'),
  ]
  assert improve.main(arguments) == 0
  rows = read(out / 'reprompted.csv')
  assert tuple(row['prompt'] for row in rows) == PROMPTS
  scorer = rahf.load(models['rahf'])
  generator = rahf.load(models['muse'], rows=3)
  for number, row in enumerate(rows):
    (first,) = generator.draw([Request(row['prompt'], 0)])
    panel = np.asarray(Image.open(out / 'panels' / f'{number}.png'))
    np.testing.assert_array_equal(panel[:, :64], first)
    best = np.asarray(Image.open(out / row['file_name']))
    np.testing.assert_array_equal(panel[:, 64:], best)
    (before, after) = scorer.score([first, best], row['prompt'])
    assert ' '.join(before.misaligned) == row['words']
    assert float(row['before']) == pytest.approx(before.scores['alignment'], abs=1e-5)
    assert float(row['after']) == pytest.approx(after.scores['alignment'], abs=1e-5)
    assert (float(row['after']) > float(row['before'])) == bool(row['how'])
  assert 'Mean gain of alignment' in capsys.readouterr().out

  results = {path: path.read_bytes() for path in out.rglob('*') if path.is_file()}
  (out / 'records' / '1.json').unlink()
  assert improve.main(arguments) == 0
  assert {p: p.read_bytes() for p in out.rglob('*') if p.is_file()} == results


def test_emphasis_changes_what_a_muse_draws(models):
  generator = rahf.load(models['muse'], rows=2)
  plain = Request('a red circle', 3)
  images = [
    *generator.draw(
      [
        plain,
        plain._replace(emphasis=((2, 5, 1.0),)),
        plain._replace(emphasis=((2, 5, 1000.0),)),
        plain,
      ]
    )
  ]
  np.testing.assert_array_equal(images[0], images[3])
  np.testing.assert_array_equal(images[0], images[1])
  assert (images[0] != images[2]).any()


def test_a_score_guides_a_muse(models, tmp_path, capsys):
  prompts, out = tmp_path / 'prompts.txt', tmp_path / 'guided'
  prompts.write_text('\n'.join(PROMPTS))
  arguments = [
    *('guide', str(prompts), f'--generator={models["muse"]}', '--batch_size=2'),
    *(f'--model={models["rahf"]}', '--strengths', '4', f'--out={out}'),
  ]
  assert improve.main(arguments) == 0
  rows = read(out / 'guided.csv')
  scorer = rahf.load(models['rahf'])
  generator = rahf.load(models['muse'], rows=2)
  plain = [*generator.draw([Request(prompt, 0) for prompt in PROMPTS])]
  for number, row in enumerate(rows):
    panel = np.asarray(Image.open(out / 'panels' / f'{number}.png'))
    pictures = panel[:, :64], panel[:, 64:]
    np.testing.assert_array_equal(pictures[0], plain[number])
    found = scorer.score([*pictures], row['prompt'])
    values = [one.scores['plausibility'] for one in found]
    assert [float(row['at 0']), float(row['at 4'])] == pytest.approx(values, abs=1e-5)
    best = np.asarray(Image.open(out / row['file_name']))
    np.testing.assert_array_equal(best, pictures[int(np.argmax(values))])
  assert '| 4 ' in capsys.readouterr().out


def test_folders_of_others_are_no_work_directories(models, tmp_path, capsys):
  prompts, out = tmp_path / 'prompts.txt', tmp_path / 'kept'
  prompts.write_text('a red circle')
  out.mkdir()
  (out / 'choices.csv').touch()
  arguments = [
    *('reward-train', str(prompts), f'--eval_prompts={prompts}', f'--out={out}'),
    *(f'--generator={models["muse"]}', f'--model={models["rahf"]}'),
  ]
  assert improve.main(arguments) == 2
  assert 'is not a work directory' in capsys.readouterr().err
  assert improve.main([*arguments[:-2], '--group=1', *arguments[-2:]]) == 2
  assert '--group=1 must' in capsys.readouterr().err
