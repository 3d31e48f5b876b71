"""Correlation of predicted and annotated scores (paper, section 4.2).

Rank statistics cannot be merged over batches: gather all scores first.
"""

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats


def plcc(
  prediction: Float[np.ndarray, 'N'],
  truth: Float[np.ndarray, 'N'],
  mask: Bool[np.ndarray, 'N'] | None = None,
) -> float:
  """Pearson's linear correlation coefficient, in [-1, 1], higher is better.

  Args:
    prediction: predicted scores.
    truth: annotated scores.
    mask: True where the score is annotated; None if all are.

  Returns:
    The coefficient; NaN for fewer than two scores or if either side is constant.

  Raises:
    ValueError: the lengths differ, or a score under the mask is not finite.
  """
  prediction, truth = _annotated(prediction, truth, mask)
  if _undefined(prediction, truth):
    return float('nan')
  return float(stats.pearsonr(prediction, truth).statistic)


def srcc(
  prediction: Float[np.ndarray, 'N'],
  truth: Float[np.ndarray, 'N'],
  mask: Bool[np.ndarray, 'N'] | None = None,
) -> float:
  """Spearman's rank correlation coefficient; equal scores share their mean rank.

  Arguments, undefined cases and errors are those of `plcc`.
  """
  prediction, truth = _annotated(prediction, truth, mask)
  if _undefined(prediction, truth):
    return float('nan')
  return float(stats.spearmanr(prediction, truth).statistic)


def kendall(
  prediction: Float[np.ndarray, 'N'],
  truth: Float[np.ndarray, 'N'],
  mask: Bool[np.ndarray, 'N'] | None = None,
) -> float:
  """Kendall's rank correlation tau-b, in [-1, 1], higher is better.

  Concordant minus discordant pairs, divided by the geometric mean of the numbers of
  pairs not tied on either side. Arguments, undefined cases and errors are those of
  `plcc`.
  """
  prediction, truth = _annotated(prediction, truth, mask)
  if _undefined(prediction, truth):
    return float('nan')
  return float(stats.kendalltau(prediction, truth, variant='b').statistic)


def _annotated(prediction, truth, mask) -> tuple[np.ndarray, np.ndarray]:
  """Checks the scores and returns those under the mask as float64."""
  mask = np.ones(np.shape(truth), bool) if mask is None else np.asarray(mask)
  if not np.shape(prediction) == np.shape(truth) == mask.shape or mask.ndim != 1:
    raise ValueError(
      f'prediction, truth and mask have the shapes {np.shape(prediction)}, '
      f'{np.shape(truth)}, {mask.shape}; pass one score per example in each'
    )
  scores = []
  for name, values in (('prediction', prediction), ('truth', truth)):
    values = np.asarray(values, np.float64)[mask]
    bad = np.count_nonzero(~np.isfinite(values))
    if bad:
      raise ValueError(
        f'{bad} of {values.size} scores of the {name} are not finite; mask scores that '
        'are not annotated'
      )
    scores.append(values)
  return scores[0], scores[1]


def _undefined(prediction: np.ndarray, truth: np.ndarray) -> bool:
  return bool(truth.size < 2 or np.ptp(prediction) == 0 or np.ptp(truth) == 0)
