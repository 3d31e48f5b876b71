"""Inter-annotator agreement: Krippendorff's alpha."""

from typing import Literal

import numpy as np
from jaxtyping import Float


def krippendorff_alpha(
  ratings: Float[np.ndarray, 'A N'], level: Literal['nominal', 'interval'] = 'interval'
) -> float:
  """Returns 1 - observed / expected disagreement (Krippendorff, 2011).

  1 is perfect agreement, 0 is chance, below 0 is systematic disagreement. The
  disagreement of two ratings is 0 or 1 for nominal data, and their squared difference
  for interval data. Units with fewer than two ratings are ignored.

  Args:
    ratings: by A annotators for N units; NaN where missing. Annotators may be in
      different rows for different units.

  Returns:
    Alpha; NaN if no unit has two ratings, or if all ratings are equal.
  """
  known = ~np.isnan(ratings)
  paired = known.sum(0) > 1
  ratings, known = ratings[:, paired], known[:, paired]
  if not ratings.size:
    return float('nan')
  values, codes = np.unique(ratings[known], return_inverse=True)
  # How often each unit was rated with each value.
  counts = np.zeros((ratings.shape[1], len(values)))
  np.add.at(counts, (np.nonzero(known)[1], codes), 1)
  per_unit = counts.sum(1, keepdims=True)
  # Pairs of ratings within units, weighted by the unit's number of ratings.
  coincidences = counts.T @ (counts / (per_unit - 1))
  coincidences -= np.diag((counts / (per_unit - 1)).sum(0))
  totals = coincidences.sum(0)
  apart = values[:, None] - values
  difference = apart**2 if level == 'interval' else (apart != 0).astype(float)
  expected = (np.outer(totals, totals) - np.diag(totals)) / (totals.sum() - 1)
  disagreement = np.sum(expected * difference)
  if disagreement == 0:
    return float('nan')
  return float(1 - np.sum(coincidences * difference) / disagreement)
