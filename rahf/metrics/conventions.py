"""Named conventions for choices in which published saliency metrics differ."""

from typing import Literal, NamedTuple

import numpy as np


class Convention(NamedTuple):
  """The choices in which published saliency metrics differ.

  Attributes:
    nss_ddof: NSS divides the variance by the number of pixels minus this.
    judd_ties: how AUC-Judd treats pixels with the same value as a fixated one. 'spread'
      is the average over random tie-breaking; 'counted' counts all of them as above the
      threshold at each of the tied fixations, so that fixated pixels become false
      positives and the area may leave [0, 1]; 'merged' makes equal fixated values one
      step of the curve.
    judd_first: what 'counted' subtracts from `above` for the highest fixated value: 1
      for that pixel itself; 0 is the off-by-one error of a widely used Python port.
    kld_epsilon: keeps the ratio in KLD finite where the prediction is 0.
    kld_floor: added to both maps before KLD normalises them.
    kld_sum_epsilon: added to the sums by which KLD divides both maps.
    sim_stretch: whether SIM stretches both maps to [0, 1] before normalising them.
    constant_cc: CC if a map is constant.
    constant_auc: AUC-Judd of a constant prediction.
  """

  nss_ddof: int = 1
  judd_ties: Literal['spread', 'counted', 'merged'] = 'spread'
  judd_first: int = 1
  kld_epsilon: float = float(np.finfo(np.float64).eps)
  kld_floor: float = 0.0
  kld_sum_epsilon: float = 0.0
  sim_stretch: bool = False
  constant_cc: float = float('nan')
  constant_auc: float = float('nan')


CONVENTIONS = {
  'rahf': Convention(),
  'mit': Convention(judd_ties='counted', sim_stretch=True),
  'pysaliency': Convention(
    nss_ddof=0,
    judd_ties='merged',
    kld_epsilon=0.0,
    kld_floor=1e-20,
    constant_cc=0.0,
    constant_auc=0.5,
  ),
  'richhf_torch': Convention(
    judd_ties='counted',
    judd_first=0,
    kld_epsilon=1e-8,
    kld_sum_epsilon=1e-8,
    constant_cc=0.0,
  ),
}


def find_convention(name: str) -> Convention:
  """Returns the convention of this name; raises ValueError if there is none."""
  if name not in CONVENTIONS:
    raise ValueError(
      f'unknown convention {name!r}; choose from {", ".join(CONVENTIONS)}'
    )
  return CONVENTIONS[name]
