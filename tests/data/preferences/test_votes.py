"""Tables of votes and of scores, pairs as votes, and what is wrong with them."""

import json
import pathlib

import pair_files
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rahf.data.preferences import votes as votes_lib
from rahf.errors import InputError

ROWS = [('a', 'b', 'left'), ('b', 'c/d', 'tie'), ('a', 'c/d', 'right')]


def write(path: pathlib.Path, rows, header=('left', 'right', 'winner')) -> pathlib.Path:
  """Writes a table of the kind that its name says."""
  objects = [dict(zip(header, row, strict=True)) for row in rows]
  if path.suffix == '.jsonl':
    path.write_text(''.join(f'{json.dumps(row)}\n' for row in objects))
  elif path.suffix == '.parquet':
    pq.write_table(pa.Table.from_pylist(objects), path)
  else:
    sign = '\t' if path.suffix == '.tsv' else ','
    lines = [sign.join(map(str, row)) + '\n' for row in (header, *rows)]
    path.write_text(''.join(lines))
  return path


def contents(table: votes_lib.VoteTable) -> list[tuple[str, str, float]]:
  names = [
    [table.models[number] for number in side]
    for side in (table.votes.left, table.votes.right)
  ]
  return [*zip(*names, table.votes.score.tolist(), strict=True)]


@pytest.mark.parametrize('kind', ['csv', 'tsv', 'jsonl', 'parquet'])
def test_every_kind_of_table(tmp_path, kind):
  rows = [(number, *row) for number, row in enumerate(ROWS)]
  path = write(tmp_path / f'v.{kind}', rows, ('user', 'left', 'right', 'winner'))
  found = votes_lib.read(path)
  assert contents(found) == [('a', 'b', 1.0), ('b', 'c/d', 0.5), ('a', 'c/d', 0.0)]
  assert found.models == ('a', 'b', 'c/d')
  assert found.notes == ()
  assert votes_lib.holds_votes(path)


def test_votes_that_say_nothing_are_counted(tmp_path):
  path = write(tmp_path / 'v.csv', [('a', 'a', 'left'), *ROWS, ('b', 'b', 'tie')])
  found = votes_lib.read(path)
  assert len(contents(found)) == 3
  assert found.notes == (
    f'left out 2 votes of a model against itself; first: {path}, line 2',
  )


def test_some_of_the_models(tmp_path):
  rows = [*ROWS, ('b', 'x', 'left'), ('x', 'x', 'tie'), ('x', 'y', 'left')]
  path = write(tmp_path / 'v.csv', rows)
  found = votes_lib.read(path, only=['b', 'a'])
  assert contents(found) == [('a', 'b', 1.0)]
  assert found.models == ('b', 'a')
  assert found.notes == (
    f'left out 5 votes with models that are not in --models; first: {path}, line 3; '
    'by model: x (3), c/d (2), y (1)',
  )
  with pytest.raises(InputError, match=r'no votes on z, q of --models; correct the'):
    votes_lib.read(path, only=['b', 'a', 'z', 'q'])


@pytest.mark.parametrize(
  ('row', 'message'),
  [
    (('a', 'b', 'Left'), "winner is 'Left'; write left, right or tie"),
    (('a', 'b', ''), "winner is ''; write"),
    (('', 'b', 'left'), "left '': is empty"),
    (('a', ' ', 'left'), "right ' ': is empty"),
    (('a', 'b ', 'left'), "right 'b ': starts or ends with white space"),
    (('a\x1b[31m', 'b', 'left'), r"left 'a\\x1b\[31m': has control characters"),
  ],
)
@pytest.mark.parametrize('kind', ['csv', 'jsonl', 'parquet'])
def test_rows_that_are_not_votes(tmp_path, row, message, kind):
  path = write(tmp_path / f'v.{kind}', [*ROWS, row])
  place = {'csv': 'line 5', 'jsonl': 'line 4', 'parquet': 'v.parquet row group 0 row 3'}
  with pytest.raises(InputError, match=rf'v\.{kind}, {place[kind]}: {message}'):
    votes_lib.read(path)


@pytest.mark.parametrize(
  ('value', 'message'),
  [
    ('{"left": 3, "right": "b", "winner": "tie"}', 'left is 3, not text'),
    ('{"left": "a", "right": null, "winner": "tie"}', 'right is None, not text'),
    ('{"left": "a", "right": "\\ud800", "winner": "tie"}', 'surrogates not allowed'),
    ('{"left": "a", "right": "b", "winner": 1}', 'winner is 1; write'),
    ('{"left": "a", "right": "b", "winner": ["tie"]}', 'winner is '),
    ('{"left": "a", "winner": "tie"}', 'no column right; needs left, right, winner'),
    ('["a", "b", "tie"]', 'not a JSON object'),
    ('{"left": "a", "right": "b"', 'not JSON'),
  ],
)
def test_lines_of_json_that_are_not_votes(tmp_path, value, message):
  path = tmp_path / 'v.jsonl'
  path.write_text('{"left": "a", "right": "b", "winner": "tie"}\n' + value)
  with pytest.raises(InputError, match=rf'v\.jsonl, line 2: .*{message}'):
    votes_lib.read(path)


