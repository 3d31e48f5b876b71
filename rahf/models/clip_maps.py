"""Explains CLIP's cosine of an image and a text: which pixels, which words.

None of these needs training. Maps are scaled to [0, 1] image by image.

  input_gradient  largest absolute gradient over RGB (Simonyan et al., 2013); most
                  likely the paper's "CLIP gradient"
  signed          the gradient summed over RGB, negated: 1 where the pixels lower the
                  cosine most
  grad_cam        ReLU of the tokens before the last block, weighted by their mean
                  gradient (Selvaraju et al., 2017). After the last block only the class
                  token has a gradient.
  grad_eclip      the last attention's values, weighted by the gradient at the class
                  token and by the similarity of queries and keys (Zhao et al., 2024)

Axis letters: B batch, H W image size, N image tokens, T text tokens, D width, A heads,
K head width.
"""

import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from rahf.models.clip import CLIP, normalised

ATTENTION = 'MultiHeadDotProductAttention_0'
# Text layers over which the relevance of words is averaged, from the last.
WORD_LAYERS = 3
Path = tuple[str, ...]


def gradient_map(
  kind: str,
  model: CLIP,
  params: Any,
  image: Float[Array, 'B H W 3'],
  text: Int[Array, 'B T'],
) -> Float[Array, 'B H W']:
  """Returns a map of what CLIP looks at in an image.

  Args:
    kind: see the module docstring.
    params: of the CLIP.
    image: normalised as CLIP takes it.
  """
  text_features = normalised(_apply(model, params, text, CLIP.text_features))
  of_image = functools.partial(_cosines, model, params, text_features)
  if kind in ('input_gradient', 'signed'):
    gradient = jax.grad(lambda x: of_image(x).sum())(image)
    if kind == 'signed':
      return scale_each(-gradient.sum(-1))
    return scale_each(jnp.abs(gradient).max(-1))
  tokens = _grad_cam if kind == 'grad_cam' else _grad_eclip
  heat = tokens(model, of_image, image)[:, 1:]  # Without the class token.
  grid = math.isqrt(heat.shape[1])
  heat = heat.reshape(-1, grid, grid)
  return scale_each(jax.image.resize(heat, image.shape[:3], 'bilinear'))


def word_relevance(
  model: CLIP,
  params: Any,
  image: Float[Array, 'B H W 3'],
  text: Int[Array, 'B T'],
) -> Float[Array, 'B T']:
  """Returns how much each token speaks for the image (CLIP4DM; AAAI 2025).

  It is attention times its gradient, from the end token to each token, averaged over
  the heads of the last three layers. Negative tokens lower the cosine.
  """
  image_features = normalised(_apply(model, params, image, CLIP.image_features))
  last = model.config.text.layers
  blocks = [('text', f'block_{i}') for i in range(max(0, last - WORD_LAYERS), last)]
  outs = [(*block, ATTENTION, 'out') for block in blocks]

  def of_text(probes: Mapping[Path, Array]) -> tuple[Array, dict]:
    seen = _Seen(probes)
    features = seen.apply(model, params, text, CLIP.text_features)
    return jnp.sum(image_features * normalised(features)), seen.values

  shapes = jax.eval_shape(of_text, {})[1]
  probes = {path: jnp.zeros_like(shapes[path]) for path in outs}
  gradients, values = jax.grad(of_text, has_aux=True)(probes)
  end = jnp.argmax(text == model.config.vocab_size - 1, axis=1)
  found = [
    _attention_relevance(
      end, gradients[path], *(values[*path[:-1], n] for n in ('query', 'key', 'value'))
    )
    for path in outs
  ]
  return sum(found) / len(found)


def _attention_relevance(
  end: Int[Array, 'B'],
  gradient: Float[Array, 'B T A K'],
  query: Float[Array, 'B T A K'],
  key: Float[Array, 'B T A K'],
  value: Float[Array, 'B T A K'],
) -> Float[Array, 'B T']:
  """Returns attention times its gradient, from the end token, averaged over heads.

  The output of a head is sum_j A_ij v_j, so that dcos/dA_ij = gradient_i · v_j.
  """
  query, gradient = (
    jnp.take_along_axis(x, end[:, None, None, None], 1)[:, 0] for x in (query, gradient)
  )
  logits = jnp.einsum('bak,btak->bat', query, key) * query.shape[-1] ** -0.5
  before = jnp.arange(key.shape[1]) <= end[:, None]
  attention = jax.nn.softmax(jnp.where(before[:, None], logits, -jnp.inf))
  return (attention * jnp.einsum('bak,btak->bat', gradient, value)).mean(1)


