"""Data augmentation as in the paper's supplement: crops, colour jitter and grey images.

All randomness comes from a seed derived from (seed, epoch, example), never from state.

The crop is sampled here but applied by `codec.resize`, together with the scaling: the
same fractions of the image and of each map, whatever their sizes.

Data format of `jitter`, before and after:
  image    float32[S, S, 3]    RGB, [0, 1], row 0 at the top
  ...      other keys are unchanged
"""

from collections.abc import Mapping

import tensorflow as tf
from jaxtyping import Float, Int64

from rahf.data.images import codec

Example = Mapping[str, tf.Tensor]

CROP_PROBABILITY = 0.5
CROP_MIN = 0.8
JITTER_PROBABILITY = 0.1
GREY_PROBABILITY = 0.1


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


def jitter(example: Example, seed: Int64[tf.Tensor, '2']) -> dict[str, tf.Tensor]:
  """Jitters the colours of one image in ten, and converts one in ten to grey.

  Jitter means all of: brightness +-0.05, contrast 0.8 to 1, hue +-0.025, saturation
  0.8 to 1, and JPEG noise of quality 70 to 100 (supplement).
  """
  colour, parameters, grey = tf.unstack(tf.random.split(seed, 3))
  image = example['image']
  image = tf.cond(
    _chance(colour, JITTER_PROBABILITY),
    lambda: _recolour(image, parameters),
    lambda: image,
  )
  image = tf.cond(
    _chance(grey, GREY_PROBABILITY),
    lambda: tf.image.grayscale_to_rgb(tf.image.rgb_to_grayscale(image)),
    lambda: image,
  )
  return dict(example) | {'image': image}


def _chance(seed: tf.Tensor, probability: float) -> tf.Tensor:
  return tf.random.stateless_uniform([], seed) < probability


def _recolour(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
  seeds = tf.unstack(tf.random.split(seed, 5))
  image = tf.image.stateless_random_brightness(image, 0.05, seeds[0])
  image = tf.image.stateless_random_contrast(image, 0.8, 1.0, seeds[1])
  # Hue is only defined within [0, 1], which the brightness change may have left.
  image = tf.clip_by_value(image, 0, 1)
  image = tf.image.stateless_random_hue(image, 0.025, seeds[2])
  image = tf.image.stateless_random_saturation(image, 0.8, 1.0, seeds[3])
  image = tf.clip_by_value(image, 0, 1)
  return tf.image.stateless_random_jpeg_quality(image, 70, 100, seeds[4])
