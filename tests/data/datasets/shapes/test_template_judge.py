"""The judge against true scenes, and images that were spoilt by hand."""

import numpy as np
import pytest
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from rahf.data.datasets.shapes.record import make_sample
from rahf.data.datasets.shapes.render import draw, render
from rahf.data.datasets.shapes.scene import Attributes, Background, Group, Scene
from rahf.data.datasets.shapes.template_judge import Answers, judge, true_answers
from rahf.data.datasets.shapes.world import COLOURS, SMALL, WORLDS
from rahf.errors import InputError

TONE = Background(SMALL.tone, SMALL.tone, 0.0)
# Least share of right answers, and least AUC of damage.
SMALL_BOUNDS = {'colours': 0.99, 'kinds': 0.97, 'counts': 0.98, 'places': 0.99}
FULL_BOUNDS = {'colours': 0.95, 'kinds': 0.91, 'counts': 0.91, 'places': 0.95}


def group(colour: str, kind: str, *centres: tuple[float, float], radius=9.5 / 64):
  shown = Attributes(len(centres), 'small', colour, kind, 0, 0)
  return Group(shown, shown, frozenset(), radius, centres)


def picture(*groups: Group, size: int = 64) -> np.ndarray:
  return draw(Scene(groups, (), TONE), size)


@pytest.fixture
def circles() -> np.ndarray:
  """Two red circles on the left."""
  return picture(group('red', 'circle', (0.17, 0.5), (0.5, 0.5)))


def plain(image):
  return image


def degraded(image):
  smooth = ndimage.gaussian_filter(image.astype(float), (0.5, 0.5, 0))
  noise = np.random.default_rng(0).normal(0, 5, image.shape)
  return np.round(smooth + noise).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize(
  ('world', 'number', 'change', 'bounds'),
  [
    ('small', 200, plain, SMALL_BOUNDS),
    ('small', 150, degraded, SMALL_BOUNDS),
    ('full', 100, plain, FULL_BOUNDS),
  ],
)
def test_is_right_about_true_scenes(world, number, change, bounds):
  right = {name: [] for name in bounds}
  damaged, scores, said = [], [], []
  for index in range(number):
    sample = make_sample(7, 'dev', index, world)
    image = change(render(sample.scene, 64, sample.texture))
    verdict = judge(image, sample.prompt.text, world)
    for name, value in true_answers(sample.scene)._asdict().items():
      found = getattr(verdict.words, name)
      assert (found is None) == (value is None)
      if value is not None:
        right[name].append(found == value)
    damaged.append(bool(sample.scene.damages))
    scores.append(verdict.damage)
    said.append(verdict.damaged)
  for name, bound in bounds.items():
    assert np.mean(right[name]) >= bound, name
  assert roc_auc_score(damaged, scores) >= 0.99
  assert np.mean(np.array(said) == damaged) >= 0.98


def test_finds_what_was_drawn():
  found = judge(
    picture(group('blue', 'triangle', (0.3, 0.7)), group('green', 'cross', (0.7, 0.2))),
    'a red circle',
    'small',
  ).objects
  assert {(o.colour, o.kind) for o in found} == {
    ('blue', 'triangle'),
    ('green', 'cross'),
  }
  for shown in found:
    x, y = {'blue': (0.3, 0.7), 'green': (0.7, 0.2)}[shown.colour]
    assert (shown.x, shown.y) == pytest.approx((x, y), abs=0.6 / 64)
    assert shown.radius == pytest.approx(9.5 / 64, abs=0.5 / 64)
    assert shown.fit > 0.85


