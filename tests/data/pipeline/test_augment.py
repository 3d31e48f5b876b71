import numpy as np
import pytest
import tensorflow as tf

from rahf.data.images import codec
from rahf.data.pipeline import augment


@pytest.fixture(scope='module')
def seeds():
  """Seeds of 2000 examples of one epoch."""

  def seed(example):
    return augment.example_seed(7, tf.constant(3, tf.int64), example)

  dataset = tf.data.Dataset.range(2000).map(seed)
  return np.stack(list(dataset.as_numpy_iterator()))


def mapped(function, seeds):
  dataset = tf.data.Dataset.from_tensor_slices(seeds).map(function)
  return np.stack(list(dataset.as_numpy_iterator()))


def mapped_changes(seeds):
  changes = tf.data.Dataset.from_tensor_slices(seeds).map(augment.draw_colour_change)
  return changes.batch(len(seeds)).get_single_element()


def test_seed_depends_on_all_three():
  def seed(*key):
    places = tf.constant(key[1:], tf.int64)
    return tuple(augment.example_seed(key[0], places[0], places[1]).numpy())

  keys = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 1, 1)]
  assert len({seed(*key) for key in keys}) == len(keys)
  assert seed(5, 6, 7) == seed(5, 6, 7)


def test_half_of_the_boxes_are_crops_of_80_to_100_percent(seeds):
  boxes = mapped(augment.random_box, seeds)
  corner, sides = boxes[:, :2], boxes[:, 2:]
  cropped = (sides < 1).any(1)
  # Five standard deviations of 2000 tosses of a fair coin are 0.056.
  assert abs(cropped.mean() - 0.5) < 0.056
  assert sides[cropped].min() < 0.81
  assert sides.min() >= 0.8
  assert corner.min() >= 0
  assert (corner + sides).max() <= 1 + 1e-6
  # Height and width are independent: their correlation is noise.
  assert abs(np.corrcoef(sides[cropped].T)[0, 1]) < 0.2
  np.testing.assert_array_equal(
    boxes[~cropped], np.tile(codec.WHOLE_IMAGE, ((~cropped).sum(), 1))
  )


def test_colours_change_in_one_image_of_ten_and_grey_in_another(seeds):
  pixels = tf.constant(np.random.default_rng(0).random((8, 8, 3)), tf.float32)
  changes = mapped_changes(seeds)
  results = augment.change_colours(tf.tile(pixels[None], [2000, 1, 1, 1]), changes)
  results = results.numpy()
  grey = (np.ptp(results, axis=-1) < 1e-6).all((1, 2))
  same = (results == pixels.numpy()).all((1, 2, 3))
  changed = ~same & ~grey
  # Five standard deviations of 2000 draws of 0.1 and 0.09 are below 0.034.
  assert abs(grey.mean() - 0.1) < 0.034
  assert abs(changed.mean() - 0.1 * 0.9) < 0.034
  assert results.min() >= 0
  assert results.max() <= 1
  # Small changes of brightness and contrast keep every image's mean close.
  assert abs(results[changed].mean((1, 2, 3)) - pixels.numpy().mean()).max() < 0.12


def test_colours_of_an_image_change_alike_alone_and_among_others(seeds):
  pixels = np.random.default_rng(0).random((60, 8, 8, 3)).astype(np.float32)
  changes = mapped_changes(seeds[:60])
  together = augment.change_colours(tf.constant(pixels), changes)
  for i in range(60):
    own = augment.ColourChange(*(value[i : i + 1] for value in changes))
    alone = augment.change_colours(tf.constant(pixels[i : i + 1]), own)
    np.testing.assert_array_equal(alone[0], together[i])


@pytest.mark.parametrize('size', [16, 23, 64])
def test_resize_agrees_with_tensorflow(size):
  rng = np.random.default_rng(0)
  values = rng.random((40, 52), np.float32)
  expected = tf.image.resize(values[..., None], [size, size], antialias=True)[..., 0]
  np.testing.assert_allclose(codec.resize(values, size), expected, atol=1e-5)
  pixels = rng.integers(0, 256, (40, 52, 3), dtype=np.uint8)
  expected = tf.image.resize(pixels, [size, size], antialias=True)
  np.testing.assert_allclose(codec.resize(pixels, size), expected, atol=1.01)


def test_resize_of_a_box_is_resize_of_the_part():
  ramp = np.add.outer(np.arange(32.0), 3 * np.arange(32.0)).astype(np.float32)
  part = codec.resize(ramp, 8, (0.25, 0.5, 0.5, 0.25))
  # On a linear ramp the value at the middle of each target pixel is exact.
  rows = 8 + (np.arange(8) + 0.5) * 2 - 0.5
  columns = 16 + (np.arange(8) + 0.5) - 0.5
  np.testing.assert_allclose(part, np.add.outer(rows, 3 * columns), atol=1e-3)
