"""Samples meet their quotas exactly, or the message says why they cannot."""

import collections

import numpy as np
import pytest

from rahf.data.attributes.sampling import parse_quotas, rounded, sample
from rahf.data.attributes.table import Attributes
from rahf.errors import InputError


def attributes(**columns) -> Attributes:
  size = len(next(iter(columns.values())))
  return Attributes(
    tuple(f'image {number}' for number in range(size)),
    {name: tuple(column) for name, column in columns.items()},
    {name: np.linspace(0, 1, size) for name in columns},
  )


@pytest.fixture
def images() -> Attributes:
  """1,000 images: nine in ten are photos, and categories are uneven."""
  random = np.random.default_rng(0)
  shares = {'human': 0.6, 'animal': 0.2, 'object': 0.1, 'indoor': 0.06, '': 0.04}
  return attributes(
    photo=random.choice(['yes', 'no'], 1000, p=[0.9, 0.1]),
    category=random.choice([*shares], 1000, p=[*shares.values()]),
  )


def test_quotas_are_met_at_once_and_exactly(images):
  quotas = parse_quotas(['category=even', 'photo=yes:3,no:1'], images)
  rows = sample(images, quotas, 160, seed=1)
  assert len({*rows.tolist()}) == 160
  drawn = images.take(rows)
  counts = collections.Counter(drawn.answers['category'])
  assert counts == dict.fromkeys(('human', 'animal', 'object', 'indoor'), 40)
  assert collections.Counter(drawn.answers['photo']) == {'yes': 120, 'no': 40}


def test_questions_are_independent_where_there_are_enough_images():
  images = attributes(a=['x', 'y'] * 400, b=['p', 'p', 'q', 'q'] * 200)
  rows = sample(images, parse_quotas(['a=x:1,y:3', 'b=even'], images), 80)
  drawn = images.take(rows)
  found = collections.Counter(zip(drawn.answers['a'], drawn.answers['b'], strict=True))
  assert found == {('x', 'p'): 10, ('x', 'q'): 10, ('y', 'p'): 30, ('y', 'q'): 30}


def test_questions_that_depend_on_each_other():
  """No x is a q: the shares of each can be met, but not independently."""
  images = attributes(a=['x'] * 50 + ['y'] * 50, b=['p'] * 60 + ['q'] * 40)
  quotas = parse_quotas(['a=even', 'b=even'], images)
  drawn = images.take(sample(images, quotas, 40))
  found = collections.Counter(zip(drawn.answers['a'], drawn.answers['b'], strict=True))
  assert found == {('x', 'p'): 20, ('y', 'q'): 20}


def test_the_seed_decides_and_images_are_equally_likely(images):
  quotas = parse_quotas(['photo=yes:1'], images)
  one, again, other = (sample(images, quotas, 90, seed=seed) for seed in (1, 1, 2))
  np.testing.assert_array_equal(one, again)
  assert not np.array_equal(one, other)
  small = attributes(a=['x'] * 10)
  drawn = collections.Counter(
    row
    for seed in range(400)
    for row in sample(small, {'a': {'x': 1.0}}, 3, seed=seed).tolist()
  )
  # 120 each on average, with a standard deviation of 9.
  assert all(80 < drawn[row] < 160 for row in range(10))


def test_only_sure_answers(images):
  quotas = parse_quotas(['photo=even'], images)
  rows = sample(images, quotas, 40, confidence=0.5)
  assert rows.min() >= 500


def test_what_is_missing_and_by_how_much():
  images = attributes(
    photo=['yes'] * 90 + ['no'] * 10, category=['human', 'animal'] * 50
  )
  quotas = parse_quotas(['photo=even'], images)
  message = (
    r'100 images cannot meet the quotas for 60: photo: no lacks 20 of 30\. About 20 '
    r'could be drawn'
  )
  with pytest.raises(InputError, match=message):
    sample(images, quotas, 60)
  assert len(sample(images, quotas, 20)) == 20
  # Each category has enough, so that only what is short is named.
  both = parse_quotas(['photo=even', 'category=even'], images)
  with pytest.raises(InputError, match=r'for 60: photo: no lacks 20 of 30\. About'):
    sample(images, both, 60)
  with pytest.raises(InputError, match=r'with a confidence of 0\.95 or more cannot'):
    sample(images, both, 20, confidence=0.95)


def test_whole_numbers_that_do_not_exist():
  """Half an image of each combination would do; whole ones cannot."""
  images = attributes(a=['x', 'x', 'y', 'y'], b=['p', 'q', 'p', 'q'], c=list('mnnm'))
  quotas = parse_quotas(['a=even', 'b=even', 'c=even'], images)
  assert len(sample(images, quotas, 4)) == 4
  with pytest.raises(
    InputError, match=r'for 2: there are enough .* not together: .* lacks 1'
  ):
    sample(images, quotas, 2)


def test_an_attribute_that_nothing_is_known_of():
  images = attributes(a=['', ''])
  with pytest.raises(InputError, match=r'a is unknown for all images'):
    parse_quotas(['a=even'], images)


def test_rounding_adds_up():
  assert rounded({'a': 1 / 3, 'b': 1 / 3, 'c': 1 / 3}, 10) == {'a': 4, 'b': 3, 'c': 3}
  assert rounded({'a': 0.1, 'b': 0.9}, 10) == {'a': 1, 'b': 9}


@pytest.mark.parametrize(
  ('given', 'message'),
  [
    (['style=even'], r"'style' is not an attribute of the images.*photo, category"),
    (['photo'], r"'photo' has no shares; give NAME=even or NAME=ANSWER:SHARE"),
    (['photo=even', 'photo=even'], r'photo stands twice'),
    (['photo=yes'], r"'yes' is not ANSWER:SHARE"),
    (['photo=yes:-1'], r'with a share above 0'),
    (['photo=yes:nan'], r'with a share above 0'),
    (['photo=yes:1,yes:2'], r'each answer once'),
    (['photo=maybe:1'], r"no image has the answer 'maybe'; there are no, yes"),
  ],
)
def test_quotas_that_cannot_be_read(images, given, message):
  with pytest.raises(InputError, match=message):
    parse_quotas(given, images)
