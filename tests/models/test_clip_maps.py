"""Gradients of CLIP's cosine against finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import clip_directory
from rahf.models import clip_maps
from rahf.models.attention import attend
from rahf.models.baselines import GRADIENTS, cosine
from rahf.models.clip import CLIP, init_params

CONFIG = clip_directory.CONFIG
MODEL = CLIP(CONFIG)
END = CONFIG.vocab_size - 1


@pytest.fixture(scope='module')
def params():
  return nn.unbox(init_params(CONFIG, jax.random.key(1)))


@pytest.fixture(scope='module')
def inputs():
  random = np.random.default_rng(0)
  image = random.standard_normal((2, 32, 32, 3)).astype(np.float32)
  text = random.integers(1, END - 1, (2, 12)).astype(np.int32)
  text[0, 5], text[1, 9] = END, END
  return jnp.asarray(image), jnp.asarray(text)


gradient_map = jax.jit(clip_maps.gradient_map, static_argnums=(0, 1))


def cosines(params, image, text):
  bound = MODEL.bind({'params': params})
  return cosine(bound, image, text)


@jax.jit
def input_gradient(params, image, text):
  return jax.grad(lambda x: cosines(params, x, text).sum())(image)


@pytest.mark.parametrize('kind', GRADIENTS)
def test_maps_fill_the_range(params, inputs, kind):
  heat = gradient_map(kind, MODEL, params, *inputs)
  assert heat.shape == (2, 32, 32)
  assert np.allclose(heat.min((1, 2)), 0)
  assert np.allclose(heat.max((1, 2)), 1)


def test_input_gradient_is_that_of_the_cosine(params, inputs):
  """The strongest pixel of the map is where a step changes the cosine most."""
  image, text = inputs
  gradient = input_gradient(params, image, text)
  heat = gradient_map('input_gradient', MODEL, params, image, text)
  expected = np.abs(gradient).max(-1)
  low, high = (f(expected, axis=(1, 2), keepdims=True) for f in (np.min, np.max))
  np.testing.assert_allclose(heat, (expected - low) / (high - low), atol=1e-5)
  signed = gradient_map('signed', MODEL, params, image, text)
  place = np.unravel_index(np.argmax(signed[0]), signed[0].shape)
  step = jnp.zeros_like(image).at[0, *place].set(0.05)
  values = jax.jit(cosines)
  before, after = (values(params, image + s * step, text)[0] for s in (-1, 1))
  assert after < before


@pytest.mark.parametrize('kind', ['grad_cam', 'grad_eclip'])
def test_token_maps_follow_their_definition(params, inputs, kind):
  """Recomputes the last block from its parts."""
  image, text = inputs

  @jax.jit
  def look(params):
    seen = clip_maps._Seen({})
    seen.apply(MODEL, params, image, CLIP.image_features)
    return {'/'.join(path): value for path, value in seen.values.items()}

  seen = {tuple(path.split('/')): value for path, value in look(params).items()}
  block = ('vision', 'block_1')
  attention = (*block, clip_maps.ATTENTION)
  names = ('query', 'key', 'value')
  query, key, value = (seen[*attention, name] for name in names)
  output = seen[*attention, 'out']
  np.testing.assert_allclose(
    output, attend(query, key, value, scale=8**-0.5), atol=1e-6
  )
  probed = block if kind == 'grad_cam' else (*attention, 'out')

  def total(probe):
    changed = clip_maps._Seen({probed: probe})
    features = changed.apply(MODEL, params, image, CLIP.image_features)
    texts = MODEL.apply({'params': params}, text, method=CLIP.text_features)
    lengths = [jnp.linalg.norm(x, axis=-1) for x in (features, texts)]
    return ((features * texts).sum(-1) / lengths[0] / lengths[1]).sum()

  gradient = jax.jit(jax.grad(total))(jnp.zeros_like(seen[probed]))
  if kind == 'grad_cam':
    tokens = seen[block][:, 1:]
    weights = gradient[:, 1:].mean(1)
    expected = np.maximum(np.einsum('bd,bnd->bn', weights, tokens), 0)
  else:
    flat = [x.reshape(2, -1, 16) for x in (query, key, value, gradient)]
    query, key, value, gradient = flat
    query, key = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (query, key))
    similarity = np.einsum('bd,bnd->bn', query[:, 0], key[:, 1:])
    low, high = similarity.min(1, keepdims=True), similarity.max(1, keepdims=True)
    values = np.einsum('bd,bnd->bn', gradient[:, 0], value[:, 1:])
    expected = np.maximum(values * (similarity - low) / (high - low), 0)
  expected = jax.image.resize(expected.reshape(2, 4, 4), (2, 32, 32), 'bilinear')
  found = gradient_map(kind, MODEL, params, image, text)
  np.testing.assert_allclose(found, clip_maps.scale_each(expected), atol=1e-4)


def test_word_relevance_is_attention_times_its_gradient(params, inputs, monkeypatch):
  """Scales one weight of one head: the derivative is attention times gradient."""
  image, text = inputs
  relevance = jax.jit(clip_maps.word_relevance, static_argnums=0)
  found = relevance(MODEL, params, image, text)
  assert found.shape == text.shape
  assert np.all(found[0, 6:] == 0)  # Nothing after the end.
  row, token, end = 0, 2, 5

  @jax.jit
  def scaled(size):
    """The cosine with the attention from the end to a token larger by a factor."""

    def weighted(query, key, value, *, scale, mask=None):
      logits = jnp.einsum('bqhk,bshk->bhqs', query, key) * scale
      if mask is not None:
        logits = jnp.where(mask, logits, -jnp.inf)
      weights = jax.nn.softmax(logits)
      if mask is not None:
        weights = weights.at[row, :, end, token].multiply(1 + size)
      return jnp.einsum('bhqs,bshk->bqhk', weights, value)

    monkeypatch.setattr('rahf.models.vit.attend', weighted)
    return cosines(params, image, text)[row]

  slope = (scaled(1e-2) - scaled(-1e-2)) / 2e-2
  # The sum over all heads and layers, of which `found` is the mean.
  expected = slope / (CONFIG.text.heads * CONFIG.text.layers)
  np.testing.assert_allclose(found[row, token], expected, rtol=0.02)