def _grad_cam(model: CLIP, of_image, image: Array) -> Float[Array, 'B N']:
  block = 'vision', f'block_{model.config.vision.layers - 1}'
  (gradient,), (tokens,) = _at(of_image, image, [block])
  weights = gradient[:, 1:].mean(1, keepdims=True)
  return nn.relu((weights * tokens).sum(-1))


def _grad_eclip(model: CLIP, of_image, image: Array) -> Float[Array, 'B N']:
  block = 'vision', f'block_{model.config.vision.layers - 1}', ATTENTION
  (gradient,), (query, key, value) = _at(
    of_image, image, [(*block, 'out')], [(*block, n) for n in ('query', 'key', 'value')]
  )
  query, key = (x.reshape(*x.shape[:2], -1) for x in (query, key))
  similarity = jnp.einsum('bd,bnd->bn', normalised(query[:, 0]), normalised(key))
  patches = similarity[:, 1:]
  low, high = patches.min(1, keepdims=True), patches.max(1, keepdims=True)
  similarity = (similarity - low) / jnp.maximum(high - low, 1e-12)
  return nn.relu(jnp.einsum('bak,bnak->bn', gradient[:, 0], value) * similarity)


def _at(of_image, image: Array, probed: list[Path], seen: list[Path] | None = None):
  """Returns the gradients at the inputs of modules, and values of others.

  Args:
    probed: the modules at whose input to take the gradient of the cosines.
    seen: the modules whose values are returned; None for `probed`.
  """

  def total(probes: Mapping[Path, Array]) -> tuple[Array, dict]:
    found = _Seen(probes)
    return of_image(image, found).sum(), found.values

  shapes = jax.eval_shape(total, {})[1]
  probes = {path: jnp.zeros_like(shapes[path]) for path in probed}
  gradients, values = jax.grad(total, has_aux=True)(probes)
  return [gradients[p] for p in probed], [values[p] for p in seen or probed]


class _Seen:
  """Applies a model, adds probes to the inputs of modules, and keeps values.

  A probe of zeros changes nothing; its gradient is that of the input.

  Attributes:
    values: by path, the input of blocks and of `out`, the output of other modules.
  """

  def __init__(self, probes: Mapping[Path, Array]):
    self._probes = probes
    self.values: dict[Path, Array] = {}

  def apply(self, model: CLIP, params: Any, x: Array, method) -> Array:
    with nn.intercept_methods(self._intercept):
      return _apply(model, params, x, method)

  def _intercept(self, method, args, kwargs, context):
    path = context.module.path
    if context.method_name != '__call__' or len(path) < 2:
      return method(*args, **kwargs)
    if path in self._probes:
      args = (args[0] + self._probes[path], *args[1:])
    result = method(*args, **kwargs)
    is_input = path[-1] == 'out' or path[-1].startswith('block_')
    self.values[path] = args[0] if is_input else result
    return result


def _cosines(
  model: CLIP,
  params: Any,
  text_features: Float[Array, 'B E'],
  image: Float[Array, 'B H W 3'],
  seen: _Seen | None = None,
) -> Float[Array, 'B']:
  apply = seen.apply if seen else _apply
  features = normalised(apply(model, params, image, CLIP.image_features))
  return jnp.sum(features * text_features, -1)


def _apply(model: CLIP, params: Any, x: Array, method) -> Array:
  return model.apply({'params': params}, x, method=method)


def scale_each(maps: Float[Array, 'B H W']) -> Float[Array, 'B H W']:
  """Scales each map to [0, 1] by its own minimum and maximum; a constant one to 0."""
  low, high = (f(maps, axis=(1, 2), keepdims=True) for f in (jnp.min, jnp.max))
  return (maps - low) / jnp.maximum(high - low, jnp.finfo(maps.dtype).tiny)
