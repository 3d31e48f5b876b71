"""Layers that ViT, T5 and the heads share.

Axis letters: B batch, N leading axes, h w map size, C channels, D width.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from rahf.errors import InputError
from rahf.models import cpu_kernels
from rahf.models.cpu_kernels import Padding

Initializer = nn.initializers.Initializer
# Activations of MLPs by name; 'linear' is the identity.
he_normal = nn.initializers.he_normal()

ACTIVATIONS = {'gelu': nn.gelu, 'relu': nn.relu, 'linear': lambda y: y}


class Partitioned(nn.LogicallyPartitioned):
  """A parameter with its logical axes, also for `nn.DenseGeneral`.

  That layer makes its parameters flat, with fewer axes than names, and unboxes them to
  reshape them. Flax would constrain their sharding by all names there, and fail.
  """

  def unbox(self, apply_constraint: bool = True) -> Any:
    named = jnp.ndim(self.value) == len(self.names)
    return super().unbox(apply_constraint and named)


def partitioned(init: Initializer, *axes: str | None) -> Initializer:
  """Returns `init` with one logical axis name per dimension (see `sharding.py`)."""
  return lambda *args, **kwargs: Partitioned(init(*args, **kwargs), axes)


class RMSNorm(nn.Module):
  """Scales to unit root mean square over the last axis, as T5 does; no bias.

  Attributes:
    epsilon: added to the mean square.
    dtype: of the result; the statistics are always float32.
    axis: the logical axis of the scale.
  """

  epsilon: float = 1e-6
  dtype: jnp.dtype = jnp.float32
  axis: str = 'embed'

  @nn.compact
  def __call__(self, x: Float[Array, '*N D']) -> Float[Array, '*N D']:
    scale = self.param(
      'scale', partitioned(nn.initializers.ones, self.axis), (x.shape[-1],)
    )
    x = jnp.asarray(x, jnp.float32)
    x = x * jax.lax.rsqrt(jnp.mean(jnp.square(x), -1, keepdims=True) + self.epsilon)
    return jnp.asarray(x * scale, self.dtype)


def dense(
  features: int,
  *axes: str | None,
  init: Initializer,
  dtype: jnp.dtype,
  bias_init: Initializer | None = nn.initializers.zeros,
  name: str | None = None,
) -> nn.Dense:
  """Returns an `nn.Dense` with logical axes.

  Args:
    axes: the kernel's logical axes: inputs, outputs.
    bias_init: None for no bias.
  """
  return nn.Dense(
    features,
    use_bias=bias_init is not None,
    dtype=dtype,
    kernel_init=partitioned(init, *axes),
    bias_init=partitioned(bias_init or nn.initializers.zeros, axes[-1]),
    dot_general=cpu_kernels.dot_general,
    name=name,
  )


def conv(
  features: int,
  *,
  name: str,
  dtype: jnp.dtype,
  size: int = 3,
  stride: int = 1,
  padding: str | Padding = 'SAME',
  axes: tuple[str | None, str | None] = ('conv_in', 'conv_out'),
  init: nn.initializers.Initializer = he_normal,
  bias_init: nn.initializers.Initializer = nn.initializers.zeros,
) -> nn.Conv:
  """Returns an `nn.Conv` with a square kernel, a bias and logical axes.

  Args:
    axes: of the channels that come in and go out; None if they are not sharded.
    init, bias_init: of the kernel and the bias.
  """
  return nn.Conv(
    features,
    (size, size),
    stride,
    padding,
    dtype=dtype,
    kernel_init=partitioned(init, None, None, *axes),
    bias_init=partitioned(bias_init, axes[1]),
    conv_general_dilated=cpu_kernels.convolve,
    name=name,
  )


def constrain_batch(x: Array, *axes: str | None) -> Array:
  """Constrains the first axis to be split over the mesh like a batch.

  Needed where a loop starts from a constant: that has no sharding, and the compiler
  would choose one from the use of the loop's result.

  Args:
    axes: logical axes after the first; axes that are not given are not split.
  """
  names = ('batch', *axes, *(None,) * (x.ndim - 1 - len(axes)))
  return nn.with_logical_constraint(x, names)


def rematerialized(module: nn.Module, on: bool) -> Callable[..., Any]:
  """Returns the module with gradient checkpointing.

  Only its inputs are kept for the backward pass, which computes the rest again.

  Args:
    on: if False, the module itself is returned.
  """
  if not on:
    return module

  def call(*args, train: bool | None = None, **kwargs):
    # `train` is a Python value, which must not be traced.
    static = {} if train is None else {'train': train}
    apply = nn.remat(lambda module, args, kwargs: module(*args, **kwargs, **static))
    return apply(module, args, kwargs)

  return call


def activate(name: str, x: Array) -> Array:
  """Applies an MLP activation by name; 'linear' is the identity.

  Raises:
    InputError: the name is not one of ACTIVATIONS.
  """
  if name not in ACTIVATIONS:
    raise InputError(f'unknown activation {name!r}; choose from {sorted(ACTIVATIONS)}')
  return ACTIVATIONS[name](x)
