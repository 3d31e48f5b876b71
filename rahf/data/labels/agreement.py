"""Agreement of annotators: Krippendorff's alpha."""

from typing import Literal

import numpy as np
from jaxtyping import Float


def krippendorff_alpha(
  ratings: Float[np.ndarray, 'A N'], level: Literal['nominal', 'interval'] = 'interval'
) -> float:
  """Returns 1 - observed / expected disagreement (Krippendorff, 2011).

  1 is perfect agreement, 0 what chance would give, below 0 is systematic disagreement.
  Disagreement of two ratings is 0 or 1 on the nominal level, their squared difference
  on the interval level. Units with fewer than two ratings have no say.

  Args:
    ratings: of each of A annotators for each of N units; NaN where there is none. Who
      is in which row does not matter.

  Returns:
    NaN where no two ratings meet, or all are alike.
  """
  known = ~np.isnan(ratings)
  paired = known.sum(0) > 1
  ratings, known = ratings[:, paired], known[:, paired]
  if not ratings.size:
    return float('nan')
  values, codes = np.unique(ratings[known], return_inverse=True)
  # How often each unit was given each value.
  counts = np.zeros((ratings.shape[1], len(values)))
  np.add.at(counts, (np.nonzero(known)[1], codes), 1)
  per_unit = counts.sum(1, keepdims=True)
  # Pairs of ratings within units; a unit counts as often as it was rated.
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
