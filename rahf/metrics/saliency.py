"""Saliency metrics: compare predicted heatmaps with annotated ones.

Published evaluations share the names CC, KLD, SIM, NSS and AUC-Judd, but not their
definitions. Named conventions (`conventions.py`) define the choices:

  rahf          reported by this project: NSS and KLD of the MIT saliency benchmark, its
                AUC-Judd averaged over its random jitter, and SIM of maps that are only
                normalised to their sum
  mit           the MIT saliency benchmark's MATLAB code (Bylinskii et al., 2016),
                without jitter; also stretches both maps to [0, 1] for SIM
  pysaliency    the Python package pysaliency
  richhf_torch  the first author's PyTorch model of RAHF

All metrics but `mse` take the name of a convention. A single map, height x width, gives
a float; a batch gives an array; `MapMetrics` accumulates a stream. Predictions are
resized to the truth's size; computations are in float64. Undefined values, such as the
correlation with a constant map, are NaN. Conventions define the formula; their code's
results for empty and constant maps are reproduced only where a metric says so.
"""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from PIL import Image

from rahf.metrics.conventions import Convention, find_convention

# One map, or a batch of them.
Maps = Float[np.ndarray, '*B H W']
# Predictions may differ in size from the truth.
Predictions = Float[np.ndarray, '*B h w']
Map = Float[np.ndarray, 'H W']
Prediction = Float[np.ndarray, 'h w']


def for_each_pair(metric: Callable[..., float]) -> Callable[..., float | np.ndarray]:
  """Decorates a metric of two maps to check them, and to accept batches."""

  @functools.wraps(metric)
  def of_pairs(prediction: Predictions, truth: Maps, **options):
    find_convention(options.get('convention', 'rahf'))
    if np.ndim(truth) == np.ndim(prediction) == 3:
      pairs = zip(prediction, truth, strict=True)
      return np.array([metric(*_pair(*pair), **options) for pair in pairs])
    return metric(*_pair(prediction, truth), **options)

  return of_pairs


def resize_map(values: Prediction, height: int, width: int) -> Map:
  """Resizes a map bilinearly, with antialiasing; the same size is a no-op."""
  if values.shape == (height, width):
    return values
  image = Image.fromarray(np.asarray(values, np.float32))
  return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))


@for_each_pair
def mse(prediction: Map, truth: Map) -> float:
  """Mean squared error per pixel, mean((p - t)^2), in [0, 1] for maps in [0, 1].

  Lower is better; 0 is perfect. Also defined for constant and empty maps.
  """
  # A dot product avoids a second large temporary array.
  error = (prediction - truth).ravel()
  return float(error @ error / error.size)


@for_each_pair
def cc(prediction: Map, truth: Map, *, convention: str = 'rahf') -> float:
  """Pearson's linear correlation over the pixels, cov(p, t) / (std(p) std(t)).

  In [-1, 1], higher is better, 0 is chance. If either map is constant: NaN in `rahf`
  and `mit`, 0 in the others. Le Meur et al. (2007).
  """
  if _constant(prediction) or _constant(truth):
    return find_convention(convention).constant_cc
  p, t = _stretched(prediction), _stretched(truth)
  # Centring one map is enough for the covariance.
  covariance = (p - p.mean()).ravel() @ t.ravel() / t.size
  # Rounding may exceed the range slightly.
  return float(np.clip(covariance / (p.std() * t.std()), -1, 1))


@for_each_pair
def kld(prediction: Map, truth: Map, *, convention: str = 'rahf') -> float:
  """Kullback-Leibler divergence of the prediction from the truth, in nats.

  sum(t log(e + t / (p + e))) over maps normalised to sum 1, with e = 2.2e-16 in `rahf`
  and `mit`, and 1e-8 in `richhf_torch`, which also adds it to the sums; in `pysaliency`
  e is 0, and 1e-20 is added to both maps before normalising. Lower is better; 0 is
  perfect, up to e. If a map sums to 0, the result is NaN in `rahf` and `mit`, while the
  map is taken as uniform in `pysaliency` and stays 0 in `richhf_torch`. NaN if either
  has negative values. Bylinskii et al. (2016).
  """
  choices = find_convention(convention)
  p, t = (values.ravel() + choices.kld_floor for values in (prediction, truth))
  p_sum, t_sum = (values.sum() + choices.kld_sum_epsilon for values in (p, t))
  if min(p_sum, t_sum) <= 0 or min(p.min(), t.min()) < 0:
    return float('nan')
  # Pixels where the truth is 0 contribute nothing.
  positive = t > 0
  p, t = p[positive] / p_sum, t[positive] / t_sum
  epsilon = choices.kld_epsilon
  return float(t @ np.log(epsilon + t / (p + epsilon)))


