"""Initialises a model's variables, or returns only their shapes."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array

from rahf.models.rahf import RAHF


def init_variables(model: RAHF, key: Array) -> Any:
  """Returns fresh variables, boxed with their logical axes.

  Under `jax.eval_shape` it makes no arrays.
  """
  size = model.config.image_size
  # Parameters do not depend on the lengths of texts and target.
  return model.init(
    key,
    jnp.zeros((1, size, size, 3)),
    jnp.ones((1, model.config.texts, 1), jnp.int32),
    jnp.ones((1, 1), jnp.int32),
    train=False,
  )


def abstract_params(model: RAHF) -> Any:
  """Returns shapes and dtypes of a model's parameters."""
  init = functools.partial(init_variables, model)
  return nn.unbox(jax.eval_shape(init, jax.random.key(0)))['params']
