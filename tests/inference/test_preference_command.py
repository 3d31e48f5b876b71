"""The command that compares models with people's choices, on real models and pairs."""

import csv
import json
import re

import numpy as np
import pair_files
import pytest

import clip_directory
import tiny_directory
from rahf import rank
from rahf.data.datasets.shapes.pairs import prepare_pairs
from rahf.data.preferences.pair_tally import Problem
from rahf.data.preferences.pairs import open_pairs
from rahf.errors import InputError
from rahf.evaluation.preference_accuracy import JudgedPairs
from rahf.inference.open_scorer import load
from rahf.inference.preference_command import main
from rahf.inference.score_pairs import LOWEST_SCALE, fit_scale, score_pairs


@pytest.fixture(scope='module')
def clip(tmp_path_factory):
  return clip_directory.write(tmp_path_factory.mktemp('clip') / 'clip')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  data = tmp_path_factory.mktemp('pairs')
  return prepare_pairs(data, train=1, validation_unique=12, test_unique=14)


def test_scores_are_those_of_each_image(clip, folder):
  scorer, split = load(clip), open_pairs(folder, 'test_unique')
  found = score_pairs(scorer, 'similarity', split, labelled_only=True)
  assert found.ranking_ids == list(range(14))
  for row in (0, 13):
    pair = split[row]
    alone = [one.scores['similarity'] for one in scorer.score(pair.images, pair.prompt)]
    np.testing.assert_allclose(found.pairs.scores[row], alone, atol=1e-5)
    assert found.pairs.models[row] == pair.models


def test_pairs_that_cannot_be_used_are_counted_by_reason(clip, tmp_path, caplog):
  changes = [
    {},
    {'jpg_1': b'no image'},
    {'caption': None},
    {'has_label': False},
    {'label_1': 1.0},
    {'caption': 'red circle ' * 40},
  ]
  rows = [pair_files.row(number, **change) for number, change in enumerate(changes)]
  pair_files.write(tmp_path / 'test_unique-0.parquet', rows)
  split, scorer = open_pairs(tmp_path, 'test_unique'), load(clip)
  found = score_pairs(scorer, 'similarity', split, labelled_only=True)
  # Those without a prompt are judged, as in training.
  assert found.ranking_ids == [1000, 1002, 1005]
  one_each = (Problem.TRUNCATED, Problem.UNLABELLED, Problem.LABELS, Problem.UNREADABLE)
  assert found.problems == dict.fromkeys(one_each, 1)
  assert caplog.text.count('Dropped pair') == 2  # Not that without a label.
  assert 'row group 0, row 1: image 1 (1-1) cannot be read' in caplog.text
  everything = score_pairs(scorer, 'similarity', split, labelled_only=False)
  assert everything.ranking_ids == [1000, 1002, 1003, 1005]


def test_pairs_with_a_score_that_is_not_finite_are_dropped(clip, tmp_path, caplog):
  """A CLIP whose embedding of one token is NaN."""
  rows = [pair_files.row(number) for number in range(3)]
  rows.append(pair_files.row(3, caption='zz'))
  pair_files.write(tmp_path / 'test_unique-0.parquet', rows)
  split, scorer = open_pairs(tmp_path, 'test_unique'), load(clip)
  first = int(scorer.tokenise('zz').text[1])
  assert not any(first in scorer.tokenise(row['caption']).text for row in rows[:3])
  table = scorer.params['text']['embedding']
  scorer.params['text']['embedding'] = table.at[first].set(np.nan)
  found = score_pairs(scorer, 'similarity', split, labelled_only=True)
  assert found.ranking_ids == [1000, 1001, 1002]
  assert found.problems == {Problem.NOT_FINITE: 1}
  assert 'row 1: similarity of its images is nan and nan' in caplog.text
  scorer.params['text']['embedding'] = table * np.nan
  with pytest.raises(InputError, match='4 with a score that is not finite'):
    score_pairs(scorer, 'similarity', split, labelled_only=True)


