"""Stops a run whose loss becomes NaN or infinite, or counts the step as skipped."""

import math

import jax
from absl import logging

from rahf.errors import InputError
from rahf.training.train_step import Metrics


class NonFiniteLossError(InputError):
  """Loss, gradient or parameters became NaN or infinite; no checkpoint has them."""


class FiniteCheck:
  """Checks the metrics of each step.

  Attributes:
    skipped: skipped steps since the run began; in each of them the train step has kept
      the previous state.
  """

  def __init__(self, limit: int, skipped: int = 0):
    """Starts the count.

    Args:
      limit: how many steps may be skipped.
      skipped: how many had been skipped when the run was resumed.
    """
    self._limit = limit
    self._checked = 0
    self.skipped = skipped

  def __call__(self, step: int, metrics: Metrics) -> bool:
    """Returns whether the step was skipped; False if it was checked before.

    Gradient and parameters are checked too: they may be infinite with a finite loss.

    Raises:
      NonFiniteLossError: more steps were skipped than the limit allows.
    """
    if step == self._checked:
      return False
    self._checked = step
    names = [name for name in metrics if '/' not in name or name.startswith('loss/')]
    values = jax.device_get({name: metrics[name] for name in names})
    if all(map(math.isfinite, values.values())):
      return False
    shown = ', '.join(f'{name} {value:.4g}' for name, value in values.items())
    if self.skipped >= self._limit:
      raise NonFiniteLossError(
        f'step {step} is not finite ({shown}); nothing was saved from it. Lower '
        'config.optimizer.learning_rate or config.optimizer.clip_norm in a new '
        '--workdir, check the data with `python -m rahf.data verify`, or set '
        'config.train.max_skipped to skip such steps'
      )
    self.skipped += 1
    logging.warning(
      'Step %d is not finite (%s) and is skipped, %d of at most %d.',
      step,
      shown,
      self.skipped,
      self._limit,
    )
    return True
