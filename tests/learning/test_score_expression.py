"""Sums of scores: what is parsed, and what is refused."""

import math
import re

import pytest

from rahf.errors import InputError
from rahf.learning.score_expression import parse

KNOWN = ('plausibility', 'alignment', 'overall', 'pick.similarity')


@pytest.mark.parametrize(
  ('text', 'terms'),
  [
    ('overall', [(1, 'overall')]),
    (' - overall ', [(-1, 'overall')]),
    ('0.7*alignment+0.3*plausibility', [(0.7, 'alignment'), (0.3, 'plausibility')]),
    ('2. * alignment\t- .5*overall', [(2, 'alignment'), (-0.5, 'overall')]),
    (
      '1e-2*pick.similarity + overall - 3E1*alignment',
      [(0.01, 'pick.similarity'), (1, 'overall'), (-30, 'alignment')],
    ),
  ],
)
def test_sums(text, terms):
  assert [*parse(text, KNOWN).terms] == terms


def test_values():
  scores = {'alignment': 0.5, 'plausibility': 0.25, 'overall': 9, 'pick.similarity': 20}
  found = parse('2*alignment - plausibility + 0.1*pick.similarity', KNOWN)
  assert found.parts(scores) == [1, -0.25, 2]
  assert found.value(scores) == 2.75
  assert str(found.terms[2]) == '0.1*pick.similarity'


@pytest.mark.parametrize('sign', '+-')
def test_a_sum_that_is_too_large_is_not_finite(sign):
  found = parse(f'1e308*overall {sign} 1e308*alignment', KNOWN)
  assert not math.isfinite(found.value({'overall': 9, 'alignment': 9}))


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('', "'' is not a score or a weighted sum such as"),
    ('similarity', "'similarity' is not one of plausibility, alignment, overall, pick"),
    ('pick.overall', "'pick.overall' is not one of"),
    ('overall+', "'+' is not a score"),
    ('overall alignment', "'overall alignment' is not a score"),
    ('overall++alignment', "'++alignment' is not a score"),
    ('overall*0.5', "'overall*0.5' is not a score"),
    ('0.5overall', "'0.5overall' is not a score"),
    ('0.5', "'0.5' is not a score"),
    ('nan*overall', "'nan*overall' is not a score"),
    ('(overall)', "'(overall)' is not a score"),
    ('overall-alignment*2', "'-alignment*2' is not a score"),
    ('__import__("os")', 'is not a score'),
    ('overall+0.5*overall', 'overall occurs twice; add up its weights'),
    ('0*overall', 'the weight of overall is 0'),
    ('1e999*overall', 'the weight of overall is 1e999'),
  ],
)
def test_nonsense(text, message):
  with pytest.raises(InputError, match=re.escape(f'--by={text}: ')) as error:
    parse(text, KNOWN)
  assert message in str(error.value)


@pytest.mark.parametrize('score', [float('nan'), float('inf')])
def test_values_that_are_not_finite(score):
  found = parse('a-2*b', ['a', 'b'])
  assert found.finite_value({'a': 1.0, 'b': 0.25}) == 0.5
  with pytest.raises(InputError, match='scores are not finite'):
    found.finite_value({'a': 1.0, 'b': score})
