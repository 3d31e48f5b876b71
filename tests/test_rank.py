"""python -m rahf.rank: goldens of evalica, pairs, agreement, and mistakes."""

import csv
import pathlib
import re
import subprocess
import sys

import numpy as np
import pair_files
import pytest

from rahf import rank

ROOT = pathlib.Path(rank.__file__).parents[1]
CIRCLE = [('a', 'b', 'left'), ('b', 'c', 'left'), ('a', 'c', 'right')]


def write(path: pathlib.Path, rows, header=('left', 'right', 'winner')) -> pathlib.Path:
  with path.open('w', newline='') as file:
    csv.writer(file).writerows([header, *rows])
  return path


def read(path: pathlib.Path) -> list[dict[str, str]]:
  with path.open(newline='') as file:
    return list(csv.DictReader(file))


def planted(size: int, seed: int) -> list[tuple[str, str, str]]:
  """Returns votes on six models; the later in the alphabet, the stronger."""
  random = np.random.default_rng(seed)
  rows = []
  for _ in range(size):
    left, right = random.permutation(6)[:2]
    wins = random.random() < 1 / (1 + 2.0 ** (right - left))
    winner = 'tie' if random.random() < 0.1 else ('right', 'left')[int(wins)]
    rows.append(('ABCDEF'[left], 'ABCDEF'[right], winner))
  return rows


@pytest.fixture
def votes(tmp_path) -> pathlib.Path:
  return write(tmp_path / 'people.csv', planted(900, 0))


def run(capsys, *arguments: object) -> str:
  """Runs the command successfully and returns what it prints."""
  assert rank.main([*map(str, arguments)]) == 0
  return capsys.readouterr().out


def fails(capsys, *arguments: object) -> str:
  """Runs the command, which must fail, and returns its one error."""
  assert rank.main([*map(str, arguments)]) == 2
  printed, errors = capsys.readouterr()
  assert not printed
  assert errors.startswith('error: ')
  assert errors.count('\n') == 1
  return errors


@pytest.mark.parametrize(
  ('method', 'options', 'tolerance'),
  [
    ('elo', ['--k=4', '--start=1000', '--orders=0'], 0),
    ('bradley_terry', ['--prior=0'], 1e-6),
  ],
)
def test_evalicas_rankings(assets, tmp_path, capsys, method, options, tolerance):
  folder = assets / 'preferences' / 'evalica'
  out = tmp_path / 'ranking.csv'
  printed = run(
    capsys, folder / 'food.csv', f'--method={method}', *options, f'--out={out}'
  )
  assert printed.startswith('30 votes on 5 models; ties, half a win for both: 2.\n')
  assert printed.endswith(f'Written to {out}\n')
  goldens = [
    (row['item'], float(row['score']))
    for row in read(folder / 'food-golden.csv')
    if row['algorithm'] == method
  ]
  rows = read(out)
  assert [*rows[0]] == ['model', 'method', 'value', 'low', 'high', 'rank']
  assert [row['model'] for row in rows] == [model for model, _ in goldens]
  assert [row['rank'] for row in rows] == list('12345')
  assert {row['method'] for row in rows} == {method}
  for row, (_, golden) in zip(rows, goldens, strict=True):
    assert float(row['value']) == pytest.approx(golden, abs=tolerance, rel=0)
    assert float(row['low']) < float(row['high'])


@pytest.mark.parametrize('method', rank.METHODS)
def test_the_planted_order_is_found(votes, tmp_path, capsys, method):
  out = tmp_path / 'ranking.csv'
  printed = run(capsys, votes, f'--method={method}', f'--out={out}', '--seed=3')
  rows = read(out)
  assert ''.join(row['model'] for row in rows) == 'FEDCBA'
  table = [line.split(' | ') for line in printed.splitlines() if line.startswith('| ')]
  assert [row[0].strip('| ') for row in table] == ['model', '-----', *'FEDCBA']
  assert 'Note' not in printed
  again = tmp_path / 'again.csv'
  run(capsys, votes, f'--method={method}', f'--out={again}', '--seed=3')
  assert again.read_text() == out.read_text()
  other = tmp_path / 'other.csv'
  run(capsys, votes, f'--method={method}', f'--out={other}', '--seed=4')
  assert other.read_text() != out.read_text()


