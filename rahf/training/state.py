"""The training state, made straight into its shards."""

import functools
from collections.abc import Iterable, Mapping
from typing import Any

import flax
import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.sharding import Mesh
from jaxtyping import Array, Int

from rahf.models.init import init_params
from rahf.models.rahf import RAHF
from rahf.runtime import sharding
from rahf.runtime.tree import by_path


@flax.struct.dataclass
class TrainState:
  """Everything that a step changes; `step` counts the finished steps."""

  step: Int[Array, '']
  params: Any
  opt_state: Any


class StateFactory:
  """Makes a state, or describes it for a checkpoint to fill.

  Attributes:
    shardings: a TrainState of shardings.
    abstract: a TrainState of shapes, dtypes and shardings.
  """

  def __init__(self, model: RAHF, optimizer: optax.GradientTransformation, mesh: Mesh):
    self._model = model
    self._optimizer = optimizer
    boxed = jax.eval_shape(functools.partial(init_params, model), jax.random.key(0))
    params = sharding.parameter_shardings(boxed, mesh)
    shapes = TrainState(
      step=jax.ShapeDtypeStruct((), jnp.int32),
      params=nn.unbox(boxed),
      opt_state=jax.eval_shape(optimizer.init, nn.unbox(boxed)),
    )
    replicated = sharding.replicated(mesh)
    self.shardings = TrainState(
      step=replicated,
      params=params,
      opt_state=optax.tree_utils.tree_map_params(
        optimizer,
        lambda moment, sharding: moment if _is_masked(moment) else sharding,
        shapes.opt_state,
        params,
        transform_non_params=lambda _: replicated,
        is_leaf=_is_masked,
      ),
    )
    self.abstract = jax.tree.map(
      lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
      shapes,
      self.shardings,
    )

  def make(self, seed: int) -> TrainState:
    """Returns a fresh state."""
    return self.start(self.fresh(seed, by_path(self.shardings.params)))

  def fresh(self, seed: int, paths: Iterable[str]) -> dict[str, jax.Array]:
    """Makes fresh parameters by path; each device makes its own shards alone.

    Args:
      paths: which; their values do not depend on what else is made.
    """
    every = by_path(self.shardings.params)
    shardings = {path: every[path] for path in paths}
    if not shardings:
      return {}

    def make(key) -> dict[str, jax.Array]:
      # The compiler drops all that is not returned.
      params = by_path(nn.unbox(init_params(self._model, key)))
      return {path: params[path] for path in shardings}

    return jax.jit(make, out_shardings=shardings)(jax.random.key(seed))

  def start(self, params: Mapping[str, jax.Array]) -> TrainState:
    """Returns the state before the first step.

    Args:
      params: all parameters by path, in their shards; they are not copied.
    """
    tree = jax.tree.unflatten(
      jax.tree.structure(self.shardings.params),
      [params[path] for path in by_path(self.shardings.params)],
    )

    def make(tree) -> tuple[Int[Array, ''], Any]:
      return jnp.zeros((), jnp.int32), self._optimizer.init(tree)

    shardings = self.shardings.step, self.shardings.opt_state
    step, opt_state = jax.jit(make, out_shardings=shardings)(tree)
    return TrainState(step, tree, opt_state)


def _is_masked(moment: Any) -> bool:
  """Returns whether this stands where a frozen parameter has no moment."""
  return isinstance(moment, optax.MaskedNode)
