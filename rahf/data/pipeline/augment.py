"""Data augmentation as in the paper's supplement: crops, colour jitter and grey images.

All randomness comes from a seed derived from (seed, epoch, example), never from state.

The crop is sampled here but applied by `codec.resize`, together with the scaling: the
same fractions of the image and of each map, whatever their sizes.

Jitter means all of: brightness +-0.05, contrast 0.8 to 1, hue +-0.025, saturation 0.8
to 1, and JPEG noise of quality 70 to 100 (supplement).
"""

from typing import NamedTuple

import tensorflow as tf
from jaxtyping import Bool, Float, Int64

from rahf.data.images import codec

CROP_PROBABILITY = 0.5
CROP_MIN = 0.8
JITTER_PROBABILITY = 0.1
GREY_PROBABILITY = 0.1


class ColourChange(NamedTuple):
  """How the colours of an image change.

  Attributes:
    jitter: whether they are jittered.
    grey: whether the image becomes grey, after jitter.
    seed: of the jitter.
  """

  jitter: Bool[tf.Tensor, '']
  grey: Bool[tf.Tensor, '']
  seed: Int64[tf.Tensor, '2']


def example_seed(
  seed: int, epoch: Int64[tf.Tensor, ''], example: Int64[tf.Tensor, '']
) -> Int64[tf.Tensor, '2']:
  """Returns the seed of one example in one epoch."""
  folded = tf.random.experimental.stateless_fold_in([seed, 0], epoch)
  return tf.random.experimental.stateless_fold_in(folded, example)


def random_box(seed: Int64[tf.Tensor, '2']) -> Float[tf.Tensor, '4']:
  """Samples a crop: (top, left, height, width) as fractions of the image.

  Half of the boxes are the whole image; the others have a height and a width of 80 to
  100% each, at any position (supplement, section on training details).
  """
  happens, size, place = tf.unstack(tf.random.split(seed, 3))
  sides = tf.random.stateless_uniform([2], size, CROP_MIN, 1.0)
  corner = tf.random.stateless_uniform([2], place) * (1 - sides)
  crop = _chance(happens, CROP_PROBABILITY)
  return tf.where(crop, tf.concat([corner, sides], 0), codec.WHOLE_IMAGE)


def draw_colour_change(seed: Int64[tf.Tensor, '2']) -> ColourChange:
  """Samples how the colours of an image change, which four in five do not.

  One image in ten is jittered, and one in ten becomes grey, independently.
  """
  colour, parameters, grey = tf.unstack(tf.random.split(seed, 3))
  return ColourChange(
    _chance(colour, JITTER_PROBABILITY), _chance(grey, GREY_PROBABILITY), parameters
  )


def change_colours(
  images: Float[tf.Tensor, 'n S S 3'], changes: ColourChange
) -> Float[tf.Tensor, 'n S S 3']:
  """Changes the colours of images, RGB in [0, 1].

  Args:
    changes: one for each image, stacked.
  """
  # Only the images that change are touched: one by one, as each has a seed of its own.
  chosen = tf.where(changes.jitter | changes.grey)[:, 0]

  def change(place: tf.Tensor) -> tf.Tensor:
    return _change(images[place], ColourChange(*(value[place] for value in changes)))

  def changed() -> tf.Tensor:
    spec = tf.TensorSpec(images.shape[1:], images.dtype)
    values = tf.map_fn(change, chosen, fn_output_signature=spec)
    return tf.tensor_scatter_nd_update(images, chosen[:, None], values)

  return tf.cond(tf.size(chosen) > 0, changed, lambda: images)


def _change(image: tf.Tensor, change: ColourChange) -> tf.Tensor:
  image = tf.cond(change.jitter, lambda: _jitter(image, change.seed), lambda: image)
  return tf.cond(
    change.grey,
    lambda: tf.image.grayscale_to_rgb(tf.image.rgb_to_grayscale(image)),
    lambda: image,
  )


def _chance(seed: tf.Tensor, probability: float) -> tf.Tensor:
  return tf.random.stateless_uniform([], seed) < probability


def _jitter(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
  seeds = tf.unstack(tf.random.split(seed, 5))
  image = tf.image.stateless_random_brightness(image, 0.05, seeds[0])
  image = tf.image.stateless_random_contrast(image, 0.8, 1.0, seeds[1])
  # Hue is only defined within [0, 1], which the brightness change may have left.
  image = tf.clip_by_value(image, 0, 1)
  image = tf.image.stateless_random_hue(image, 0.025, seeds[2])
  image = tf.image.stateless_random_saturation(image, 0.8, 1.0, seeds[3])
  image = tf.clip_by_value(image, 0, 1)
  return tf.image.stateless_random_jpeg_quality(image, 70, 100, seeds[4])
