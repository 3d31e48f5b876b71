import json
import math

import numpy as np
import pytest
import tensorflow as tf

from rahf.data import schema
from rahf.data.images.codec import decode_map
from rahf.data.labels.consolidate import Annotation, consolidate, gaussians
from rahf.errors import InputError

# JPEG artifacts in the sample's test split are up to 8 levels of 255.
MAP_TOLERANCE = {'train': 0.5 / 255, 'dev': 0.5 / 255, 'test': 8 / 255}


def annotators(record) -> list[Annotation]:
  """Spreads a manifest row's marks over three annotators.

  The manifest gives (x, y, number who marked it) without saying who, so the first
  n annotators are taken. Where discs of one row overlap that choice would matter.
  """
  columns = zip(*record['likert'], strict=True)
  ticked = [record['tokens'].index(word) for word in record['misaligned']]
  return [
    Annotation(
      implausibility_points=[
        (x, y) for x, y, n in record['artifact_points'] if who < n
      ],
      misalignment_points=[
        (x, y) for x, y, n in record['misalignment_points'] if who < n
      ],
      misaligned_words=ticked if who < 2 else (),
      scores=scores,
    )
    for who, scores in enumerate(columns)
  ]


@pytest.fixture(scope='module')
def sample(assets):
  """Rows of the manifest with the features stored for the same image."""
  folder = assets / 'richhf_sample'
  rows = {row['uid']: row for row in json.loads((folder / 'manifest.json').read_text())}
  pairs = []
  for split in schema.SPLITS:
    for raw in tf.data.TFRecordDataset(str(folder / f'{split}.tfrecord')):
      features = tf.train.Example.FromString(raw.numpy()).features.feature
      stem = features['filename'].bytes_list.value[0].decode().split('/')[1]
      row = rows[stem.removesuffix('.png')]
      # One image's artifacts are a painted mask, which points cannot reproduce.
      if isinstance(row['artifact_points'], list):
        pairs.append((row, features))
  return pairs


def test_scores_and_words_of_the_sample(sample):
  assert len(sample) == 17
  for row, _ in sample:
    labels = consolidate(annotators(row), row['tokens'], 64, 64)
    expected = [row['scores'][name] for name in schema.SCORES]
    np.testing.assert_allclose(labels.scores, expected, rtol=1e-12)
    misaligned = {row['tokens'].index(word) for word in row['misaligned']}
    zeros = {i for i, label in enumerate(labels.keyword_labels) if label == 0}
    assert zeros == misaligned


def test_maps_of_the_sample(sample):
  for row, features in sample:
    labels = consolidate(annotators(row), row['tokens'], 512, 512)
    for ours, name in zip(
      labels.maps, ('artifact_map', 'misalignment_map'), strict=True
    ):
      stored = decode_map(features[name].bytes_list.value[0])
      np.testing.assert_allclose(
        ours, stored, atol=MAP_TOLERANCE[row['split']], err_msg=f'{row["uid"]} {name}'
      )


def test_disc_has_the_right_radius_and_centre():
  one = Annotation(implausibility_points=[(0.25, 0.5)])
  maps = consolidate([one], (), height=200, width=400).maps
  rows, columns = np.nonzero(maps[0])
  assert (rows.min(), rows.max()) == (90, 110)
  assert (columns.min(), columns.max()) == (90, 110)
  assert maps[0].sum() == pytest.approx(math.pi * 10**2, rel=0.02)
  assert not maps[1].any()


def test_maps_are_averaged_over_annotators_not_points():
  twice = Annotation(misalignment_points=[(0.5, 0.5), (0.5, 0.5)])
  maps = consolidate([twice, Annotation(), Annotation()], (), 64, 64).maps
  assert maps[1][32, 32] == pytest.approx(1 / 3)


def test_disc_is_clipped_at_the_border():
  corners = Annotation(implausibility_points=[(0, 0), (1, 1)])
  mask = consolidate([corners], (), 64, 64).maps[0]
  assert mask[0, 0] == 1
  assert mask[63, 63] == 1
  assert mask[20:44].sum() == 0


def test_half_of_the_annotators_is_not_a_majority():
  ticks = [Annotation(misaligned_words=w) for w in ((0, 1), (0,), (0, 2), (2,))]
  assert consolidate(ticks, 'abcd', 64, 64).keyword_labels == (0, 1, 1, 1)


def test_marked_words_next_to_any_white_space():
  """A label token is marked by any of its words, by its text, or by its position."""
  tokens = ('\ufeffa', 'red\ncircle\r\n', '\u00a0', 'red')
  for marked, expected in (
    (('a',), (0, 1, 1, 1)),
    (('circle',), (1, 0, 1, 1)),
    (('red',), (1, 0, 1, 0)),
    (('red\ncircle\r\n', 2), (1, 0, 0, 1)),
  ):
    one = Annotation(misaligned_words=marked)
    assert consolidate([one], tokens, 8, 8).keyword_labels == expected
  with pytest.raises(InputError, match=r"misaligned word 'circ' .* 'red\\ncircle"):
    consolidate([Annotation(misaligned_words=('circ',))], tokens, 8, 8)


