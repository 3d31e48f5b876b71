"""The training state, created directly in its shards."""

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import flax
import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.sharding import Mesh
from jaxtyping import Array, Int

from rahf.runtime import sharding
from rahf.runtime.tree import by_path, map_paths
from rahf.training.task import Variables

# From a key to fresh variables, boxed with their logical axes.
Init = Callable[[Array], Variables]


@flax.struct.dataclass
class TrainState:
  """Everything that a step changes.

  Attributes:
    step: number of finished steps.
    params: the parameters.
    opt_state: the optimizer's state.
    collections: the model's other variables by Flax's names, such as 'batch_stats'.
    average: the moving average of the parameters; None without one.
  """

  step: Int[Array, '']
  params: Any
  opt_state: Any
  collections: Any = flax.struct.field(default_factory=dict)
  average: Any = None

  @property
  def variables(self) -> Variables:
    """The variables to evaluate and export: with averaged parameters, if any."""
    params = self.params if self.average is None else self.average
    return {'params': params, **self.collections}

  def to_tree(self) -> dict[str, Any]:
    """Returns the tree that a checkpoint holds, without empty parts."""
    tree = {'step': self.step, 'params': self.params, 'opt_state': self.opt_state}
    if self.collections:
      tree['collections'] = self.collections
    if self.average is not None:
      tree['average'] = self.average
    return tree


class StateFactory:
  """Makes training states, and describes them for checkpoints to restore.

  Attributes:
    shardings: a TrainState of shardings.
    abstract: a TrainState of shapes, dtypes and shardings.
  """

  def __init__(
    self,
    init: Init,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    *,
    averaged: bool = False,
  ):
    """Computes shapes and shardings; makes no arrays.

    Args:
      init: from a key to fresh variables, boxed with their logical axes.
      averaged: whether the state has a moving average of the parameters.
    """
    self._init = init
    self._optimizer = optimizer
    boxed = jax.eval_shape(init, jax.random.key(0))
    params, collections = _split(nn.unbox(boxed))
    param_shardings, collection_shardings = _split(
      {name: sharding.parameter_shardings(tree, mesh) for name, tree in boxed.items()}
    )
    shapes = TrainState(
      step=jax.ShapeDtypeStruct((), jnp.int32),
      params=params,
      opt_state=jax.eval_shape(optimizer.init, params),
      collections=collections,
      average=params if averaged else None,
    )
    replicated = sharding.replicated(mesh)
    self.shardings = TrainState(
      step=replicated,
      params=param_shardings,
      opt_state=optax.tree_utils.tree_map_params(
        optimizer,
        lambda moment, sharding: moment if _is_masked(moment) else sharding,
        shapes.opt_state,
        param_shardings,
        transform_non_params=lambda _: replicated,
        is_leaf=_is_masked,
      ),
      collections=collection_shardings,
      average=param_shardings if averaged else None,
    )
    self.abstract = jax.tree.map(
      lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
      shapes,
      self.shardings,
    )

  def make(self, seed: int) -> TrainState:
    """Returns a fresh state."""
    params = self.fresh_params(seed, by_path(self.shardings.params))
    return self.from_params(params, seed)

  def fresh_params(self, seed: int, paths: Iterable[str]) -> dict[str, jax.Array]:
    """Returns fresh parameters by path; each device makes only its own shards.

    Args:
      paths: the parameters to make. Their values do not depend on this choice.
    """
    every = by_path(self.shardings.params)
    shardings = {path: every[path] for path in paths}
    if not shardings:
      return {}

    def make(key) -> dict[str, jax.Array]:
      # The compiler drops the parameters that are not returned.
      params = by_path(nn.unbox(self._init(key))['params'])
      return {path: params[path] for path in shardings}

    return jax.jit(make, out_shardings=shardings)(jax.random.key(seed))

  def from_params(
    self,
    params: Mapping[str, jax.Array],
    seed: int = 0,
    collections: Mapping[str, jax.Array] | None = None,
  ) -> TrainState:
    """Returns the state before the first step.

    Args:
      params: all parameters by path, in their shards; they are not copied.
      seed: of the other collections.
      collections: their known variables by path, in their shards.
    """
    tree = self.params_tree(params)

    def make(tree) -> tuple[Int[Array, ''], Any]:
      return jnp.zeros((), jnp.int32), self._optimizer.init(tree)

    shardings = self.shardings.step, self.shardings.opt_state
    step, opt_state = jax.jit(make, out_shardings=shardings)(tree)
    others = self._fresh_collections(seed)
    if collections:
      others = map_paths((by_path(others) | dict(collections)).__getitem__, others)
    return TrainState(step, tree, opt_state, others, self._first_average(tree))

  def params_tree(self, params: Mapping[str, jax.Array]) -> Any:
    """Returns parameters by path as the model's tree."""
    return map_paths(params.__getitem__, self.shardings.params)

  def _fresh_collections(self, seed: int) -> dict[str, Any]:
    if not self.shardings.collections:
      return {}
    make = jax.jit(
      lambda key: _split(nn.unbox(self._init(key)))[1],
      out_shardings=self.shardings.collections,
    )
    return make(jax.random.key(seed))

  def _first_average(self, params: Any) -> Any:
    if self.shardings.average is None:
      return None
    # A copy, since a step reuses the memory of both parameters and average.
    copy = functools.partial(jax.tree.map, jnp.copy)
    return jax.jit(copy, out_shardings=self.shardings.average)(params)


def _split(variables: Variables) -> tuple[Any, dict[str, Any]]:
  """Returns the parameters, and all other collections."""
  return variables['params'], {k: v for k, v in variables.items() if k != 'params'}


def _is_masked(moment: Any) -> bool:
  """Returns whether this is the placeholder for a frozen parameter's moment."""
  return isinstance(moment, optax.MaskedNode)
