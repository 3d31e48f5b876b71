"""Equal modules in a loop give what they give written out."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from rahf.models.repetition import in_turn, side_by_side
from rahf.runtime.tree import by_path

WIDTH = 4


class Layer(nn.Module):
  """Adds a dense layer's output to its input, and the layer's own input."""

  @nn.compact
  def __call__(self, x, own=0.0):
    y = nn.Dense(WIDTH, bias_init=nn.initializers.normal(1.0))(x)
    return x + nn.Dropout(0.5, deterministic=not self.has_rng('dropout'))(y) + own


class Stack(nn.Module):
  """Layers in turn, and their outputs for the result side by side."""

  layers: int = 3
  loop: bool = False
  remat: bool = False

  @nn.compact
  def __call__(self, x):
    layers = [Layer(name=f'layer_{i}') for i in range(self.layers)]
    x = in_turn(
      lambda layer, x, own: layer(jnp.sin(x), own),
      layers,
      x,
      [jnp.full(WIDTH, float(i)) for i in range(self.layers)],
      loop=self.loop,
      remat=self.remat,
    )
    return side_by_side(layers, [x] * self.layers, loop=self.loop)


X = np.random.default_rng(0).standard_normal((2, WIDTH)).astype(np.float32)
VARIABLES = Stack().init(jax.random.key(0), X)


@pytest.mark.parametrize('remat', [False, True])
@pytest.mark.parametrize('dropout', [False, True])
def test_values_and_gradients(remat, dropout):
  rngs = {'dropout': jax.random.key(1)} if dropout else {}

  def loss(variables, stack):
    y = stack.apply(variables, X, rngs=rngs)
    return jnp.sin(y).sum(), y

  expected = jax.value_and_grad(loss, has_aux=True)(VARIABLES, Stack())
  found = jax.value_and_grad(loss, has_aux=True)(VARIABLES, Stack(3, True, remat))
  compare = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
  jax.tree.map(compare, found, expected)


def test_written_out():
  """The formula, without dropout."""
  layers = [VARIABLES['params'][f'layer_{i}']['Dense_0'] for i in range(3)]
  x = X
  for number, dense in enumerate(layers):
    x = np.sin(x) @ dense['kernel'] + dense['bias'] + np.sin(x) + number
  expected = [x + x @ dense['kernel'] + dense['bias'] for dense in layers]
  for loop in (False, True):
    found = Stack(3, loop).apply(VARIABLES, X)
    np.testing.assert_allclose(found, np.stack(expected), rtol=1e-5)


def test_each_layer_drops_its_own_values():
  """All have the same parameters here."""
  first = VARIABLES['params']['layer_0']
  same = {'params': {f'layer_{i}': first for i in range(3)}}
  for loop in (False, True):
    dropped = Stack(3, loop).apply(same, X, rngs={'dropout': jax.random.key(1)})
    assert not np.allclose(dropped[0], dropped[1])


def test_parameters_have_the_same_names():
  looped = Stack(3, True).init(jax.random.key(0), X)
  found, expected = by_path(looped['params']), by_path(VARIABLES['params'])
  assert found.keys() == expected.keys()
  for path, value in expected.items():
    np.testing.assert_array_equal(found[path], value)


def test_a_loop_is_compiled_once():
  def products(layers: int, *, loop: bool) -> int:
    stack = Stack(layers, loop)
    variables = stack.init(jax.random.key(0), X)
    return jax.jit(stack.apply).lower(variables, X).as_text().count('dot_general')

  assert products(3, loop=True) == products(9, loop=True) == 2
  assert products(9, loop=False) == 18


def test_no_modules():
  assert in_turn(lambda *_: None, [], X, loop=True) is X
