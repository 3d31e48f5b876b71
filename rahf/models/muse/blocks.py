"""Blocks of the transformer of a Muse.

No layer has a bias. Norms are RMS norms, except before the feed-forward layers.

Axis letters: B batch, h w size of a map, N image tokens, T text tokens, S tokens that
are attended to, C channels of a map, D width, H heads, K head width.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from rahf.models import cpu_kernels, layers
from rahf.models.attention import attend
from rahf.models.layers import RMSNorm, partitioned

fan_in = nn.initializers.lecun_normal()
exact_gelu = functools.partial(nn.gelu, approximate=False)
EPSILON = 1e-6  # Of the norms inside of `CrossBlock`, and of `ResponseNorm`.
EXPANSION = 4  # Inner channels of a `ConvBlock`, for each of its outer ones.


class Text(NamedTuple):
  """What the image is made from.

  Attributes:
    tokens: the prompt's tokens.
    condition: the prompt as a whole, with the numbers of the micro-conditioning.
    bias: added to the logits of all attention to text tokens, such as the logarithm of
      a weight; None for none.
  """

  tokens: Float[Array, 'B T D']
  condition: Float[Array, 'B D']
  bias: Float[Array, 'B T'] | None


def dense(
  features: int, *axes: str | None, dtype: jnp.dtype, name: str, init=fan_in
) -> nn.Dense:
  """Returns a dense layer without bias; `axes` are the kernel's logical axes."""
  return layers.dense(
    features, *axes, init=init, bias_init=None, dtype=dtype, name=name
  )


class Attention(nn.Module):
  """Multi-head attention to the same or to other tokens."""

  heads: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'B N D'],
    others: Float[Array, 'B S F'],
    bias: Float[Array, 'B S'] | None = None,
  ) -> Float[Array, 'B N D']:
    width = x.shape[-1]
    head_width = width // self.heads
    general = functools.partial(
      nn.DenseGeneral,
      use_bias=False,
      dtype=self.dtype,
      dot_general=cpu_kernels.dot_general,
    )

    def project(name: str, y: Array) -> Float[Array, 'B _ H K']:
      return general(
        (self.heads, head_width),
        kernel_init=partitioned(fan_in, 'embed', 'heads', None),
        name=name,
      )(y)

    operands = project('query', x), project('key', others), project('value', others)
    scale = head_width**-0.5
    if bias is None:
      y = attend(*operands, scale=scale)
    else:
      y = jax.nn.dot_product_attention(
        *operands, bias=bias[:, None, None].astype(self.dtype), scale=scale
      )
    return general(
      width,
      axis=(-2, -1),
      kernel_init=partitioned(fan_in, 'heads', None, 'embed'),
      name='out',
    )(y)


class Modulated(nn.Module):
  """Scales and shifts the result of a norm as the condition says (AdaLN)."""

  dtype: jnp.dtype

  @nn.compact
  def __call__(
    self, x: Float[Array, 'B *N D'], condition: Float[Array, 'B F']
  ) -> Float[Array, 'B *N D']:
    width = x.shape[-1]
    modulation = dense(
      2 * width,
      'embed',
      None,
      dtype=self.dtype,
      init=nn.initializers.zeros,
      name='modulation',
    )(nn.silu(condition))
    modulation = jnp.expand_dims(modulation, range(1, x.ndim - 1))
    return x * (1 + modulation[..., :width]) + modulation[..., width:]