@pytest.mark.parametrize(
  ('name', 'text', 'message'),
  [
    ('v.csv', '', 'no votes between two models'),
    ('v.csv', 'left,right,winner\n', 'no votes between two models'),
    (
      'v.csv',
      'left,right,winner\na,a,tie\n',
      'no votes .*; left out 1 vote of a model',
    ),
    (
      'v.csv',
      'model_a,right,winner\na,b,tie\n',
      'line 1: no column left; needs left, ',
    ),
    ('v.csv', 'left,left,right,winner\n', 'line 1: the column left occurs twice'),
    ('v.csv', 'left,right,winner\na,b\n', 'line 2: 2 values, but 3 columns'),
    ('v.jsonl', '', 'no votes between two models'),
    ('v.txt', 'left,right,winner\na,b,tie\n', 'must end in one of .csv, .tsv'),
    ('v.parquet', 'left', 'not a complete parquet file'),
  ],
)
def test_files_without_votes(tmp_path, name, text, message):
  (tmp_path / name).write_text(text)
  with pytest.raises(InputError, match=message):
    votes_lib.read(tmp_path / name)
  with pytest.raises(InputError, match='none: no such file or folder'):
    votes_lib.read(tmp_path / 'none')


@pytest.fixture
def pairs(tmp_path):
  """Seven pairs of test; four of them are votes between two models."""
  tie = {'label_0': 0.5, 'label_1': 0.5, 'best_image_uid': 'tie'}
  rows = [
    pair_files.row(0),
    pair_files.row(1, **tie),
    pair_files.row(2, has_label=False),
    pair_files.row(3, best_image_uid='3-1', label_0=0.0, label_1=1.0, model_1='c'),
    pair_files.row(4, model_1='model-a'),
    # Contradicts itself.
    pair_files.row(5, best_image_uid='5-1'),
    pair_files.row(6, model_0=None),
    pair_files.row(7, model_0='c', model_1='model-b'),
  ]
  pair_files.write(tmp_path / 'test-0.parquet', rows[:5])
  pair_files.write(tmp_path / 'test-1.parquet', rows[5:])
  pair_files.write(tmp_path / 'train-0.parquet', [pair_files.row(model_0='d')])
  return tmp_path


def test_pairs_are_votes_between_their_models(pairs):
  found = votes_lib.read(pairs)
  assert contents(found) == [
    ('model-a', 'model-b', 1.0),
    ('model-a', 'model-b', 0.5),
    ('model-a', 'c', 0.0),
    ('c', 'model-b', 1.0),
  ]
  assert found.notes == (
    'the votes are those of test',
    f'left out 2 votes without a preference; first: {pairs}/test-0.parquet, row group '
    '1, row 0',
    f'left out 1 vote of a model against itself; first: {pairs}/test-0.parquet, row '
    'group 2, row 0',
    f"left out 1 vote without a model's name; first: {pairs}/test-1.parquet, row group "
    '0, row 1',
  )
  assert votes_lib.holds_votes(pairs)
  (vote,) = contents(votes_lib.read(pairs, split='train'))
  assert vote == ('d', 'model-b', 1.0)
  with pytest.raises(InputError, match="no split 'validation', only train, test"):
    votes_lib.read(pairs, split='validation')


def test_images_of_pairs_are_not_read(pairs):
  for path in pairs.glob('test-*.parquet'):
    pair_files.damage_column(path, 0, 'jpg_0')
  assert len(contents(votes_lib.read(pairs))) == 4


@pytest.mark.parametrize('kind', ['csv', 'jsonl', 'parquet'])
def test_scores(tmp_path, kind):
  rows = [('a', 20.5), ('b', -3)]
  path = write(tmp_path / f's.{kind}', rows, ('model', 'value'))
  assert votes_lib.read_scores(path) == {'a': 20.5, 'b': -3.0}
  assert not votes_lib.holds_votes(path)
  rows = [('a', 'bradley_terry', 1.0), ('b', 'bradley_terry', 0.5)]
  path = write(tmp_path / f'r.{kind}', rows, ('model', 'method', 'value'))
  assert votes_lib.read_scores(path) == pytest.approx(
    {'a': 0, 'b': -0.693147}, abs=1e-6
  )


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('model,value\na,1\na,2\n', 'line 3: a has a value already'),
    ('model,value\na,nan\n', "line 2: value is 'nan', which is not a score"),
    ('model,value\na,\n', "line 2: value is '', which"),
    ('model,value,method\na,0,bradley_terry\n', "value is '0', but a strength"),
    ('model,value\n,1\n', "line 2: model '': is empty"),
    ('model,value\n', 'has no rows; give a table with model and value'),
  ],
)
def test_bad_scores(tmp_path, text, message):
  (tmp_path / 's.csv').write_text(text)
  with pytest.raises(InputError, match=message):
    votes_lib.read_scores(tmp_path / 's.csv')


def test_neither_votes_nor_scores(tmp_path):
  path = write(tmp_path / 's.csv', [('a', 1)], ('model', 'score'))
  with pytest.raises(
    InputError, match='needs left, right, winner for votes, or model and value for '
  ):
    votes_lib.holds_votes(path)
