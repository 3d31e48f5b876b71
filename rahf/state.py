"""The training state, made straight into its shards."""

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

  def make(self, seed: int) -> TrainState:
    """Returns a fresh state; each device makes its own shards alone."""
    make = jax.jit(self._init, out_shardings=self.shardings)
    return make(jax.random.key(seed))

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


def _is_masked(moment: Any) -> bool:
  """Returns whether this stands where a frozen parameter has no moment."""
  return isinstance(moment, optax.MaskedNode)