@for_each_pair
def sim(prediction: Map, truth: Map, *, convention: str = 'rahf') -> float:
  """Similarity: histogram intersection, sum(min(p, t)) of maps normalised to sum 1.

  In [0, 1], higher is better. `mit` stretches both maps to [0, 1] first. NaN if a map
  to normalise sums to 0 (an empty map, or under `mit` any constant one) or has negative
  values. Judd et al. (2012).
  """
  if find_convention(convention).sim_stretch:
    # Dividing by the range would cancel in the normalisation.
    prediction, truth = prediction - prediction.min(), truth - truth.min()
  p_sum, t_sum = prediction.sum(), truth.sum()
  if min(p_sum, t_sum) <= 0 or min(prediction.min(), truth.min()) < 0:
    return float('nan')
  positive = truth > 0
  common = np.minimum(prediction[positive] / p_sum, truth[positive] / t_sum).sum()
  return float(min(common, 1.0))


@for_each_pair
def nss(
  prediction: Map, truth: Map, *, threshold: float = 0.0, convention: str = 'rahf'
) -> float:
  """Normalised scanpath saliency: mean z-score of the prediction at the fixations.

  (mean of p where t > threshold - mean(p)) / std(p), with the sample standard deviation
  (n - 1), or in `pysaliency` that of the population (n). 0 is chance, higher is better,
  without bound. NaN without fixations or for a constant prediction. Peters et al.
  (2005).

  Args:
    threshold: fixations are the pixels with truth > threshold: with 0, those that any
      annotator marked, with 0.5, those that a majority marked.
  """
  fixations = truth > threshold
  if not fixations.any() or _constant(prediction):
    return float('nan')
  prediction = _stretched(prediction)
  deviation = prediction.std(ddof=find_convention(convention).nss_ddof)
  return float((prediction[fixations].mean() - prediction.mean()) / deviation)


@for_each_pair
def auc_judd(
  prediction: Map, truth: Map, *, threshold: float = 0.0, convention: str = 'rahf'
) -> float:
  """Area under the ROC curve with a threshold at every fixated value.

  At the i-th highest fixated value, i from 1, tp = i / n and fp =
  (above - i) / (N - n), with n fixations, N pixels and `above` of them at or over the
  value. Ties must be broken: MIT's code orders them at random (jitter), while `rahf`
  gives the expectation over all orders, in which the pixels without a fixation are
  spread evenly among the fixated ones. `pysaliency` takes equal values as one step.
  `mit` and `richhf_torch` (which counts i from 0 in fp) count all of them as `above`,
  and so count fixations as false positives: with ties, these two can leave [0, 1].

  Otherwise in [0, 1], higher is better; chance is 0.5 + 1 / (2n + 2). NaN if no pixel
  or every pixel is fixated, and for a constant prediction, except in `pysaliency`,
  where that is 0.5. Judd et al. (2009).

  Args:
    threshold: as in `nss`.
  """
  choices = find_convention(convention)
  fixations = truth > threshold
  n, pixels = np.count_nonzero(fixations), fixations.size
  if n in (0, pixels):
    return float('nan')
  if _constant(prediction):
    return choices.constant_auc
  return _judd_area(prediction, prediction[fixations], choices)


@dataclasses.dataclass(frozen=True)
class Mean:
  """A running mean; merging is `+`.

  Attributes:
    total, weight: the sum of the values and their number.
    undefined: number of NaN values, which are excluded from both.
  """

  total: float = 0.0
  weight: float = 0.0
  undefined: int = 0

  @classmethod
  def of(cls, value: float) -> 'Mean':
    """Returns the mean of one value."""
    return cls(undefined=1) if np.isnan(value) else cls(float(value), 1.0)

  def __add__(self, other: 'Mean') -> 'Mean':
    return Mean(
      self.total + other.total,
      self.weight + other.weight,
      self.undefined + other.undefined,
    )

  @property
  def value(self) -> float:
    """The mean; NaN if there are no values."""
    return self.total / self.weight if self.weight else float('nan')


