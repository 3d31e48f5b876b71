"""The training state, made straight into its shards."""

from collections.abc import Mapping
from typing import Any

import flax
import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.sharding import Mesh
from jaxtyping import Array, Int

from rahf import sharding
from rahf.models.rahf import RAHF


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
    boxed = jax.eval_shape(self._init_params, jax.random.key(0))
    params = sharding.parameter_shardings(boxed, mesh)
    shapes = jax.eval_shape(self._init, jax.random.key(0))
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

  def make(
    self, seed: int, loaded: Mapping[str, jax.Array] | None = None
  ) -> TrainState:
    """Returns a fresh state; each device makes its own shards alone.

    Args:
      loaded: parameters that are there already, in their shards, by path. Only the
        others are made; they are the same as without these.
    """
    key = jax.random.key(seed)
    if not loaded:
      return jax.jit(self._init, out_shardings=self.shardings)(key)
    return self._start(self.complete(loaded, key))

  def complete(self, loaded: Mapping[str, jax.Array], key: jax.Array) -> Any:
    """Returns all parameters: `loaded` ones and, where there is none, fresh ones."""
    shardings = by_path(self.shardings.params)
    fresh = {path: shardings[path] for path in shardings.keys() - loaded.keys()}

    def make(key) -> dict[str, jax.Array]:
      # The compiler drops all that is not returned.
      every = by_path(nn.unbox(self._init_params(key)))
      return {path: every[path] for path in fresh}

    params = dict(loaded)
    if fresh:
      params |= jax.jit(make, out_shardings=fresh)(key)
    return jax.tree.unflatten(
      jax.tree.structure(self.shardings.params), [params[path] for path in shardings]
    )

  def _start(self, params: Any) -> TrainState:
    """Returns the state before the first step, without a copy of the parameters."""

    def make(params) -> tuple[Int[Array, ''], Any]:
      return jnp.zeros((), jnp.int32), self._optimizer.init(params)

    shardings = self.shardings.step, self.shardings.opt_state
    step, opt_state = jax.jit(make, out_shardings=shardings)(params)
    return TrainState(step, params, opt_state)

  def _init_params(self, key) -> Any:
    config = self._model.config
    size = config.image_size
    # Lengths do not enter the shapes of parameters.
    return self._model.init(
      key,
      jnp.zeros((1, size, size, 3)),
      jnp.ones((1, config.texts, 1), jnp.int32),
      jnp.ones((1, 1), jnp.int32),
      train=False,
    )['params']

  def _init(self, key) -> TrainState:
    params = nn.unbox(self._init_params(key))
    return TrainState(jnp.zeros((), jnp.int32), params, self._optimizer.init(params))


def by_path(tree: Any) -> dict[str, Any]:
  """Maps the path of each leaf, such as 'vit/embedding/kernel', to the leaf."""
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): leaf
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }


def _is_masked(moment: Any) -> bool:
  """Returns whether this stands where a frozen parameter has no moment."""
  return isinstance(moment, optax.MaskedNode)