@pytest.mark.parametrize(
  ('prompt', 'expected'),
  [
    ('two red circles on the left', Answers(True, True, True, True)),
    ('a red circle', Answers(True, True, None, None)),
    ('three red circles on the right.', Answers(True, True, False, False)),
    ('one blue circle at the top left', Answers(False, True, False, False)),
    ('two red crosses', Answers(True, False, True, None)),
    # A group is missing: it has no number and no place.
    ('a red circle and a blue circle', Answers(False, True, None, None)),
    ('two red circles, one blue cross', Answers(False, False, False, None)),
  ],
)
def test_compares_with_the_prompt(circles, prompt, expected):
  verdict = judge(circles, prompt, 'small')
  assert verdict.words == expected
  assert verdict.damage < 0.1


def test_an_object_of_another_kind_is_seen_beside_its_group():
  mixed = picture(
    group('red', 'circle', (0.17, 0.5)), group('red', 'cross', (0.5, 0.5))
  )
  verdict = judge(mixed, 'two red circles', 'small')
  assert verdict.words == Answers(True, False, True, None)
  assert not verdict.damaged


def test_an_empty_image_is_wrong_but_undamaged():
  verdict = judge(picture(), 'one red circle in the middle', 'small')
  assert verdict == ((), Answers(False, False, False, False), 0)


def test_holes_stray_parts_and_bites_are_damage(circles):
  background, red = np.array(SMALL.tone), circles[32, 11].copy()
  for rows, columns, colour in (
    (slice(29, 35), slice(8, 14), background),
    (slice(5, 10), slice(50, 55), red),
    (slice(50, 56), slice(40, 46), (0, 0, 0)),
    (slice(22, 30), slice(28, 36), background),
  ):
    spoilt = circles.copy()
    spoilt[rows, columns] = colour
    assert judge(spoilt, 'two red circles', 'small').damaged, (rows, columns)


def test_a_generators_small_errors_are_no_damage(circles):
  smooth = ndimage.gaussian_filter(circles.astype(float), (0.8, 0.8, 0))
  paler = 0.85 * smooth + 0.15 * 128
  blocks = np.random.default_rng(0).normal(0, 6, (8, 8, 3)).repeat(8, 0).repeat(8, 1)
  image = np.round(paler + blocks).clip(0, 255).astype(np.uint8)
  verdict = judge(image, 'two red circles on the left', 'small')
  assert verdict.words == Answers(True, True, True, True)
  assert not verdict.damaged


def test_larger_images_are_reduced():
  large = picture(group('yellow', 'cross', (0.8, 0.2)), size=160)
  verdict = judge(large, 'one yellow cross at the top right', 'small')
  assert verdict.words == Answers(True, True, True, True)
  assert verdict.damage < 0.1


@pytest.mark.parametrize('world', WORLDS)
def test_any_image_is_judged(world):
  rng = np.random.default_rng(0)
  flat = (0, 127, 255, COLOURS['red'], COLOURS['green'])
  images = [np.full((64, 64, 3), value, np.uint8) for value in flat]
  images.append(rng.integers(0, 256, (64, 64, 3), np.uint8))
  with np.errstate(all='raise'):
    verdicts = [judge(image, 'a red circle on the left', world) for image in images]
  assert all(0 <= verdict.damage < 1 for verdict in verdicts)
  # Grey ones are backgrounds, of a tone that is not judged.
  assert [verdict.damaged for verdict in verdicts] == 3 * [False] + 3 * [True]


@pytest.mark.parametrize(
  ('image', 'world', 'message'),
  [
    (np.zeros((64, 65, 3), np.uint8), 'small', r'uint8 of shape \(64, 65, 3\)'),
    (np.zeros((32, 32, 3), np.uint8), 'small', 'at least 64 pixels wide'),
    (np.zeros((64, 64), np.uint8), 'small', r'shape \(64, 64\)'),
    (np.zeros((64, 64, 3), np.float32), 'small', 'not float32'),
    (np.zeros((64, 64, 3), np.uint8), 'tiny', "world 'tiny' is unknown"),
  ],
)
def test_what_is_refused(image, world, message):
  with pytest.raises(InputError, match=message):
    judge(image, 'a red circle', world)
