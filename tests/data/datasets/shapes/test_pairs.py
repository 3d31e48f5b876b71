"""Generated pairs: reproducible, with the stated ceilings and order of generators."""

import collections
import json

import numpy as np
import pytest

from rahf.data.datasets.shapes import pairs
from rahf.data.images import codec
from rahf.data.preferences.pairs import open_pairs
from rahf.evaluation import preference_accuracy
from rahf.evaluation.preference_accuracy import JudgedPairs

# From the worst to the best, by their defects.
ORDER = ['gen-e', 'gen-c', 'gen-f', 'gen-a', 'gen-d', 'gen-b']


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  data = tmp_path_factory.mktemp('pairs')
  return pairs.prepare_pairs(data, train=45, validation_unique=5, test_unique=6)


def test_pairs_are_read_as_pick_a_pics(folder):
  split = open_pairs(folder, 'train')
  assert len(split) == 45
  assert len(split.groups) == 2
  counts = collections.Counter(pair.prompt for pair in split)
  for pair in split:
    assert pair.num_example_per_prompt == counts[pair.prompt]
    assert pair.preference in (0, 0.5, 1)
    assert pair.models[0] != pair.models[1]
    shapes = {codec.decode_image(data).shape for data in pair.images}
    assert shapes == {(64, 64, 3)}
  assert sorted(set(counts.values())) == [1, 2, 3, 4]
  assert all(p.num_example_per_prompt == 1 for p in open_pairs(folder, 'test_unique'))


def test_both_images_are_drawn_for_the_same_prompt():
  for index in range(20):
    first, second = pairs.make_pair(0, 'train', index).scenes
    assert [g.asked for g in first.groups] == [g.asked for g in second.groups]


def test_a_pair_is_a_function_of_its_number(folder, tmp_path):
  longer = pairs.prepare_pairs(tmp_path, train=10, validation_unique=5, test_unique=6)
  for name in ('validation_unique', 'test_unique'):
    assert list(open_pairs(folder, name)) == list(open_pairs(longer, name))


def test_generators_have_the_stated_order():
  scores = collections.defaultdict(list)
  for index in range(400):
    pair = pairs.make_pair(1, 'train', index)
    for name, latent in zip(pair.generators, pair.latent, strict=True):
      scores[name].append(latent)
  means = {name: np.mean(found) for name, found in scores.items()}
  assert sorted(means, key=means.get) == ORDER
  assert means.keys() == pairs.GENERATORS.keys()


def test_ceilings_are_reached_by_who_sees_the_latent_scores(folder):
  made = [pairs.make_pair(2, 'test_unique', index) for index in range(1500)]
  latents = [(pair.generators, pair.latent) for pair in made]
  ceilings = pairs.expected_accuracies(latents)
  judged = JudgedPairs(
    np.array([pair.latent for pair in made]),
    np.array([pair.preference for pair in made]),
    [str(i) for i in range(len(made))],
    [pair.generators for pair in made],
  )
  threshold = preference_accuracy.choose_threshold(judged)
  found = preference_accuracy.measure(judged, threshold)
  for name in ('accuracy/always_tie', 'accuracy/ties_dropped'):
    assert found[name].low <= ceilings[name] <= found[name].high, name
  # PickScore's threshold is a multiple of .1, so that its rule is not quite the best.
  best = found['accuracy/ties_half']
  assert best.low - 0.01 <= ceilings['accuracy/ties_half'] <= best.high + 0.01
  truth = json.loads((folder / 'truth.json').read_text())
  assert truth['quality'].keys() == pairs.GENERATORS.keys()
