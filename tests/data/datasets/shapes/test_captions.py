"""Captions of generated images, against what the template judge sees."""

import math

import numpy as np
import pytest

from rahf.data.datasets.shapes.prompt import write_caption
from rahf.data.datasets.shapes.record import make_caption_record, make_sample
from rahf.data.datasets.shapes.scene import Attributes, Group
from rahf.data.datasets.shapes.template_judge import judge
from rahf.data.images.codec import decode_image


def group(*drawn) -> Group:
  attributes = Attributes(*drawn)
  wrong = attributes._replace(colour='cyan')
  return Group(wrong, attributes, frozenset(), 0.1, ((0.5, 0.5),))


def test_a_caption_says_everything_that_is_drawn_in_reading_order():
  groups = [
    group(2, 'small', 'blue', 'cross', 2, 0),
    group(1, 'large', 'red', 'ring', 0, 2),
  ]
  assert write_caption(groups) == (
    'one large red ring at the top right, two small blue crosses at the bottom left'
  )
  assert write_caption(groups[:1], sizes=False) == 'two blue crosses at the bottom left'


@pytest.mark.parametrize('world', ['small', 'full'])
def test_captions_are_true_and_images_undamaged(world):
  verdicts = []
  for index in range(60):
    record = make_caption_record(3, 'train', index, 64, world)
    verdicts.append(judge(decode_image(record.image), record.prompt, world))
    assert (' small ' in record.prompt or ' large ' in record.prompt) == (
      world == 'full'
    )
  # The judge itself is right for 97 to 99 % of true scenes.
  assert np.mean([all(one.words) for one in verdicts]) > 0.9
  assert np.mean([one.damaged for one in verdicts]) < 0.1


def test_records_have_no_labels_and_scenes_of_their_own():
  record = make_caption_record(3, 'train', 0, 64)
  assert record.keyword_labels == ()
  assert record.implausibility_map == record.misalignment_map == b''
  assert all(map(math.isnan, record.scores))
  assert record == make_caption_record(3, 'train', 0, 64)
  # What the prompt of the same number asks for is another scene.
  own = [make_caption_record(3, 'train', index, 64).prompt for index in range(20)]
  scenes = [make_sample(3, 'train', index).scene for index in range(20)]
  asked = [
    write_caption([group._replace(drawn=group.asked) for group in scene.groups])
    for scene in scenes
  ]
  assert not any(one == other for one, other in zip(own, asked, strict=True))