def test_missing_scores_are_nan():
  first = Annotation(scores=(5, None, math.nan, 2))
  second = Annotation(scores=(3, 1, None, None))
  scores = consolidate([first, second], (), 64, 64).scores
  np.testing.assert_equal(scores, (0.75, 0.0, math.nan, 0.25))


@pytest.mark.parametrize(
  ('annotation', 'message'),
  [
    (Annotation(scores=(0, 3, 3, 3)), r'plausibility score 0 .* 1 to 5'),
    (Annotation(scores=(3, 3, 3, 5.5)), r'overall score 5\.5'),
    (Annotation(scores=(3, 3)), '2 scores given'),
    (Annotation(misaligned_words=(3,)), 'misaligned word 3 .* 3 label tokens'),
    (Annotation(misaligned_words=(-1,)), 'misaligned word -1'),
    (
      Annotation(misaligned_words=('dog',)),
      "misaligned word 'dog' .* 'a', 'red', 'cat'",
    ),
    (Annotation(trust=0), 'trust 0 is not positive'),
    (Annotation(trust=math.nan), 'trust nan'),
    (Annotation(implausibility_points=[(0.5, 1.2)]), r'point \(0\.5, 1\.2\)'),
    (Annotation(misalignment_points=[(math.nan, 0)]), r'point \(nan, 0\)'),
  ],
)
def test_what_is_refused(annotation, message):
  with pytest.raises(InputError, match=message):
    consolidate([annotation], ('a', 'red', 'cat'), 64, 64)


def test_no_annotators_is_refused():
  with pytest.raises(InputError, match='at least one annotator'):
    consolidate([], (), 64, 64)


def test_words_may_be_named():
  """A word that occurs twice is marked twice."""
  tokens = ('a', 'red', 'cat', 'and', 'a', 'dog')
  named = Annotation(misaligned_words=('a', 5))
  labels = consolidate([named], tokens, 64, 64)
  assert labels.keyword_labels == (0, 1, 1, 1, 0, 0)


def test_labels_that_nobody_was_asked_for_are_missing_not_clean():
  nothing = Annotation(None, None, None)
  labels = consolidate([nothing, nothing], ('a', 'cat'), 64, 64)
  assert labels.maps == (None, None)
  assert labels.keyword_labels == labels.misaligned == ()
  assert np.isnan(labels.scores).all()
  # Only annotators who were asked count.
  asked = Annotation([(0.5, 0.5)], (), (1,))
  labels = consolidate([nothing, asked, nothing], ('a', 'cat'), 64, 64)
  assert labels.maps[0].max() == 1
  assert not labels.maps[1].any()
  assert labels.keyword_labels == (1, 0)


def test_annotators_are_weighted_by_trust():
  one = Annotation([(0.5, 0.5)], (), (0,), (5, 5, None, None), trust=3)
  two = Annotation((), (), (1,), (1, None, 1, None), trust=1)
  labels = consolidate([one, two], ('a', 'cat'), 64, 64)
  assert labels.maps[0][32, 32] == pytest.approx(0.75)
  assert labels.misaligned == (0.75, 0.25)
  assert labels.keyword_labels == (0, 1)
  np.testing.assert_equal(labels.scores, (0.75, 1.0, 0.0, math.nan))
  np.testing.assert_equal(labels.differences, (1.0, math.nan, math.nan, math.nan))


def test_one_annotator_is_enough():
  labels = consolidate([Annotation((), (), (0,), (2, 3, 4, 5))], ('a', 'b'), 8, 8)
  assert labels.keyword_labels == (0, 1)
  assert labels.scores == (0.25, 0.5, 0.75, 1.0)
  assert np.isnan(labels.differences).all()


def test_gaussians_by_the_shorter_side():
  """At one standard deviation, 1/20 of it, the value is exp(-1/2)."""
  one = Annotation([(0.25, 0.5)], ())
  heat = consolidate([one, Annotation((), ())], (), 200, 400, gaussians).maps[0]
  assert heat[100, 100] == pytest.approx(0.5)
  for row, column in ((110, 100), (90, 100), (100, 110), (100, 90)):
    assert heat[row, column] == pytest.approx(0.5 * math.exp(-0.5))
  assert heat[110, 110] == pytest.approx(0.5 * math.exp(-1))


def test_near_gaussians_do_not_add_up():
  two = Annotation([(0.5, 0.5), (0.5, 0.5)], ())
  assert consolidate([two], (), 64, 64, gaussians).maps[0].max() == pytest.approx(1)