class Block(nn.Module):
  """Attention to the image, attention to the text, feed-forward; each modulated."""

  heads: int
  mlp: int
  epsilon: float
  dropout_rate: float
  dtype: jnp.dtype

  @nn.compact
  def __call__(
    self, x: Float[Array, 'B N D'], text: Text, *, train: bool
  ) -> Float[Array, 'B N D']:
    dropout = nn.Dropout(self.dropout_rate, deterministic=not train)

    def norm(name: str, y: Array) -> Array:
      y = RMSNorm(self.epsilon, self.dtype, name=name)(y)
      return Modulated(self.dtype, name=f'{name}_modulated')(y, text.condition)

    y = norm('norm1', x)
    x = x + dropout(Attention(self.heads, self.dtype, name='self_attention')(y, y))

    attend_text = Attention(self.heads, self.dtype, name='text_attention')
    x = x + dropout(attend_text(norm('norm2', x), text.tokens, text.bias))

    y = nn.LayerNorm(
      epsilon=self.epsilon,
      dtype=self.dtype,
      use_bias=False,
      scale_init=partitioned(nn.initializers.ones, 'embed'),
      name='norm3',
    )(x)
    y = Modulated(self.dtype, name='norm3_modulated')(y, text.condition)
    value = dense(self.mlp, 'embed', 'mlp', dtype=self.dtype, name='mlp_value')(y)
    gate = dense(self.mlp, 'embed', 'mlp', dtype=self.dtype, name='mlp_gate')(y)
    y = dropout(value * exact_gelu(gate))
    return x + dense(x.shape[-1], 'mlp', 'embed', dtype=self.dtype, name='mlp_out')(y)


class CrossBlock(nn.Module):
  """Attention to the text, twice, without feed-forward layers."""

  heads: int
  dropout_rate: float
  dtype: jnp.dtype

  @nn.compact
  def __call__(
    self, x: Float[Array, 'B N C'], text: Text, *, train: bool
  ) -> Float[Array, 'B N C']:
    tokens, width = text.tokens, x.shape[-1]
    if tokens.shape[-1] != width:
      narrow = dense(width, 'embed', None, dtype=self.dtype, name='text')
      tokens = narrow(nn.silu(tokens))
    for i in (1, 2):
      y = RMSNorm(EPSILON, self.dtype, name=f'norm{i}')(x)
      attention = Attention(self.heads, self.dtype, name=f'attention{i}')
      y = attention(y, tokens, text.bias)
      x = x + nn.Dropout(self.dropout_rate, deterministic=not train)(y)
    return x


class ConvBlock(nn.Module):
  """ConvNeXt V2's block (Woo et al., 2023), whose result is modulated."""

  epsilon: float
  dropout_rate: float
  dtype: jnp.dtype

  @nn.compact
  def __call__(
    self, x: Float[Array, 'B h w C'], text: Text, *, train: bool
  ) -> Float[Array, 'B h w C']:
    channels = x.shape[-1]
    y = nn.Conv(
      channels,
      (3, 3),
      feature_group_count=channels,
      use_bias=False,
      dtype=self.dtype,
      kernel_init=partitioned(fan_in, None, None, None, None),
      conv_general_dilated=cpu_kernels.depthwise,
      name='depthwise',
    )(x)
    y = RMSNorm(self.epsilon, self.dtype, name='norm')(y)
    inner = EXPANSION * channels
    y = dense(inner, 'embed', 'mlp', dtype=self.dtype, name='mlp_in')(y)
    y = ResponseNorm(self.dtype, name='response_norm')(exact_gelu(y))
    y = dense(channels, 'mlp', 'embed', dtype=self.dtype, name='mlp_out')(y)
    x = x + nn.Dropout(self.dropout_rate, deterministic=not train)(y)
    return Modulated(self.dtype, name='modulated')(x, text.condition)


class ResponseNorm(nn.Module):
  """Scales each channel by its share of the response to the whole map."""

  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: Float[Array, 'B h w C']) -> Float[Array, 'B h w C']:
    zeros = nn.initializers.zeros
    scale = self.param('scale', partitioned(zeros, 'mlp'), x.shape[-1:])
    bias = self.param('bias', partitioned(zeros, 'mlp'), x.shape[-1:])
    squares = jnp.square(jnp.asarray(x, jnp.float32)).sum((1, 2), keepdims=True)
    # The root has no gradient at 0, where a channel is dead.
    response = jnp.sqrt(jnp.maximum(squares, 1e-30))
    response = response / (response.mean(-1, keepdims=True) + EPSILON)
    return jnp.asarray(x * (1 + scale * response) + bias, self.dtype)
