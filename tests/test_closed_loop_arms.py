"""The experiment's arms choose what they say, and its verdicts can refute."""

import pathlib
import sys

import numpy as np
import pytest

sys.path.append(str(pathlib.Path(__file__).parents[1] / 'benchmarks'))
import closed_loop_arms as arms

RANDOM = np.random.default_rng(0)
RAHF = RANDOM.normal(size=(400, 8))
POOL = arms.Pool(RAHF, RAHF + RANDOM.normal(size=RAHF.shape))


@pytest.mark.parametrize('arm', arms.CHOSEN)
def test_every_prompt_keeps_equally_many(arm):
  chosen = arms.choose(arm, POOL, 2, 0)
  assert (chosen.sum(1) == 2).all()
  means = {
    name: np.where(chosen, values, 0).sum(1).mean() / 2
    for name, values in POOL._asdict().items()
  }
  if arm in ('random', 'shuffled'):
    assert abs(means['rahf']) < 0.1
    assert abs(means['oracle']) < 0.2
  best = np.sort(RAHF, 1)
  if arm == 'rahf':
    assert means['rahf'] == pytest.approx(best[:, -2:].mean())
  if arm == 'worst':
    assert means['rahf'] == pytest.approx(best[:, :2].mean())
  if arm == 'oracle':
    assert 0 < means['rahf'] < means['oracle']


def test_ties_are_broken_at_random():
  flat = arms.Pool(np.zeros((400, 8)), np.zeros((400, 8)))
  chosen = arms.choose('rahf', flat, 2, 0)
  np.testing.assert_allclose(chosen.mean(0), 0.25, atol=0.08)


def verdicts(**means):
  noise = RANDOM.normal(0, 0.05, (3, 200))
  found = {
    arm: means.get(arm, 0.3) + noise + RANDOM.normal(0, 0.05, (3, 200))
    for arm in ('base', *arms.CHOSEN)
  }
  return {row[0]: row[2] for row in arms.verdicts(found)}


def test_verdicts():
  found = verdicts(oracle=0.5, rahf=0.4, worst=0.2)
  assert found['oracle > rahf'] == found['rahf > random'] == 'as predicted'
  assert found['base > worst'] == 'as predicted'
  assert found['random ≈ shuffled'] in ('as predicted: none shown', 'random is better')
  refuted = verdicts(oracle=0.5, rahf=0.2, worst=0.2)
  assert refuted['rahf > random'] == refuted['rahf > base'] == 'refuted'
  assert verdicts(shuffled=0.4)['random ≈ shuffled'] == 'shuffled is better'


def test_intervals_contain_seeds_and_prompts():
  """Values that differ only by seed have an interval as wide as few seeds allow."""
  by_seed = np.repeat([[0.0], [1.0], [2.0]], 200, 1)
  found = arms.estimate(by_seed)
  assert found.mean == 1
  assert found.high - found.low > 1
  by_prompt = np.repeat(RANDOM.normal(size=(1, 200)), 3, 0)
  found = arms.estimate(by_prompt)
  assert found.high - found.low == pytest.approx(2 * 1.96 / 200**0.5, rel=0.25)


def test_a_fooled_score_is_seen():
  rahf = np.linspace(0, 1, 100)[None]
  fooled = np.where(rahf > 0.9, 0.0, rahf)
  found = arms.goodhart(arms.Pool(rahf, fooled), np.array([1.0, 0.5, 0.1]))
  assert [share for share, _, _ in found] == [1.0, 0.5, 0.1]
  assert found[0][1] < found[1][1] < found[2][1]
  assert found[2][2] < found[1][2]
