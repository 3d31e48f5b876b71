"""Metrics by attribute are those of the images that have it."""

import numpy as np
import pytest

from rahf.data import schema
from rahf.data.attributes.table import Attributes
from rahf.evaluation import by_attribute, samples
from rahf.evaluation.samples import EvaluatedExample
from rahf.evaluation.significance import BETTER, WORSE, Run

SIZE = 80


def example(number: int, noise: float, random) -> EvaluatedExample:
  scores = np.random.default_rng(number).random(4)
  values = {'mse': noise, 'mse_empty': np.nan, 'cc': 1 - noise, 'kld': noise}
  values |= {'sim': 1 - noise, 'nss': 1.0, 'auc_judd': 1 - noise}
  return EvaluatedExample(
    uid=str(number),
    predicted=tuple((scores + noise * random.normal(size=4)).tolist()),
    annotated=tuple(scores.tolist()),
    maps=dict.fromkeys(schema.MAPS, values),
    truth=(1, 0),
    marked=(1, int(random.random() < noise)),
  )


def run(name: str, cats: float, dogs: float) -> Run:
  """Even images are cats; noise by animal."""
  random = np.random.default_rng(len(name))
  found = [example(n, (cats, dogs)[n % 2], random) for n in range(SIZE)]
  return Run(name, found, None)


ATTRIBUTES = Attributes(
  tuple(map(str, range(SIZE))),
  {'animal': ('cat', 'dog') * (SIZE // 2), 'rare': ('yes', *[''] * (SIZE - 1))},
  {name: np.ones(SIZE) for name in ('animal', 'rare')},
)


def test_rows_are_metrics_of_a_part():
  one = run('one', 0.1, 0.8)
  animal, rare = by_attribute.tables(one.samples, ATTRIBUTES)
  assert animal.title == 'By animal'
  assert [row[:2] for row in animal.rows] == [['cat', '40'], ['dog', '40']]
  for start, row in enumerate(animal.rows):
    expected = samples.metrics(one.samples[start::2])
    shown = [f'{expected[name]:.3f}' for name in by_attribute.HEADLINES]
    assert list(row[2:]) == shown
  # One image has no correlation over images.
  assert rare.rows[0][:3] == ['yes', '1', '–']


def test_runs_are_marked_within_an_attribute():
  """The second run is better for dogs, and worse for cats."""
  runs = [run('one', 0.1, 0.8), run('other', 0.8, 0.1)]
  animal, _ = by_attribute.comparison(runs, ATTRIBUTES, draws=100)
  rows = {row[0]: row[2:] for row in animal.rows}
  assert [*rows] == ['cat, one', 'cat, other', 'dog, one', 'dog, other']
  assert all(cell.endswith(WORSE) for cell in rows['cat, other'])
  assert all(cell.endswith(BETTER) for cell in rows['dog, other'])
  assert not any(cell.endswith((BETTER, WORSE)) for cell in rows['cat, one'])


@pytest.mark.parametrize('order', [1, -1])
def test_the_order_of_samples_does_not_matter(order):
  runs = [run('one', 0.1, 0.8), run('other', 0.8, 0.1)]
  runs[1] = runs[1]._replace(samples=runs[1].samples[::order])
  first = by_attribute.comparison(runs, ATTRIBUTES, draws=100)
  assert first == by_attribute.comparison(
    [runs[0], run('other', 0.8, 0.1)], ATTRIBUTES, draws=100
  )
