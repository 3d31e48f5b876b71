"""Annotators measured against each other, on labels that can be followed by hand."""

import math

import numpy as np
import pytest
from etils import epath

from rahf.data import schema
from rahf.data.images import codec
from rahf.data.labels import raw
from rahf.data.labels.consolidate import Annotation
from rahf.errors import InputError
from rahf.evaluation.human_agreement import annotator_metrics

CENTRE, CORNER = (0.5, 0.5), (0.0, 0.0)
SIDE = 512  # at which maps are compared, so that none is resized


class Split(list):
  """Records with a place, as a prepared split has."""

  name = 'test'

  def __init__(self, directory, records):
    super().__init__(records)
    self.directory = epath.Path(directory)


def make_split(tmp_path, annotations: dict[str, list[Annotation]]) -> Split:
  blank = codec.encode_map(np.zeros((SIDE, SIDE), np.float32))
  records = [
    schema.Record(
      uid=uid,
      image=codec.encode_png(np.zeros((80, 80, 3), np.uint8)),
      prompt='a red cat',
      tokens=('a', 'red', 'cat'),
      keyword_labels=(1, 1, 1),
      scores=(0.0,) * 4,
      implausibility_map=blank,
      misalignment_map=b'',
    )
    for uid in annotations
  ]
  split = Split(tmp_path, records)
  raw.write(raw.path(split.directory, split.name), annotations.items())
  return split


def test_annotators_who_agree_are_perfect(tmp_path):
  low = [Annotation([CENTRE], [CORNER], [1], [1, 2, 1, 2])] * 3
  high = [Annotation([CORNER], [], [], [5, 4, 3, 5])] * 3
  found = annotator_metrics(make_split(tmp_path, {'x': low, 'y': high}))
  for name in schema.SCORES:
    assert found[f'{name}/plcc'] == pytest.approx(1)
  assert found['implausibility/cc'] == pytest.approx(1)
  assert found['implausibility/mse'] == 0
  assert found['misalignment/mse_empty'] == 0
  assert found['keywords/f1'] == 1


def test_one_is_left_out_at_a_time(tmp_path):
  """Two tick the second word, the third ticks the first; maps in two places."""
  three = [
    Annotation([CENTRE], [], [1], [1, 1, 1, 1]),
    Annotation([CENTRE], [], [1], [1, 1, 1, 1]),
    Annotation([CORNER], [], [0], [5, 5, 5, 5]),
  ]
  found = annotator_metrics(make_split(tmp_path, {'x': three}))
  # Of two who differ none has a majority: the first two are measured by no mark at
  # all, so that theirs is wrong; the third is wrong by the others.
  assert found['keywords/precision'] == 0
  assert found['keywords/recall'] == 0
  # With shares d and c of pixels in the discs: half of each is missing twice, then all
  # of one is missing and the other too much, (1/4 (d + c) + 1/4 (d + c) + d + c) / 3.
  rows, columns = np.mgrid[:SIDE, :SIDE]
  d, c = (
    np.mean((rows - SIDE * y) ** 2 + (columns - SIDE * x) ** 2 <= (SIDE / 20) ** 2)
    for x, y in (CENTRE, CORNER)
  )
  assert found['implausibility/mse'] == pytest.approx((d + c) / 2, rel=0.01)
  # All are pooled: who says 0 is measured by 1/2, who says 1 by 0.
  assert found['plausibility/plcc'] == pytest.approx(-1)


def test_words_that_are_not_in_the_prompt_are_named(tmp_path):
  two = [Annotation((), (), ['dog']), Annotation((), (), [])]
  with pytest.raises(InputError, match=r'test\.annotations\.jsonl, x: .*dog'):
    annotator_metrics(make_split(tmp_path, {'x': two}))


def test_no_result_without_raw_annotations(tmp_path):
  split = make_split(tmp_path, {'x': [Annotation()]})
  assert annotator_metrics(split) is None
  raw.path(split.directory, split.name).unlink()
  assert annotator_metrics(split) is None


def test_annotators_who_were_not_asked_are_not_measured(tmp_path):
  """The second annotator gave only overall scores, the third no words."""
  blank = (None, None, None)
  annotations = {
    f'{score}': [
      Annotation([CENTRE], [CORNER], [1], [score, score, score, None]),
      Annotation(*blank, (None, None, None, score)),
      Annotation([CENTRE], [CORNER], None, [score, score, score, None]),
    ]
    for score in (1, 2, 5)
  }
  found = annotator_metrics(make_split(tmp_path, annotations))
  assert found['plausibility/plcc'] == pytest.approx(1)
  assert found['implausibility/cc'] == pytest.approx(1)
  # One gave an overall score, one marked words: there was nobody to compare with.
  assert math.isnan(found['overall/plcc'])
  assert math.isnan(found['keywords/f1'])
