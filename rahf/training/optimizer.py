"""AdamW with the learning rate schedules of RAHF and of PickScore."""

import math
import re
from typing import Any

import jax
import optax

from rahf.errors import InputError
from rahf.runtime.tree import map_paths

# What is decayed, by `config.optimizer.decay`. Norm scales, biases, embeddings and
# positions are not kernels.
DECAYED = {'kernels': re.compile(r'(^|/)kernel$'), 'all': re.compile('')}


def make_schedule(options, steps: int) -> optax.Schedule:
  """Returns the learning rate as a function of the number of finished steps.

  Args:
    options: `config.optimizer`.
    steps: of the whole run.

  Raises:
    InputError: `options` cool down twice, or warm up for longer than the run.
  """
  if options.schedule == 'inverse_sqrt':
    return _inverse_sqrt(options, steps)
  if options.cooldown_steps:
    raise InputError(
      f'config.optimizer.cooldown_steps = {options.cooldown_steps}, but with '
      "config.optimizer.schedule = 'linear' the rate falls to 0 anyway; set it to 0"
    )
  return _linear(options, steps)


def _inverse_sqrt(options, steps: int) -> optax.Schedule:
  """Linear warm-up, then base x sqrt(warmup / step) (RAHF's supplement).

  Over the last `cooldown_steps` the rate also falls linearly to 0.
  """
  warmup = max(options.warmup_steps, 1)

  def schedule(count):
    step = count + 1.0
    rate = options.learning_rate * jax.numpy.minimum(
      step / warmup, jax.numpy.sqrt(warmup / step)
    )
    if options.cooldown_steps:
      rate *= jax.numpy.clip((steps - count) / options.cooldown_steps, 0, 1)
    return rate

  return schedule


def _linear(options, steps: int) -> optax.Schedule:
  """Logarithmic warm-up, then linearly to 0 (PickScore; DeepSpeed's WarmupDecayLR).

  The rate of the first step is 0.
  """
  warmup = options.warmup_steps
  if warmup >= steps:
    raise InputError(
      f'config.optimizer.warmup_steps = {warmup} must be below config.train.steps = '
      f"{steps} with config.optimizer.schedule = 'linear'"
    )

  def schedule(count):
    rising = jax.numpy.log(count + 1.0) / math.log(max(warmup, 2))
    falling = (steps - count) / (steps - warmup)
    factor = jax.numpy.where(count < warmup, rising, falling)
    return options.learning_rate * jax.numpy.clip(factor, 0, 1)

  return schedule


def make_optimizer(options, steps: int) -> optax.GradientTransformation:
  """Returns the optimizer that `config.optimizer` describes.

  Parameters whose path matches one of `options.freeze` (regular expressions over
  paths such as `vit/Transformer/encoderblock_0/...`) keep their values, have no
  optimizer state, and do not count towards the gradient's norm.
  """
  decayed = DECAYED[options.decay]
  adamw = optax.chain(
    optax.clip_by_global_norm(options.clip_norm),
    optax.adamw(
      make_schedule(options, steps),
      b1=options.b1,
      b2=options.b2,
      weight_decay=options.weight_decay,
      mask=lambda params: map_paths(lambda path: bool(decayed.search(path)), params),
    ),
    scale_by_path(options.rate_factors),
  )
  if not options.freeze:
    return adamw
  frozen = [re.compile(pattern) for pattern in options.freeze]

  def label(path: str) -> str:
    return 'frozen' if any(p.search(path) for p in frozen) else 'trained'

  return optax.partition(
    {'trained': adamw, 'frozen': optax.set_to_zero()},
    lambda params: map_paths(label, params),
  )


def scale_by_path(factors) -> optax.GradientTransformation:
  """Multiplies each update by the factors of all patterns that match its path.

  Args:
    factors: pairs (regular expression over paths, factor).
  """

  def scale(updates: Any, params: Any) -> Any:
    del params
    factor = map_paths(
      lambda path: math.prod(f for pattern, f in factors if re.search(pattern, path)),
      updates,
    )
    return jax.tree.map(lambda update, f: update * f, updates, factor)

  return optax.stateless(scale)


def check_patterns(options, params: Any) -> None:
  """Raises InputError if a pattern of the options matches no parameter."""
  paths = jax.tree.leaves(map_paths(lambda path: path, params))
  patterns = [('freeze', pattern) for pattern in options.freeze]
  patterns += [('rate_factors', pattern) for pattern, _ in options.rate_factors]
  for field, pattern in patterns:
    if not any(re.search(pattern, path) for path in paths):
      raise InputError(
        f'config.optimizer.{field} has {pattern!r}, which matches no parameter; '
        f'paths look like {paths[0]!r}'
      )
