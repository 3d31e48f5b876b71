"""Distances between two sets of images, by the features of a pretrained network.

Both are 0 for equal sets, and lower is better. CMMD (Jayasumana et al., CVPR 2024)
compares CLIP's features without assuming their distribution. FID (Heusel et al., 2017)
is the Fréchet distance of two Gaussians fitted to Inception's features.

Axis letters: N M images, D width of the features.
"""

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from rahf.errors import InputError

# Of CMMD: the kernel's bandwidth for vectors of length 1, and the factor that makes
# the numbers readable.
SIGMA = 10.0
SCALE = 1000.0
# Features in half precision are not exactly of length 1.
LENGTH_TOLERANCE = 1e-2
# Rows in memory at once as float64.
BLOCK = 2048
# Below minus this fraction of the largest eigenvalue, one is not due to rounding.
NEGATIVE_TOLERANCE = 1e-3


class Gaussian(NamedTuple):
  """A Gaussian fitted to features, float64.

  Attributes:
    mean: [D].
    covariance: [D, D], with N - 1 in the denominator.
  """

  mean: Float[np.ndarray, 'D']
  covariance: Float[np.ndarray, 'D D']


def cmmd(
  x: Float[np.ndarray, 'N D'], y: Float[np.ndarray, 'M D'], *, block: int = BLOCK
) -> float:
  """CMMD: the squared maximum mean discrepancy, times 1000.

  The kernel is exp(-|x - y|^2 / 200). The estimate is the biased one of the paper's
  code, in which each image is also compared with itself. It is therefore above 0 for
  two samples of one distribution, and the more so the fewer images: compare sets of
  equal size, of some thousand images. No image is left out.

  Args:
    x, y: CLIP's projected image features of the two sets, scaled to length 1. Published
      values are those of OpenAI's ViT-L/14 at 336 px.
    block: rows that are compared at once, which bounds the memory: the block^2 values
      of float64 of the kernel, and a few times block * D. It does not matter otherwise.

  Returns:
    From 0 to 39.60 (opposite vectors), lower is better.

  Raises:
    InputError: a set has fewer than two images, or features that are not finite or not
      of length 1; or the widths differ.
  """
  x, y = _checked(x, 'the first set'), _checked(y, 'the second set')
  _check_widths(x.shape[1], y.shape[1])
  for features, name in ((x, 'the first set'), (y, 'the second set')):
    _check_lengths(features, name, block)
  # The kernel is near 1 everywhere: 1 is subtracted from all three means, since the
  # rounding of numbers near 1 would hide small distances.
  within = _mean_kernel_minus_1(x, x, block) + _mean_kernel_minus_1(y, y, block)
  between = _mean_kernel_minus_1(x, y, block)
  return max(0.0, SCALE * (within - 2 * between))  # Rounding can make it negative.


def gaussian(features: Float[np.ndarray, 'N D'], *, block: int = BLOCK) -> Gaussian:
  """Fits a Gaussian to the features of a set of images.

  For FID, 10,000 images or more are advised, since the distance of two small samples of
  one distribution is far above 0. With at most D images the covariance does not have
  full rank, which `frechet_distance` allows.

  Args:
    features: Inception's, [N, 2048].
    block: rows that are converted to float64 at once.

  Raises:
    InputError: there are fewer than two images, or features that are not finite.
  """
  features = _checked(features, 'the set')
  mean = features.mean(0, dtype=np.float64)
  scatter = np.zeros((len(mean), len(mean)))
  for rows in _blocks(features, block):
    centred = rows - mean
    scatter += centred.T @ centred
  return Gaussian(mean, scatter / (len(features) - 1))


def frechet_distance(
  mean1: Float[np.ndarray, 'D'],
  cov1: Float[np.ndarray, 'D D'],
  mean2: Float[np.ndarray, 'D'],
  cov2: Float[np.ndarray, 'D D'],
) -> float:
  """Fréchet distance of two Gaussians; FID if they are those of Inception's features.

  |m1 - m2|^2 + Tr(S1 + S2 - 2 (S1^.5 S2 S1^.5)^.5). The last trace is the sum of the
  roots of the eigenvalues of S1^.5 S2 S1^.5. With S = F F^T they are the singular
  values of F1^T F2, which takes no root of a rounding error: covariances without full
  rank (fewer than 2,049 images) need no special treatment. At least 10,000 images are
  advised nevertheless, see `gaussian`.

  Returns:
    0 or more, lower is better.

  Raises:
    InputError: the shapes do not fit, a value is not finite, or a matrix is not a
      covariance.
  """
  (mean1, cov1), (mean2, cov2) = (
    _checked_gaussian(mean1, cov1, 'the first'),
    _checked_gaussian(mean2, cov2, 'the second'),
  )
  _check_widths(len(mean1), len(mean2))
  factor1, factor2 = _factor(cov1, 'the first'), _factor(cov2, 'the second')
  roots = np.linalg.svd(factor1.T @ factor2, compute_uv=False)
  traces = np.trace(cov1) + np.trace(cov2) - 2 * roots.sum()
  return max(0.0, float(np.sum((mean1 - mean2) ** 2) + traces))


