"""How close a predicted heatmap is to the annotated one, as saliency is compared.

The names CC, KLD, SIM, NSS and AUC-Judd are shared by published evaluations, their
definitions are not. `Convention` holds the choices; `RAHF` is the one this project
reports: the MIT saliency benchmark's NSS, KLD and AUC-Judd without its random
jitter, and SIM of maps that are normalised to their sum only.

Every function takes one pair. The prediction is resized to the truth's size, and
what the convention leaves undefined, such as the correlation with a constant map,
is NaN.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from PIL import Image


class Convention(NamedTuple):
  """The choices in which published saliency metrics differ.

  Attributes:
    nss_ddof: 1 divides the variance in NSS by the pixels less one, 0 by the pixels.
    judd_first: what AUC-Judd takes off `above` for the highest fixated value, 1
      being that value itself; 0 is the off-by-one of a widely used Python port.
    judd_merge: equal fixated values are one step of AUC-Judd's curve, not several.
    kld_epsilon: keeps the ratio in KLD finite where the prediction is 0.
  """

  nss_ddof: int = 1
  judd_first: int = 1
  judd_merge: bool = False
  kld_epsilon: float = 2.2e-16


RAHF = Convention()
# pysaliency adds 1e-20 to both maps instead; where both are positive it is the same.
PYSALIENCY = Convention(nss_ddof=0, judd_merge=True)
FIXATONS = Convention(judd_first=0, kld_epsilon=1e-12)
# The first author's PyTorch re-implementation.
RAHF_TORCH = Convention(judd_first=0, kld_epsilon=1e-8)

Map = Float[np.ndarray, 'H W']
# A prediction may come at another size than the truth.
Prediction = Float[np.ndarray, 'h w']


def resize_map(values: Prediction, height: int, width: int) -> Map:
  """Resizes a map bilinearly (smoothed when it shrinks); the same size is a no-op."""
  if values.shape == (height, width):
    return values
  image = Image.fromarray(np.asarray(values, np.float32))
  return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))


def mse(prediction: Prediction, truth: Map) -> float:
  """Mean squared error per pixel, lower is better."""
  prediction, truth = _pair(prediction, truth)
  # One temporary and a dot product: a second large temporary costs more than both.
  error = (prediction - truth).ravel()
  return float(error @ error / error.size)


def cc(prediction: Prediction, truth: Map) -> float:
  """Pearson's linear correlation over the pixels, in [-1, 1], higher is better."""
  prediction, truth = _pair(prediction, truth)
  if _constant(prediction) or _constant(truth):
    return float('nan')
  # Centring one map is enough for the covariance.
  covariance = (prediction - prediction.mean()).ravel() @ truth.ravel() / truth.size
  return float(covariance / (prediction.std() * truth.std()))


def kld(prediction: Prediction, truth: Map, *, convention: Convention = RAHF) -> float:
  """Kullback-Leibler divergence of the prediction from the truth, lower is better.

  Both maps are normalised to the sum 1; in nats; NaN if either sums to 0.
  """
  p, t = _shares(prediction, truth)
  epsilon = convention.kld_epsilon
  return float(t @ np.log(epsilon + t / (p + epsilon)))


def sim(prediction: Prediction, truth: Map) -> float:
  """Histogram intersection of the maps normalised to sum 1, in [0, 1], higher better.

  NaN if either map sums to 0.
  """
  p, t = _shares(prediction, truth)
  return float(np.minimum(p, t).sum())


def nss(
  prediction: Prediction,
  truth: Map,
  *,
  threshold: float = 0.0,
  convention: Convention = RAHF,
) -> float:
  """Normalised scanpath saliency: mean z-score of the prediction at the fixations.

  Fixations are the pixels with truth > threshold. 0 is chance, higher is better;
  NaN without fixations or for a constant prediction.
  """
  prediction, truth = _pair(prediction, truth)
  fixations = truth > threshold
  if not fixations.any() or _constant(prediction):
    return float('nan')
  deviation = prediction.std(ddof=convention.nss_ddof)
  return float((prediction[fixations].mean() - prediction.mean()) / deviation)


def auc_judd(
  prediction: Prediction,
  truth: Map,
  *,
  threshold: float = 0.0,
  convention: Convention = RAHF,
) -> float:
  """Area under the ROC curve with a threshold at every fixated value.

  Fixations are the pixels with truth > threshold. At the i-th highest fixated
  value, i from 1, tp = i / n and fp = (above - i) / (N - n), with n fixations, N
  pixels and `above` of them at or over the value. Equal values are not broken up
  by jitter. 0.5 is chance, higher is better; NaN if no pixel or every pixel is
  fixated, or for a constant prediction.
  """
  prediction, truth = _pair(prediction, truth)
  fixations = truth > threshold
  n, pixels = np.count_nonzero(fixations), fixations.size
  if n in (0, pixels) or _constant(prediction):
    return float('nan')
  return _judd_area(prediction, prediction[fixations], convention)