@dataclasses.dataclass(frozen=True)
class MapMetrics:
  """All metrics of one kind of heatmap over a data set (paper, section 4.2).

  `mse` covers all pairs, `mse_empty` those whose truth is 0 everywhere, and the others
  the remaining pairs. `MapMetrics()` is the neutral element:

    total = sum((MapMetrics.of(p, t) for p, t in pairs), MapMetrics())
  """

  mse: Mean = Mean()
  mse_empty: Mean = Mean()
  cc: Mean = Mean()
  kld: Mean = Mean()
  sim: Mean = Mean()
  nss: Mean = Mean()
  auc_judd: Mean = Mean()

  @classmethod
  def of(
    cls,
    prediction: Prediction,
    truth: Map,
    *,
    threshold: float = 0.0,
    convention: str = 'rahf',
  ) -> 'MapMetrics':
    """Returns the metrics of one pair.

    Args:
      prediction: the predicted map, resized to the truth's size if it differs.
      truth: the annotated map.
      threshold: fixations are the pixels with truth > threshold.
      convention: one of CONVENTIONS.

    Raises:
      ValueError: a map is not two-dimensional, or contains NaN or infinity.
    """
    find_convention(convention)
    prediction, truth = _pair(prediction, truth)
    error = Mean.of(mse(prediction, truth))
    if not (truth > 0).any():
      return cls(mse=error, mse_empty=error)
    pair = {'prediction': prediction, 'truth': truth, 'convention': convention}
    return cls(
      mse=error,
      cc=Mean.of(cc(**pair)),
      kld=Mean.of(kld(**pair)),
      sim=Mean.of(sim(**pair)),
      nss=Mean.of(nss(**pair, threshold=threshold)),
      auc_judd=Mean.of(auc_judd(**pair, threshold=threshold)),
    )

  def __add__(self, other: 'MapMetrics') -> 'MapMetrics':
    names = [field.name for field in dataclasses.fields(self)]
    return MapMetrics(*(getattr(self, name) + getattr(other, name) for name in names))

  def values(self) -> dict[str, float]:
    """Returns the mean of each metric by name; NaN if it is undefined for all pairs."""
    return {f.name: getattr(self, f.name).value for f in dataclasses.fields(self)}

  def undefined(self) -> dict[str, int]:
    """Returns the number of pairs for which each metric is undefined, by name."""
    return {f.name: getattr(self, f.name).undefined for f in dataclasses.fields(self)}


def _pair(prediction: Prediction, truth: Map) -> tuple[np.ndarray, np.ndarray]:
  """Checks both maps and returns them in float64 at the truth's size."""
  for name, values in (('prediction', prediction), ('truth', truth)):
    if values.ndim != 2 or not values.size:
      raise ValueError(
        f'the {name} has shape {values.shape}; pass one map, height x width'
      )
    # The sum is finite only if every value is, and cheaper than checking each.
    if not np.isfinite(values.sum(dtype=np.float64)):
      raise ValueError(
        f'the {name} contains NaN or infinity; leave out maps that are not annotated; '
        'for a prediction, this means that the model has diverged'
      )
  prediction = resize_map(prediction, *truth.shape)
  return np.asarray(prediction, np.float64), np.asarray(truth, np.float64)


def _constant(values: Map) -> bool:
  # Due to rounding, the standard deviation of a constant map may not be 0.
  return bool(values.min() == values.max())


def _stretched(values: Map) -> Map:
  """Returns a non-constant map stretched to [0, 1].

  Does not change correlations and z-scores, but avoids rounding errors for values that
  differ only in their last digits or whose squares underflow.
  """
  values = values - values.min()
  return values / values.max()


def _judd_area(
  values: Float[np.ndarray, '*N'],
  fixated: Float[np.ndarray, 'n'],
  convention: Convention,
) -> float:
  """Computes `auc_judd` by sorting once instead of counting at each threshold."""
  pixels, n, fixated = values.size, fixated.size, np.sort(fixated)
  # No threshold is below the lowest fixated value, but most pixels are.
  values = np.sort(values[values >= fixated[0]])
  # For each fixated value, the number of pixels and of fixations at or above it.
  above = values.size - np.searchsorted(values, fixated)
  hits = n - np.searchsorted(fixated, fixated)
  rank = np.arange(n, 0, -1)
  if convention.judd_ties == 'merged':
    rank, false = hits, above - hits
  elif convention.judd_ties == 'counted':
    false = above - rank + 1 - convention.judd_first
  else:
    # Strictly above it; the rest are ties.
    over = values.size - np.searchsorted(values, fixated, side='right')
    over_hits = n - np.searchsorted(fixated, fixated, side='right')
    equal = above - over - (hits - over_hits)
    share = (rank - over_hits) / (hits - over_hits + 1)
    false = over - over_hits + equal * share
  # From (1, 1) down to (0, 0), by rising threshold.
  tp, fp = (
    np.concatenate([[1.0], counts / total, [0.0]])
    for counts, total in ((rank, n), (false, pixels - n))
  )
  return float(-np.trapezoid(tp, fp))
