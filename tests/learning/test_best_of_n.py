"""Grouping, choosing and gains, on planted values."""

import math

import pytest

from rahf.errors import InputError
from rahf.learning.best_of_n import Candidate, choose, gains


def make(position, original, value, *, prompt='', error='', **scores) -> Candidate:
  scores = {} if error else {'s': value, **scores}
  return Candidate(position, f'uid{position}', original, prompt, scores, value, error)


def uids(candidates) -> list[str]:
  return [one.uid for one in candidates]


PLANTED = [
  make(0, 'b', 0.5),
  make(1, 'a', -1.0),
  make(2, 'b', 0.9),
  make(3, 'b', math.nan, error='damaged'),
  make(4, 'a', -0.5),
  make(5, 'b', 0.9),
  make(6, 'b', 0.7),
  make(7, '', math.nan, error='its prompt is None'),
  make(8, 'c', math.nan, error='damaged'),
]


def test_the_best_and_of_equals_the_first():
  first, second, third = choose(PLANTED)
  assert [first.original, second.original, third.original] == ['b', 'a', 'c']
  assert uids(first.ranked) == ['uid2', 'uid5', 'uid6', 'uid0']
  assert uids(first.chosen) == ['uid2']
  assert uids(first.failed) == ['uid3']
  assert uids(second.chosen) == ['uid4']
  assert uids(third.failed) == ['uid8']
  assert not third.chosen


@pytest.mark.parametrize(
  ('options', 'counts'),
  [
    ({'keep': 3}, [3, 2, 0]),
    ({'keep': 9}, [4, 2, 0]),
    ({'keep': 9, 'minimum': 0.7}, [3, 0, 0]),
    ({'minimum': 0.91}, [0, 0, 0]),
    ({'minimum': -0.5}, [1, 1, 0]),
  ],
)
def test_how_many_are_chosen(options, counts):
  assert [len(one.chosen) for one in choose(PLANTED, **options)] == counts


def test_nan_is_refused():
  with pytest.raises(InputError, match='uid4: its value is NaN'):
    choose([make(4, 'a', math.nan)])


def test_gains_are_means_over_prompts():
  choices = choose(
    [
      # Many candidates of one prompt do not count more than few of another.
      make(0, 'a', 1.0, prompt='a', t=4.0),
      make(1, 'a', 4.0, prompt='a photo of a', t=1.0),
      make(2, 'a', 1.0, prompt='a drawing of a', t=1.0),
      make(3, 'b', 0.0, prompt=' b ', t=0.0),
      make(4, 'b', 2.0, prompt='a photo of b', t=2.0),
      make(5, 'c', 7.0, prompt='a photo of c', t=0.0),
      make(6, 'd', -1.0, prompt='d', t=5.0),
    ],
    minimum=0,
  )
  value, s, t = gains(choices)
  assert [value.name, s.name, t.name] == ['value', 's', 't']
  assert value[1:] == s[1:]
  assert (value.prompts, value.plain_prompts) == (3, 2)
  assert value.best == pytest.approx((4 + 2 + 7) / 3)
  assert value.all == pytest.approx((2 + 1 + 7) / 3)
  assert value.over_all.value == pytest.approx(1)
  assert value.plain == pytest.approx((1 + 0) / 2)
  assert value.over_plain.value == pytest.approx((3 + 2) / 2)
  # Draws of two prompts: the gain of one twice, of the other twice, or of both.
  assert (value.over_plain.low, value.over_plain.high) == (2, 3)
  assert t.best == pytest.approx((1 + 2 + 0) / 3)
  assert t.over_plain.value == pytest.approx((1 - 4 + 2 - 0) / 2)


def test_no_interval_of_one_prompt_and_no_gain_of_none():
  (value, _) = gains(choose([make(0, 'a', 1.0), make(1, 'a', 3.0)]))
  assert value.over_all.value == 1
  assert math.isnan(value.over_all.low)
  assert math.isnan(value.over_plain.value)
  assert gains(choose([make(0, 'a', 1.0)], minimum=2)) == []
