"""Equal modules, such as the layers of an encoder, written out or in a loop.

XLA compiles every module that is written out, although all of them are the same program
with other parameters. In a loop it compiles one, which takes a fraction of the time.
The loop reads stacked parameters, so that these are copied once. Results, the names of
the parameters and the random numbers of dropout are the same in both cases.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn


class Turn(NamedTuple):
  """What distinguishes the call of a module from those of its equals.

  Attributes:
    variables: of the module.
    key: for dropout; None if nothing is dropped.
    own: input that only this module gets.
  """

  variables: Any
  key: jax.Array | None
  own: Any


def in_turn(
  call: Callable[[nn.Module, Any, Any], Any],
  modules: Sequence[nn.Module],
  carry: Any,
  inputs: Sequence[Any] | None = None,
  *,
  loop: bool,
  remat: bool = False,
) -> Any:
  """Calls each module with the result of the one before.

  Args:
    call: computes the next carry from a module, the carry, and the module's own input.
    modules: equal ones, with parameters of the same shapes.
    inputs: one for each module; None if there are none.
    loop: whether to compile them once.
    remat: whether the backward pass computes each of them again.

  Returns:
    The carry after the last module.
  """
  inputs = [None] * len(modules) if inputs is None else inputs
  if modules and modules[0].is_initializing():
    for module, own in zip(modules, inputs, strict=True):
      carry = call(module, carry, own)
    return carry

  def step(module: nn.Module) -> Callable[[Any, Turn], Any]:
    def apply(carry: Any, turn: Turn) -> Any:
      return _apply(module, turn, lambda module: call(module, carry, turn.own))

    # Inside a loop, the compiler cannot merge the two computations of a step.
    return jax.checkpoint(apply, prevent_cse=not loop) if remat else apply

  turns = list(_turns(modules, inputs))
  if loop and modules:
    once = step(modules[0])
    return jax.lax.scan(lambda *args: (once(*args), None), carry, _stack(turns))[0]
  for module, turn in zip(modules, turns, strict=True):
    carry = step(module)(carry, turn)
  return carry


def side_by_side(
  modules: Sequence[nn.Module], inputs: Sequence[jax.Array], *, loop: bool
) -> jax.Array:
  """Returns the results of all modules, stacked along a new first axis.

  Args:
    modules, loop: as for `in_turn`.
    inputs: one for each module.
  """
  if modules[0].is_initializing():
    pairs = zip(modules, inputs, strict=True)
    return jnp.stack([module(own) for module, own in pairs])

  def call(module: nn.Module, turn: Turn) -> jax.Array:
    return _apply(module, turn, lambda module: module(turn.own))

  turns = list(_turns(modules, inputs))
  if loop:
    return jax.lax.map(functools.partial(call, modules[0]), _stack(turns))
  return jnp.stack([*map(call, modules, turns)])


def _turns(modules: Sequence[nn.Module], inputs: Sequence[Any]) -> Iterator[Turn]:
  for module, own in zip(modules, inputs, strict=True):
    key = module.make_rng('dropout') if module.has_rng('dropout') else None
    yield Turn(module.variables, key, own)


def _stack(turns: list[Turn]) -> Turn:
  return jax.tree.map(lambda *leaves: jnp.stack(leaves), *turns)


def _apply(module: nn.Module, turn: Turn, function: Callable[[nn.Module], Any]) -> Any:
  """Calls a function with a module that has the variables of a turn."""
  rngs = {} if turn.key is None else {'dropout': turn.key}
  module = module.clone(parent=None)
  return module.apply(turn.variables, method=function, rngs=rngs)
