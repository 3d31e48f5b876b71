"""Steps whose loss, gradient or result is not finite: an error, or left out."""

import math

import jax
from absl import logging

from rahf.errors import InputError
from rahf.training.train_step import Metrics


class NonFiniteLossError(InputError):
  """The loss is NaN or infinite; the last checkpoint is from before."""


class FiniteCheck:
  """Looks at the metrics of each step.

  Attributes:
    skipped: steps that were left out since the run began; `make_train_step` has kept
      the state from before in each.
  """

  def __init__(self, limit: int, skipped: int = 0):
    """Says how many may be left out, and how many were in earlier parts of the run."""
    self._limit = limit
    self._checked = 0
    self.skipped = skipped

  def __call__(self, step: int, metrics: Metrics) -> bool:
    """Returns whether the step was left out, and was not looked at before.

    Gradient and parameters count too: they may be infinite where the loss is not.

    Raises:
      NonFiniteLossError: it is one too many.
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
        '--workdir, look at the data with `python -m rahf.data verify`, or leave such '
        'steps out, up to config.train.max_skipped of them'
      )
    self.skipped += 1
    logging.warning(
      'Step %d is not finite (%s) and is left out, %d of at most %d.',
      *(step, shown, self.skipped, self._limit),
    )
    return True