def _mean_kernel_minus_1(
  x: Float[np.ndarray, 'N D'], y: Float[np.ndarray, 'M D'], block: int
) -> float:
  """Returns the mean of the kernel of all pairs, minus 1."""
  total = 0.0
  for i, a in enumerate(_blocks(x, block)):
    for j, b in enumerate(_blocks(y, block)):
      if x is y and j < i:  # Symmetric.
        continue
      distances = np.sum(a**2, 1)[:, None] + np.sum(b**2, 1) - 2 * (a @ b.T)
      np.maximum(distances, 0, out=distances)
      part = np.expm1(distances / (-2 * SIGMA**2), out=distances).sum()
      total += 2 * part if x is y and j > i else part
  return float(total / (len(x) * len(y)))


def _blocks(
  features: Float[np.ndarray, 'N D'], block: int
) -> Iterator[Float[np.ndarray, 'B D']]:
  for start in range(0, len(features), block):
    yield np.asarray(features[start : start + block], np.float64)


def _factor(
  covariance: Float[np.ndarray, 'D D'], name: str
) -> Float[np.ndarray, 'D R']:
  """Returns F with covariance = F F^T and no more columns than its rank."""
  with contextlib.suppress(np.linalg.LinAlgError):  # Not of full rank.
    return np.linalg.cholesky(covariance)  # Takes a tenth of the time.
  values, vectors = np.linalg.eigh(covariance)
  low, high = values[0], values[-1]
  if low < -NEGATIVE_TOLERANCE * abs(high):
    raise InputError(
      f'{name} covariance has an eigenvalue of {low:.3g} (the largest is {high:.3g}), '
      'which no covariance has; compute it again from features'
    )
  # As in np.linalg.matrix_rank.
  kept = values > len(values) * np.finfo(np.float64).eps * high
  return vectors[:, kept] * np.sqrt(values[kept])


def _checked(features: Float[np.ndarray, 'N D'], name: str) -> np.ndarray:
  features = np.asarray(features)
  if features.ndim != 2 or not features.shape[1]:
    raise InputError(
      f'{name} of features has the shape {list(features.shape)}, but should have '
      '[images, width]'
    )
  if len(features) < 2:
    raise InputError(
      f'{name} has features of {len(features)} images; a distribution needs at '
      'least 2, and some thousand to mean something'
    )
  wrong = np.count_nonzero(~np.isfinite(features).all(1))
  if wrong:
    raise InputError(
      f'{name} has features that are NaN or infinite, of {wrong} of {len(features)} '
      'images; check the weights, or compute them in float32'
    )
  return features


def _check_lengths(features: Float[np.ndarray, 'N D'], name: str, block: int) -> None:
  lengths = np.concatenate(
    [np.linalg.norm(rows, axis=1) for rows in _blocks(features, block)]
  )
  worst = lengths[np.argmax(abs(lengths - 1))]
  if abs(worst - 1) > LENGTH_TOLERANCE:
    raise InputError(
      f'{name} has features of length {worst:.4g}, but CMMD is defined for length 1; '
      'divide each by its length'
    )


def _checked_gaussian(mean: np.ndarray, covariance: np.ndarray, name: str) -> Gaussian:
  mean, covariance = np.asarray(mean, np.float64), np.asarray(covariance, np.float64)
  if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
    raise InputError(
      f'{name} mean and covariance have the shapes {list(mean.shape)} and '
      f'{list(covariance.shape)}, but should have [D] and [D, D]'
    )
  if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
    raise InputError(f'{name} mean or covariance has values that are NaN or infinite')
  if not np.allclose(covariance, covariance.T, atol=1e-5 * abs(covariance).max()):
    raise InputError(f'{name} covariance is not symmetric')
  return Gaussian(mean, covariance)


def _check_widths(first: int, second: int) -> None:
  if first != second:
    raise InputError(
      f'the features have widths of {first} and {second}; take both from one network'
    )
