"""Layers that ViT, T5 and the heads share.

Axis letters: B batch, N leading axes, h w map size, C channels, D width.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from rahf.errors import InputError
from rahf.models import cpu_kernels
from rahf.models.cpu_kernels import Padding

Initializer = nn.initializers.Initializer
# Activations of MLPs by name; 'linear' is the identity.
he_normal = nn.initializers.he_normal()

ACTIVATIONS = {'gelu': nn.gelu, 'relu': nn.relu, 'linear': lambda y: y}

# [offset of the input row, parity of the output row, tap]: 1 where the output reads the
# input with this tap. Even rows read their own input row with the middle tap, odd rows
# read two input rows with the outer taps.
TAP_OF = np.zeros((2, 2, 3), np.float32)
TAP_OF[0, 0, 1] = TAP_OF[0, 1, 0] = TAP_OF[1, 1, 2] = 1


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


class Deconv(nn.Module):
  """A 3x3 transposed convolution that doubles height and width.

  It computes `nn.ConvTranspose(features, (3, 3), (2, 2), padding=((1, 2), (1, 2)))`,
  whose gradient is slow on CPUs: on two cores it takes 3 times as long for the first
  stage of configs/quickstart.py and 22 times for the paper's. The forward pass alone is
  up to 1.5 times as fast as here (benchmarks/kernel_gradients.py).

  Output row 2i reads input row i with the middle tap, row 2i+1 reads rows i and i+1
  with the outer taps. The four outputs of an input pixel therefore depend on its 2x2
  neighbours only, and one 2x2 convolution to four times the channels computes them
  without multiplying by inserted zeros.
  """

  features: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: Float[Array, 'B h w C']) -> Float[Array, 'B 2*h 2*w D']:
    batch, height, width, channels = x.shape
    kernel = self.param(
      'kernel',
      partitioned(
        # An output pixel reads 9/4 of the nine taps on average.
        nn.initializers.variance_scaling(8.0, 'fan_in', 'truncated_normal'),
        None,
        None,
        'conv_in',
        'conv_out',
      ),
      (3, 3, channels, self.features),
    )
    bias = self.param(
      'bias', partitioned(nn.initializers.zeros, 'conv_out'), (self.features,)
    )
    x, kernel, bias = (jnp.asarray(array, self.dtype) for array in (x, kernel, bias))
    # d e offsets, p q parities, k l taps: rows first, then columns.
    phases = jnp.einsum('dpk,eql,klio->deipqo', TAP_OF, TAP_OF, kernel)
    phases = jnp.asarray(phases, self.dtype)
    y = cpu_kernels.convolve(
      x,
      phases.reshape(2, 2, channels, 4 * self.features),
      strides=(1, 1),
      padding=((0, 1), (0, 1)),
    )
    y = y.reshape(batch, height, width, 2, 2, self.features).swapaxes(2, 3)
    return y.reshape(batch, 2 * height, 2 * width, self.features) + bias


class Deconv4x4(nn.Module):
  """A 4x4 transposed convolution that doubles height and width, without bias.

  It computes `nn.ConvTranspose(features, (4, 4), (2, 2), use_bias=False)`, whose
  gradient takes many times as long on CPUs (`benchmarks/kernel_gradients.py`).
  """

  features: int
  dtype: jnp.dtype
  kernel_init: nn.initializers.Initializer

  @nn.compact
  def __call__(self, x: Float[Array, 'B h w C']) -> Float[Array, 'B 2*h 2*w D']:
    kernel = self.param('kernel', self.kernel_init, (4, 4, x.shape[-1], self.features))
    return double(jnp.asarray(x, self.dtype), jnp.asarray(kernel, self.dtype))


def double(
  x: Float[Array, 'B h w C'], kernel: Float[Array, '4 4 C D']
) -> Float[Array, 'B 2*h 2*w D']:
  """Doubles height and width by a 4x4 transposed convolution.

  Output rows 2i - 1 and 2i both read the input rows i - 1 and i, each with two of the
  four taps. One 2x2 convolution computes the four outputs between four pixels.
  """
  batch, height, width, channels = x.shape
  features = kernel.shape[-1]
  # d e offsets, p q parities, k l taps: k = 2 d + p, l = 2 e + q.
  phases = kernel.reshape(2, 2, 2, 2, channels, features)
  phases = jnp.einsum('dpeqio->deipqo', phases)
  # Padded here: XLA's kernel gradient is slow where the map grows.
  x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  y = cpu_kernels.convolve(
    x,
    phases.reshape(2, 2, channels, 4 * features),
    strides=(1, 1),
    padding=((0, 0), (0, 0)),
  )
  y = y.reshape(batch, height + 1, width + 1, 2, 2, features)
  # Row 2i is the even one of the i-th, row 2i + 1 the odd one of the next.
  y = jnp.stack([y[:, :-1, :, 0], y[:, 1:, :, 1]], 2)
  y = jnp.stack([y[:, :, :, :-1, 0], y[:, :, :, 1:, 1]], 4)
  return y.reshape(batch, 2 * height, 2 * width, features)


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