def test_equal_models_share_a_rank_and_have_no_intervals_without_draws(
  tmp_path, capsys
):
  path = write(tmp_path / 'v.csv', [*CIRCLE, ('a', 'd', 'left'), ('d', 'b', 'right')])
  out = tmp_path / 'ranking.csv'
  printed = run(capsys, path, '--draws=0', f'--out={out}')
  rows = read(out)
  assert [row['rank'] for row in rows] == ['1', '1', '3', '4']
  assert ''.join(row['model'] for row in rows) == 'abcd'
  assert {row['low'] + row['high'] for row in rows} == {''}
  assert re.search(r'\| a +\| +1 \| +0\.\d{4} \| +– \| +3 \| +66\.7% \|', printed)
  assert 'draws' not in printed


def test_pairs_of_pickapic(tmp_path, capsys):
  lost = {'label_0': 0.0, 'label_1': 1.0}
  rows = [
    pair_files.row(0),
    pair_files.row(1),
    pair_files.row(2, best_image_uid='2-1', **lost),
    pair_files.row(3, has_label=False),
  ]
  pair_files.write(tmp_path / 'pairs' / 'test_unique.parquet', rows)
  out = tmp_path / 'ranking.csv'
  # There is no split test, so test_unique is taken.
  printed = run(capsys, tmp_path / 'pairs', '--prior=0', f'--out={out}')
  assert printed.startswith('3 votes on 2 models')
  assert 'Note: the votes are those of test_unique.' in printed
  assert 'Note: left out 1 vote without a preference; first:' in printed
  # Some draws have votes for one model only.
  assert re.search(r'Note: \d+ of 1,000 draws are left out of the intervals', printed)
  values = {row['model']: float(row['value']) for row in read(out)}
  assert values == pytest.approx({'model-a': 2 / 3, 'model-b': 1 / 3})


def test_agreement_with_the_votes_of_a_scorer(votes, tmp_path, capsys):
  scorer = write(tmp_path / 'scorer.csv', [*planted(900, 1), ('A', 'new', 'tie')])
  printed = run(capsys, votes, '--method=elo', f'--against={scorer}')
  assert f'Correlation with {scorer} over 6 models' in printed
  assert f'Note: only in {scorer}, not compared: new.' in printed
  assert '| mean ± std of 50 orders |' in printed
  number = r'(-?\d\.\d{3})'
  found = {
    name: [*map(float, values)]
    for name, *values in re.findall(
      rf'\| (\w+) +\| +{number} \| +\[{number}, {number}\] \| +{number} ± {number} \|',
      printed,
    )
  }
  assert found.keys() == {'Spearman', 'Pearson', 'Kendall'}
  for value, low, high, mean, deviation in found.values():
    assert value > 0.95
    assert 0.5 < low <= high <= 1
    assert 0.9 < mean <= 1
    assert 0 <= deviation < 0.1


def test_agreement_with_scores_and_with_a_written_ranking(votes, tmp_path, capsys):
  # Lower is better for FID: the opposite ranking.
  scores = [(model, 20 - 2 * number) for number, model in enumerate('ABCDEF')]
  fid = write(tmp_path / 'fid.csv', scores, ('model', 'value'))
  printed = run(capsys, votes, f'--against={fid}')
  assert re.search(r'\| Spearman +\| +-1\.000 \| \[-1\.000, -\d\.\d{3}\] \|', printed)
  assert 'orders' not in printed
  out = tmp_path / 'ranking.csv'
  run(capsys, votes, f'--out={out}', '--draws=0')
  printed = run(capsys, votes, f'--against={out}', '--draws=0')
  for name in ('Spearman', 'Pearson', 'Kendall'):
    assert re.search(rf'\| {name} +\| +1\.000 \| +– \|', printed)


