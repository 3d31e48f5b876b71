"""Pictures collected during an evaluation."""

import io
import math

import numpy as np
import pytest
from PIL import Image

from rahf.data import schema
from rahf.data.images import codec
from rahf.evaluation.score_example import ExampleLabels, score
from rahf.reports.gallery import MAP_SIDE, Gallery, thumbnail

NAN = math.nan
SQUARE = np.zeros((64, 96), np.float32)
SQUARE[:32, 48:] = 1


def make_record(number: int, **changes) -> schema.Record:
  image = np.full((300, 450, 3), (200, 40, 10), np.uint8)
  data = codec.encode_map(SQUARE)
  record = schema.Record(
    uid=f'{number}',
    image=codec.encode_png(image),
    prompt='a red cat',
    tokens=('a', 'red', 'cat'),
    keyword_labels=(1, 0, 1),
    scores=(0.5, 0.5, 0.5, NAN),
    implausibility_map=data,
    misalignment_map=data,
  )
  return record._replace(**changes)


def make_prediction(error: float, labels=(1, 0, 1), maps=(SQUARE, SQUARE)):
  scores = np.array([0.5 + error] * 4, np.float32)
  return ExampleLabels(np.stack(maps), scores, labels, 0, np.array([0.1, 0.9, 0.2]))


def fill(gallery: Gallery, *examples) -> Gallery:
  for record, prediction in examples:
    gallery.add(record, prediction, score(record, prediction))
  return gallery


def test_the_worst_are_found_in_any_order():
  """By score error, the second and fifth: ties go to the earliest example."""
  errors = [0.1, 0.4, 0.2, 0.3, 0.4, 0.4]
  examples = [
    (make_record(i), make_prediction(error)) for i, error in enumerate(errors)
  ]
  gallery = fill(Gallery(worst=2), *examples)
  reverse = fill(Gallery(worst=2), *examples[::-1])
  panels = gallery.worst_panels()
  assert {name: len(found) for name, found in panels.items()} == {
    'score error': 2,
    'implausibility CC': 2,
    'misalignment CC': 2,
    'keyword F1': 2,
  }
  (one, two), (last, before) = (
    panels['score error'],
    reverse.worst_panels()['score error'],
  )
  # Only the titles differ.
  assert not np.array_equal(one, two)
  np.testing.assert_array_equal(one[60:], last[60:])
  alone = fill(Gallery(worst=1), examples[1]).worst_panels()['score error'][0]
  np.testing.assert_array_equal(one, alone)
  np.testing.assert_array_equal(
    two, fill(Gallery(worst=1), examples[4]).worst_panels()['score error'][0]
  )
  np.testing.assert_array_equal(
    before, fill(Gallery(worst=1), examples[4]).worst_panels()['score error'][0]
  )


def test_each_criterion_has_its_own_worst():
  flipped = make_prediction(0, maps=(SQUARE, SQUARE[::-1]))
  unmarked = make_prediction(0, labels=(1, 1, 1))
  fine = make_prediction(0)
  examples = [(make_record(i), p) for i, p in enumerate((fine, flipped, unmarked))]
  panels = fill(Gallery(worst=1), *examples).worst_panels()

  def same(name, example):
    expected = fill(Gallery(worst=1), example).worst_panels()[name][0]
    return np.array_equal(panels[name][0], expected)

  assert same('misalignment CC', examples[1])
  assert same('keyword F1', examples[2])
  assert same('implausibility CC', examples[0])


def test_unannotated_examples_are_not_cases():
  record = make_record(
    0,
    scores=(NAN,) * 4,
    keyword_labels=(),
    implausibility_map=b'',
    misalignment_map=codec.encode_map(np.zeros((8, 8), np.float32)),
  )
  gallery = fill(
    Gallery(panels=[0], worst=3, thumbnails=1), (record, make_prediction(0))
  )
  assert not any(gallery.worst_panels().values())
  assert len(gallery.panels) == len(gallery.thumbnails) == 1
  (annotated, predicted) = gallery.thumbnails[0].maps['implausibility']
  assert annotated is None
  assert predicted


def test_limits():
  examples = [(make_record(i), make_prediction(i / 10)) for i in range(5)]
  gallery = fill(Gallery(panels=[0, 1], thumbnails=3), *examples)
  assert len(gallery.panels) == 2
  assert len(gallery.thumbnails) == 3
  assert not any(gallery.worst_panels().values())
  nothing = fill(Gallery(), *examples)
  assert not nothing.panels
  assert not nothing.thumbnails


def test_worst_cases_do_not_keep_batches_in_memory():
  """The prediction of an example is a view of a whole batch."""
  batch = np.stack([np.stack([SQUARE, SQUARE])] * 64)
  prediction = make_prediction(0.1)._replace(maps=batch[3])
  gallery = fill(Gallery(worst=1), (make_record(0), prediction))
  kept = gallery._worst['score error'][0][-1].prediction.maps
  assert kept.base is None
  np.testing.assert_array_equal(kept, batch[3])


def test_thumbnails_are_small_and_accurate():
  small = thumbnail(make_record(0), make_prediction(0))
  image = np.asarray(Image.open(io.BytesIO(small.image)).convert('RGB'), int)
  assert image.shape == (107, 160, 3)
  assert np.abs(image - (200, 40, 10)).max() <= 6
  for heat in (*small.maps['implausibility'], *small.maps['misalignment']):
    assert heat.peak == 1
    grey = np.asarray(Image.open(io.BytesIO(heat.picture)).convert('L'), int)
    assert grey.shape == (MAP_SIDE * 2 // 3, MAP_SIDE)
    # Row 0 is at the top; edges are blurred.
    assert grey[: MAP_SIDE // 3 - 6, MAP_SIDE // 2 + 6 :].min() > 240
    assert grey[MAP_SIDE // 3 + 6 :].max() < 15
  assert len(small.image) < 4_000
  assert small.prompt == 'a red cat'


def test_the_peak_is_that_of_the_full_map():
  """A single pixel almost vanishes in the thumbnail."""
  dot = np.zeros((512, 512), np.float32)
  dot[100, 200] = 0.9
  small = thumbnail(make_record(0), make_prediction(0, maps=(dot, dot)))
  assert small.maps['misalignment'][1].peak == pytest.approx(0.9)
