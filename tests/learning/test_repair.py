"""Repairing images: masks, rounds, and the choice of the best candidate."""

from types import SimpleNamespace

import numpy as np
import pytest

from rahf.learning.repair import RepairOptions, flaw_mask, repair
from rahf.learning.score_expression import parse

BY = parse('plausibility', ['plausibility'])
BRIGHT = 200


class Scorer:
  """Finds dark pixels implausible; an image is as plausible as it is bright."""

  def score(self, images, prompts):
    return [
      SimpleNamespace(
        scores={'plausibility': float(image.mean() / 255)},
        heatmaps={'implausibility': (image[..., 0] < BRIGHT).astype(np.float32)},
      )
      for image in images
    ]


class Inpainter:
  """Candidate i has the brightness that is given for it."""

  def __init__(self, *brightness):
    self.brightness, self.requests = brightness, []

  def inpaint(self, requests):
    self.requests += requests
    for one in requests:
      drawn = np.full_like(one.image, self.brightness[one.number])
      yield np.where(one.mask[..., None], drawn, one.image)


def image_with_a_hole():
  image = np.full((40, 60, 3), 255, np.uint8)
  image[10:14, 20:24] = 0
  return image


def run(image, inpainter, **options):
  options = RepairOptions(candidates=2, widen=0, **options)
  return repair(image, 'a cat', Scorer(), inpainter, BY, options)


def test_masks_are_widened_by_a_share_of_the_height():
  heatmap = np.zeros((100, 200), np.float32)
  heatmap[50, 100] = 0.4
  mask = flaw_mask(heatmap, 0.4, 0.1)
  rows, columns = np.nonzero(mask)
  assert (rows.min(), rows.max()) == (40, 60)
  assert (columns.min(), columns.max()) == (90, 110)
  assert mask.sum() == pytest.approx(np.pi * 10**2, rel=0.03)
  assert not flaw_mask(heatmap, 0.41, 0.1).any()


def test_the_best_candidate_is_kept_and_nothing_else_changes():
  image, inpainter = image_with_a_hole(), Inpainter(100, 150)
  found = run(image, inpainter)
  hole = np.zeros((40, 60), bool)
  hole[10:14, 20:24] = True
  assert (found.image[hole] == 150).all()
  np.testing.assert_array_equal(found.image[~hole], image[~hole])
  np.testing.assert_array_equal(found.mask, hole)
  assert found.values == [image.mean() / 255, found.image.mean() / 255]
  assert found.end == ''


def test_rounds_start_from_the_best_image_with_new_noise():
  inpainter = Inpainter(100, 50, 90, 255)
  found = run(image_with_a_hole(), inpainter, rounds=5, seed=7)
  assert [(one.seed, one.number) for one in inpainter.requests] == [
    (7, number) for number in range(4)
  ]
  assert (inpainter.requests[2].image[12, 22] == 100).all()
  assert len(found.values) == 3
  assert found.end == 'no flaw above the threshold'


def test_the_original_stays_if_no_candidate_is_better():
  image = image_with_a_hole()
  image[10:14, 20:24] = 120
  found = run(image, Inpainter(100, 120), rounds=3)
  np.testing.assert_array_equal(found.image, image)
  assert not found.mask.any()
  assert found.end == 'no candidate was better'
  assert len(found.values) == 1


def test_flaws_everywhere():
  found = run(np.zeros((8, 8, 3), np.uint8), Inpainter())
  assert found.end == 'flaws cover the whole image'