def test_some_models_and_what_votes_do_not_tell(votes, capsys):
  printed = run(capsys, votes, '--draws=0', '--models', 'A', 'C', 'F')
  assert 'votes on 3 models' in printed
  assert 'Note: left out ' in printed
  assert re.search(r'by model: [BDE] \(\d+\), [BDE] \(\d+\), [BDE] \(\d+\)\.', printed)
  write(votes, [*CIRCLE, ('d', 'e', 'tie')])
  printed = run(capsys, votes, '--draws=0')
  assert (
    'Note: no votes connect a, b, c and d, e; their order means nothing.' in printed
  )


def test_an_existing_file_stays(votes, tmp_path, capsys):
  before = votes.read_bytes()
  assert f'--out={votes} exists; delete it' in fails(capsys, votes, f'--out={votes}')
  assert votes.read_bytes() == before
  message = fails(capsys, votes, f'--out={tmp_path}/none/x.csv')
  assert f'the folder {tmp_path}/none does not exist' in message
  assert [*tmp_path.iterdir()] == [votes]


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    (['--k=4'], '--k is for --method=elo'),
    (['--method=elo', '--prior=1'], '--prior is for --method=bradley_terry'),
    (['--against=T/none.csv'], 'T/none.csv: no such file or folder'),
    (['--against=T/scores.csv'], 'share 1 models, but a correlation needs 3'),
    (['--against=T/zero.csv'], "value is '0', but a strength of Bradley–Terry is"),
    (['--models', 'A', 'B', 'G'], 'no votes on G of --models'),
    (['--models', 'A', 'B', 'A'], '--models: A stands twice'),
    (['--split=test'], '--split is for a folder of pairs; T/people.csv is none'),
  ],
)
def test_mistakes(votes, tmp_path, capsys, options, message):
  """All are found before anything is printed."""
  write(
    tmp_path / 'zero.csv', [('A', 'bradley_terry', 0)], ('model', 'method', 'value')
  )
  write(tmp_path / 'scores.csv', [('A', 1), ('Z', 2)], ('model', 'value'))
  given = [word.replace('T/', f'{tmp_path}/') for word in options]
  out = tmp_path / 'ranking.csv'
  assert message.replace('T/', f'{tmp_path}/') in fails(
    capsys, votes, f'--out={out}', *given
  )
  assert not out.exists()


@pytest.mark.parametrize(
  'option',
  ['--k=0', '--k=nan', '--draws=50', '--prior=-1', '--prior=1e-9', '--orders=-1'],
)
def test_numbers_out_of_range(votes, capsys, option):
  with pytest.raises(SystemExit):
    rank.main([str(votes), option])
  errors = capsys.readouterr().err
  name, value = option.split('=')
  assert f'argument {name}: {value} must be ' in errors


def test_no_maximum_without_a_prior(tmp_path, capsys):
  path = write(tmp_path / 'v.csv', [('a', 'b', 'left'), ('b', 'c', 'left')])
  assert 'as a never lost to' in fails(capsys, path, '--prior=0')
  printed = run(capsys, path)
  assert 'Note: a never lost to, or tied with, any of the other models;' in printed


def test_the_example_of_the_documentation(tmp_path):
  """As printed there, but for intervals, as NumPy may change its random numbers."""
  page = (ROOT / 'docs' / 'preferences.md').read_text('utf-8')
  (table,) = re.findall(r'```csv\n(.*?)```', page, re.DOTALL)
  command, expected = re.search(
    r'```bash\n([^\n]+)\n```\n\nprints\n\n```\n(.*?)```', page, re.DOTALL
  ).groups()
  (tmp_path / 'votes.csv').write_text(table)
  ended = subprocess.run(
    [sys.executable, *command.split()[1:]],
    cwd=tmp_path,
    env={'PYTHONPATH': str(ROOT)},
    capture_output=True,
    text=True,
  )
  assert ended.returncode == 0, ended.stderr
  interval = re.compile(r'\[[\d.]+, [\d.]+\]')
  assert interval.sub('[]', ended.stdout) == interval.sub('[]', expected)
  assert len(read(tmp_path / 'ranking.csv')) == 3


def test_tables_need_neither_jax_nor_tensorflow():
  code = (
    "import sys, rahf.rank\nprint({'jax', 'tensorflow', 'pyarrow'} & {*sys.modules})"
  )
  found = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT
  )
  assert found.stdout == 'set()\n', found.stderr