@dataclasses.dataclass(frozen=True)
class Mean:
  """A mean in the making: merging two of them is `+`.

  Attributes:
    total, weight: the sum of the values and their number.
    undefined: how many values were NaN; they are in neither sum.
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
    """The mean, NaN if there is nothing to average."""
    return self.total / self.weight if self.weight else float('nan')


@dataclasses.dataclass(frozen=True)
class MapMetrics:
  """All metrics of one kind of heatmap over a data set (paper, section 4.2).

  `mse` is over all pairs and `mse_empty` over those whose truth is 0 everywhere;
  the others are over pairs whose truth is not. `MapMetrics()` is the neutral element:

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
    cls, prediction: Prediction, truth: Map, *, threshold: float = 0.0
  ) -> 'MapMetrics':
    """Returns the metrics of one pair in the convention RAHF.

    Args:
      prediction: the predicted map, resized to the truth's size if it differs.
      truth: the annotated map.
      threshold: fixations are the pixels with truth > threshold.

    Raises:
      ValueError: a map is not two-dimensional or holds NaN or infinity.
    """
    prediction, truth = _pair(prediction, truth)
    error = Mean.of(mse(prediction, truth))
    if not (truth > 0).any():
      return cls(mse=error, mse_empty=error)
    return cls(
      mse=error,
      cc=Mean.of(cc(prediction, truth)),
      kld=Mean.of(kld(prediction, truth)),
      sim=Mean.of(sim(prediction, truth)),
      nss=Mean.of(nss(prediction, truth, threshold=threshold)),
      auc_judd=Mean.of(auc_judd(prediction, truth, threshold=threshold)),
    )

  def __add__(self, other: 'MapMetrics') -> 'MapMetrics':
    names = [field.name for field in dataclasses.fields(self)]
    return MapMetrics(*(getattr(self, name) + getattr(other, name) for name in names))

  def values(self) -> dict[str, float]:
    """Returns the mean of each metric by name, NaN where no pair defines it."""
    return {f.name: getattr(self, f.name).value for f in dataclasses.fields(self)}

  def undefined(self) -> dict[str, int]:
    """Returns how many pairs each metric left out as undefined, by name."""
    return {f.name: getattr(self, f.name).undefined for f in dataclasses.fields(self)}


def _pair(prediction: Prediction, truth: Map) -> tuple[np.ndarray, np.ndarray]:
  """Checks both maps and returns them in float64 at the truth's size."""
  for name, values in (('prediction', prediction), ('truth', truth)):
    if values.ndim != 2 or not values.size:
      raise ValueError(
        f'the {name} has shape {values.shape}; pass one map, height x width'
      )
    # The sum is finite only if every value is, and cheaper than asking each.
    if not np.isfinite(values.sum(dtype=np.float64)):
      raise ValueError(
        f'the {name} holds NaN or infinity; a map that is not annotated is to be '
        'left out, and a prediction like this means that the model has diverged'
      )
  prediction = resize_map(prediction, *truth.shape)
  return np.asarray(prediction, np.float64), np.asarray(truth, np.float64)


def _shares(
  prediction: Prediction, truth: Map
) -> tuple[Float[np.ndarray, 'P'], Float[np.ndarray, 'P']]:
  """Returns both maps over their sums at the truth's P pixels over 0.

  Elsewhere KLD and SIM gain exactly 0. NaN if either map sums to 0.
  """
  prediction, truth = _pair(prediction, truth)
  p_sum, t_sum = prediction.sum(), truth.sum()
  if p_sum <= 0 or t_sum <= 0:
    return np.array([np.nan]), np.array([np.nan])
  positive = truth > 0
  return prediction[positive] / p_sum, truth[positive] / t_sum


def _constant(values: Map) -> bool:
  # A standard deviation of 0 would miss constants that are not exact in binary.
  return bool(values.min() == values.max())


def _judd_area(
  values: Float[np.ndarray, '*N'],
  fixated: Float[np.ndarray, 'n'],
  convention: Convention,
) -> float:
  """The area of `auc_judd`, by sorting once instead of counting per threshold."""
  values, fixated = np.sort(values, axis=None), np.sort(fixated)
  above = values.size - np.searchsorted(values, fixated)
  rank = np.arange(fixated.size, 0, -1)
  if convention.judd_merge:
    rank = fixated.size - np.searchsorted(fixated, fixated)
  tp = rank / fixated.size
  fp = (above - rank + 1 - convention.judd_first) / (values.size - fixated.size)
  # From (1, 1) down to (0, 0), as the thresholds rise.
  curve = [np.concatenate([[1.0], rates, [0.0]]) for rates in (tp, fp)]
  return float(-np.trapezoid(*curve))
