"""Counts a function's matrix products and convolutions from its jaxpr.

Unlike XLA's own count, it multiplies a loop's body by its number of iterations, and
attributes the work to parts of the model. Element-wise operations do not count, as
compilers fuse them with their producers or consumers; nor does what no result needs.
"""

import collections
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.extend import core
from jax.interpreters import partial_eval


class Work(NamedTuple):
  """FLOPs and bytes of matrix products and convolutions.

  Attributes:
    flops: multiplications and additions.
    bytes: of their operands and results, each read or written once. Values inside
      jitted functions whose names start with `on_chip` do not count.
  """

  flops: float
  bytes: float

  def __add__(self, other: 'Work') -> 'Work':
    return Work(self.flops + other.flops, self.bytes + other.bytes)


NOTHING = Work(0, 0)
ON_CHIP = 'on_chip'


def count(function: Callable, *args: Any, loop_trips: int = 1) -> dict[str, Work]:
  """Returns the work by scope, such as 'transpose(jvp(RAHF))/RAHF.encode/vit'.

  Args:
    args: arrays, or their shapes.
    loop_trips: assumed number of iterations of `while_loop`s, which programs do not
      specify; those of a `scan` are known.
  """
  found: dict[str, Work] = collections.defaultdict(lambda: NOTHING)
  jaxpr = jax.make_jaxpr(function)(*args).jaxpr
  needed, _ = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
  _add(needed, '', 1, loop_trips, found)
  return dict(found)


def total(found: dict[str, Work]) -> Work:
  return sum(found.values(), NOTHING)


def _add(
  jaxpr: core.Jaxpr,
  scope: str,
  times: int,
  loop_trips: int,
  found: dict[str, Work],
  on_chip: bool = False,
) -> None:
  for equation in jaxpr.eqns:
    inner = '/'.join(filter(None, [scope, str(equation.source_info.name_stack)]))
    primitive = equation.primitive.name
    enters = str(equation.params.get('name')).startswith(ON_CHIP)
    if primitive in _FLOPS or enters:
      flops = _FLOPS[primitive](equation) if primitive in _FLOPS else 0
      found[inner] += Work(times * flops, 0 if on_chip else times * _bytes(equation))
    parts = inner_jaxprs(equation)
    # Only one branch runs. Count the last: where branches are per platform, it is the
    # default.
    for part in parts[-1:] if primitive == 'cond' else parts:
      repeats = times * _repeats(equation, loop_trips)
      _add(part, inner, repeats, loop_trips, found, on_chip or enters)


def _repeats(equation: core.JaxprEqn, loop_trips: int) -> int:
  """Returns how often an equation's inner function runs, over all devices."""
  match equation.primitive.name:
    case 'scan':
      return equation.params['length']
    case 'while':
      return loop_trips
    case 'shard_map':
      return equation.params['mesh'].size
  return 1


def inner_jaxprs(equation: core.JaxprEqn) -> list[core.Jaxpr]:
  """Returns the functions that an equation calls: a loop's body, a cond's branches."""
  values = jax.tree.leaves(list(equation.params.values()), is_leaf=_is_jaxpr)
  return [getattr(value, 'jaxpr', value) for value in values if _is_jaxpr(value)]


def _is_jaxpr(value: Any) -> bool:
  return isinstance(value, core.Jaxpr | core.ClosedJaxpr)


def _product_flops(equation) -> int:
  (contracted, _), _ = equation.params['dimension_numbers']
  shape = equation.invars[0].aval.shape
  return 2 * _size(equation.outvars[0]) * math.prod(shape[axis] for axis in contracted)


def _convolution_flops(equation) -> float:
  """Counts multiplications, except those by zeros from padding and dilation."""
  parameters = equation.params
  numbers = parameters['dimension_numbers']
  image, kernel = (variable.aval.shape for variable in equation.invars)
  out = equation.outvars[0].aval.shape
  pairs = 1
  for axis in range(len(parameters['window_strides'])):
    pairs *= _nonzero_pairs(
      image[numbers.lhs_spec[2 + axis]],
      kernel[numbers.rhs_spec[2 + axis]],
      out[numbers.out_spec[2 + axis]],
      stride=parameters['window_strides'][axis],
      before=parameters['padding'][axis][0],
      image_step=parameters['lhs_dilation'][axis],
      kernel_step=parameters['rhs_dilation'][axis],
    )
  rows, channels = (out[numbers.out_spec[axis]] for axis in range(2))
  # A kernel has the input channels of one group only.
  rows //= parameters['batch_group_count']
  return 2 * rows * channels * kernel[numbers.rhs_spec[1]] * pairs


def _nonzero_pairs(
  image: int,
  kernel: int,
  out: int,
  *,
  stride: int,
  before: int,
  image_step: int,
  kernel_step: int,
) -> int:
  """Returns how many pairs of output and tap use an actual pixel, along one axis."""
  positions = (
    position * stride - before + tap * kernel_step
    for position in range(out)
    for tap in range(kernel)
  )
  last = (image - 1) * image_step
  return sum(0 <= p <= last and p % image_step == 0 for p in positions)


def _bytes(equation) -> int:
  variables = (*equation.invars, *equation.outvars)
  return sum(_size(v) * v.aval.dtype.itemsize for v in variables)


def _size(variable) -> int:
  return math.prod(variable.aval.shape)


_FLOPS = {
  'dot_general': _product_flops,
  'conv_general_dilated': _convolution_flops,
}