def test_the_scale_is_that_of_the_choices():
  """People who choose by the sigmoid of 7 times the difference."""
  random = np.random.default_rng(0)
  scores = random.random((20000, 2))
  p_first = 1 / (1 + np.exp(-7 * (scores[:, 0] - scores[:, 1])))
  preference = (random.random(len(scores)) < p_first).astype(float)
  models = [('a', 'b')] * len(scores)
  found = fit_scale(JudgedPairs(scores, preference, [''] * len(scores), models))
  assert found == pytest.approx(7, rel=0.05)
  opposite = JudgedPairs(scores, 1 - preference, [''] * len(scores), models)
  assert fit_scale(opposite) == LOWEST_SCALE


def test_the_command(clip, folder, tmp_path, capsys):
  rahf = tiny_directory.write(tmp_path)
  out = tmp_path / 'out'
  status = main(
    [str(clip), f'tiny={rahf}', f'--pairs={folder}', f'--out={out}', '--score=overall']
  )
  printed = capsys.readouterr().out
  assert status == 0, printed
  for text in ('| clip ', '| tiny ', 'similarity', 'overall', 'always tie', 'truth'):
    assert text in printed
  assert re.search('people there: tiny by|tiny: its scores do not agree', printed)
  assert printed.startswith((out / 'preferences.md').read_text())
  metrics = json.loads((out / 'metrics.json').read_text())
  assert metrics['clip']['pairs'] == 14
  assert 0 <= metrics['tiny']['accuracy/ties_half'] <= 1
  # The votes are what `rahf.rank` takes, with scores as the model gives them.
  assert rank.main([str(out / 'clip.csv'), '--draws=0']) == 0
  with (out / 'tiny.csv').open() as file:
    row = next(csv.DictReader(file))
  pair = open_pairs(folder, 'test_unique')[0]
  (said,) = load(rahf).score(pair.images[0], pair.prompt)
  assert float(row['score_left']) == pytest.approx(said.scores['overall'], abs=1e-4)


def test_generators_without_a_name_or_truth(clip, tmp_path, capsys):
  """They get dashes, and no votes that rahf.rank would refuse."""
  changes = [{}, {'model_0': None}, {'model_1': 'b\n'}]
  rows = [pair_files.row(number, **change) for number, change in enumerate(changes)]
  for split in ('validation_unique', 'test_unique'):
    pair_files.write(tmp_path / 'pairs' / f'{split}-0.parquet', rows)
  (tmp_path / 'pairs' / 'truth.json').write_text(
    json.dumps({'quality': {'model-a': 1.0}, 'ceilings': {'train': {}}})
  )
  out = tmp_path / 'out'
  assert main([f'c={clip}', f'--pairs={tmp_path}/pairs', f'--out={out}']) == 0
  printed = capsys.readouterr().out
  (row,) = (line for line in printed.splitlines() if line.startswith('| c '))
  assert row.split('|')[-2].strip() == '–'
  assert 'best possible' not in printed
  assert 'c: Pairs that are not among its votes, as a generator has no name' in printed
  assert (out / 'c.csv').read_text().count('\n') == 2
  assert rank.main([str(out / 'c.csv'), '--draws=0']) == 0


@pytest.mark.parametrize(
  ('given', 'message'),
  [
    (['M', '--pairs=nowhere'], 'no .parquet file'),
    (['M', '--score=style'], 'no model has it; give one of plausibility, alignment'),
    (['M', '--threshold_split=validation'], "no split 'validation'"),
    (['M', '--out=T/none/out'], 'the folder T/none does not exist'),
    (['M', '--out=T/model'], '--out=T/model exists'),
    (['a/x', 'b/x'], 'MODEL: x stands twice, for a/x and b/x; give NAME=PATH'),
    (['preferences=M'], 'no model can be called preferences'),
    (['../esc=T/x y'], "the name 'x y' must consist of"),
    (['T/a=b/c=d'], "the name 'c=d' must consist of"),
    (['=M'], "the name '' must consist of"),
    (['M', 'second=T/none'], 'T/none does not exist'),
  ],
)
def test_mistakes_are_found_before_anything_is_loaded(
  folder, tmp_path, capsys, monkeypatch, given, message
):
  model = str(tiny_directory.write(tmp_path))
  given = [word.replace('T/', f'{tmp_path}/').replace('M', model) for word in given]
  monkeypatch.delattr('rahf.inference.open_scorer.load')
  assert main([f'--pairs={folder}', *given]) == 2
  errors = capsys.readouterr().err
  assert errors.startswith('error: ')
  assert message.replace('T/', f'{tmp_path}/') in errors
