"""Comparisons of runs that are known to differ, and the files that they write."""

import csv
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from etils import epath

from rahf.data import schema
from rahf.errors import InputError
from rahf.evaluation import compare_command, samples
from rahf.evaluation.paper_tables import paper_tables
from rahf.evaluation.samples import EvaluatedExample
from rahf.evaluation.significance import BETTER, WORSE, Run
from rahf.evaluation.significance import compare as compare_runs

ROOT = pathlib.Path(compare_command.__file__).parents[2]
SIZE = 60
WORDS = 6
MISTAKES = {'good': 0.1, 'bad': 0.6}


def make_run(name: str) -> list[EvaluatedExample]:
  """The same samples for all; the noise of what is predicted is the run's own."""
  truth = np.random.default_rng(0)
  noise = np.random.default_rng(1)
  share = MISTAKES[name]
  found = []
  for number in range(SIZE):
    scores = truth.random(4)
    labels = truth.integers(0, 2, WORDS)
    flipped = noise.random(WORDS) < share
    p = np.where(labels ^ flipped, 0.2, 0.8) + 0.1 * noise.random(WORDS)
    error = share * (0.9 + 0.2 * noise.random())
    values = {'mse': error, 'mse_empty': np.nan, 'cc': 1 - error, 'kld': 2 * error}
    values |= {'sim': 1 - error, 'nss': 3.0, 'auc_judd': 1 - error / 2}
    found.append(
      EvaluatedExample(
        uid=f'{number:03}',
        predicted=tuple((scores + share * noise.normal(size=4)).tolist()),
        annotated=tuple(scores.tolist()),
        maps=dict.fromkeys(schema.MAPS, values),
        truth=tuple(labels.tolist()),
        marked=tuple((labels ^ flipped).tolist()),
        p_misaligned=tuple(p.tolist()),
      )
    )
  return found


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Two work directories, one of which has an older evaluation too."""
  root = epath.Path(tmp_path_factory.mktemp('runs'))
  for name in MISTAKES:
    place = root / name / 'eval'
    place.mkdir(parents=True)
    samples.write(place / 'test-100.samples.jsonl', make_run(name))
    values = {'keywords_constrained/threshold': 0.5}
    (place / 'test-100.json').write_text(json.dumps(values))
  samples.write(root / 'good/eval/test-99.samples.jsonl', make_run('bad'))
  samples.write(root / 'good/eval/test-long-200.samples.jsonl', [])
  return root


# Where the runs differ significantly.
DIFFERENT = ('overall/plcc', 'implausibility/mse', 'misalignment/kld', 'keywords/f1')


def read_runs(folder, *names):
  return [
    compare_command.read_run(folder / name, 'test')._replace(name=name)
    for name in names
  ]


@pytest.fixture(scope='module')
def comparison(folder):
  return compare_runs(read_runs(folder, 'bad', 'good'), draws=100)


def test_the_better_run_is_marked(comparison):
  for metric in DIFFERENT:
    assert comparison.mark('good', metric) == BETTER, metric
    assert comparison.mark('bad', metric) == ''
  # Equal in both, and defined in neither.
  assert comparison.mark('good', 'implausibility/nss') == ''
  assert comparison.mark('good', 'implausibility/mse_empty') == ''


def test_the_worse_run_is_marked(folder):
  found = compare_runs(read_runs(folder, 'good', 'bad'), draws=100)
  for metric in DIFFERENT:
    assert found.mark('bad', metric) == WORSE, metric


def test_the_order_of_samples_does_not_matter(folder, comparison):
  runs = read_runs(folder, 'bad', 'good')
  runs[1] = runs[1]._replace(samples=runs[1].samples[::-1])
  again = compare_runs(runs, draws=100)
  for metric, found in comparison.results['good'].items():
    same = again.results['good'][metric]
    np.testing.assert_array_equal(same.drawn, found.drawn)


def test_written_files(folder, tmp_path, capsys):
  out = tmp_path / 'better'
  arguments = [str(folder / 'bad'), str(folder / 'good'), '--draws=100', f'--out={out}']
  assert compare_command.main([*arguments]) == 0
  printed = capsys.readouterr().out
  text = out.with_suffix('.md').read_text()
  assert text in printed
  expected = {
    name: samples.metrics(make_run(name), 0.5)['keywords/f1'] for name in MISTAKES
  }
  assert f'{100 * expected["good"]:.1f}{BETTER}' in text
  assert f'{100 * expected["bad"]:.1f} ' in text
  assert 'RAHF, augmented prompt' in text
  with out.with_suffix('.csv').open() as file:
    rows = {(row['metric'], row['run']): row for row in csv.DictReader(file)}
  row = rows['keywords/f1', 'good']
  assert float(row['value']) == pytest.approx(expected['good'], rel=1e-5)
  assert float(row['low']) < float(row['value']) < float(row['high'])
  grown = float(row['difference_value'])
  assert grown == pytest.approx(expected['good'] - expected['bad'], rel=1e-4)
  assert float(row['difference_p']) < 0.05
  assert rows['implausibility/mse_empty', 'good']['value'] == ''


def test_the_command(folder, tmp_path):
  command = [sys.executable, '-m', 'rahf.compare', '--draws=100']
  runs = [str(folder / name) for name in MISTAKES]
  out = f'--out={tmp_path}/runs'
  ended = subprocess.run(
    [*command, *runs, out], cwd=ROOT, capture_output=True, text=True
  )
  assert ended.returncode == 0, ended.stderr
  assert f'Written to {tmp_path}/runs.md, .csv and .tex' in ended.stdout
  names = {path.name for path in tmp_path.iterdir()}
  assert names == {'runs.md', 'runs.csv', 'runs.tex'}


def test_latex_has_a_cell_for_every_column(comparison):
  text = compare_command.latex(comparison)
  tables = text.split(r'\begin{table}')[1:]
  assert len(tables) == 1 + len(paper_tables({}))
  for table in tables:
    columns = table.split(r'\begin{tabular}{')[1].split('}')[0]
    rows = [line for line in table.splitlines() if line.endswith(r'\\')]
    assert len(rows) > 2
    assert {row.count(' & ') + 1 for row in rows} == {len(columns)}
  assert r'\textbf{good}' in text
  # Signs that LaTeX has commands for, and those that it does not know.
  assert r'95\% intervals' in text
  assert r'The rows above ours' in text
  assert text.isascii()


def test_a_run_on_other_samples_is_refused(folder):
  (first,) = read_runs(folder, 'good')
  fewer = Run('fewer', first.samples[:-2], 0.5)
  with pytest.raises(
    InputError, match='60 samples and fewer 58, but 2 of them are in one'
  ):
    compare_runs([first, fewer])
  changed = first.samples[3]._replace(annotated=(0.5,) * 4)
  other = Run('other', [*first.samples[:3], changed, *first.samples[4:]], 0.5)
  with pytest.raises(InputError, match='different annotations of 003'):
    compare_runs([first, other])
  with pytest.raises(InputError, match='different names, not good, good'):
    compare_runs([first, first])


def test_a_run_without_words_and_maps(folder, tmp_path):
  """Its rows have dashes, and the other run keeps all of its numbers."""
  place = epath.Path(tmp_path / 'scores' / 'eval')
  place.mkdir(parents=True)
  nothing = {'maps': {}, 'truth': (), 'marked': (), 'p_misaligned': ()}
  scores = [sample._replace(**nothing) for sample in make_run('good')]
  samples.write(place / 'test-0.samples.jsonl', scores)
  (first,) = read_runs(folder, 'good')
  second = compare_command.read_run(place.parent, 'test')._replace(name='scores')
  both = compare_runs([first, second], draws=100)
  rows = compare_command.markdown(both).splitlines()
  dashes = [row.count('–') for row in rows if row.startswith('| **scores**')]
  assert dashes == [0, 7, 7, 4]
  alone = compare_runs([first], draws=100).results['good']
  assert both.results['good'].keys() == alone.keys()
  for metric, result in alone.items():
    found = both.results['good'][metric].interval
    np.testing.assert_equal(found.value, result.interval.value)


def test_a_run_that_gives_up_on_hard_images_does_not_win(folder):
  """A constant map has no correlation, which leaves only the easy images."""
  honest, lazy = (make_run('bad') for _ in range(2))
  for number, sample in enumerate(honest):
    hard = number % 2
    values = {name: v | {'cc': 0.1 if hard else 0.9} for name, v in sample.maps.items()}
    honest[number] = sample._replace(maps=values)
    if hard:
      values = {name: v | {'cc': float('nan')} for name, v in values.items()}
    lazy[number] = sample._replace(maps=values)
  runs = [Run('honest', honest, 0.5), Run('lazy', lazy, 0.5)]
  found = compare_runs(runs, draws=100)
  assert found.mark('lazy', 'implausibility/cc') == ''
  assert found.results['honest']['implausibility/cc'].value == pytest.approx(0.9)
  assert found.undefined['lazy']['implausibility/cc/undefined'] == SIZE / 2
  assert not found.undefined['honest']
  text = compare_command.markdown(found)
  assert '| implausibility/cc |      0 |   30 |' in text
  assert 'Maps without a metric' in compare_command.latex(found)


def test_the_threshold_is_not_tuned_on_the_compared_samples(folder, tmp_path):
  path = epath.Path(tmp_path / 'test-100.samples.jsonl')
  samples.write(path, make_run('good'))
  for content in (None, '{"keywords_co', '{}'):
    if content is not None:
      (tmp_path / 'test-100.json').write_text(content)
    with pytest.raises(
      InputError, match=r'test-100\.json has no threshold of constrained'
    ):
      compare_command.read_run(path, 'test')


def test_runs_with_one_file_name_get_distinct_names(folder, tmp_path, capsys):
  files = [str(folder / name / 'eval/test-100.samples.jsonl') for name in MISTAKES]
  arguments = [*files, '--draws=100', f'--out={tmp_path}/files']
  assert compare_command.main(arguments) == 0
  assert '**good/eval/test-100.samples.jsonl**' in capsys.readouterr().out


@pytest.mark.parametrize(
  ('option', 'message'),
  [
    ('--draws=99', '99 draws are too few'),
    ('--out=none/x', 'the folder none does not exist'),
  ],
)
def test_options_that_do_not_fit(folder, capsys, option, message):
  runs = [str(folder / name) for name in MISTAKES]
  assert compare_command.main([*runs, option]) == 2
  assert message in capsys.readouterr().err


@pytest.mark.parametrize(
  ('run', 'message'),
  [('none', 'none does not exist'), ('good', '--config.eval')],
)
def test_missing_evaluations(folder, capsys, run, message):
  split = 'test' if run == 'none' else 'dev'
  assert compare_command.main([str(folder / run), f'--split={split}']) == 2
  errors = capsys.readouterr().err
  assert message in errors
  assert 'Traceback' not in errors
