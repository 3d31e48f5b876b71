"""The matrix product of dense layers against einsum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from rahf.models.cpu_kernels import dot_general, product

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
  ('axes', 'x', 'kernel', 'inputs'),
  [
    ('bni,io->bno', (2, 5, 3), (3, 4), 1),
    ('bni,io->bno', (2, 5, 4), (4, 3), 1),
    ('ni,io->no', (1, 3), (3, 1), 1),
    ('bni,ihk->bnhk', (2, 5, 3), (3, 2, 4), 1),
    ('bnhk,hko->bno', (2, 5, 2, 4), (2, 4, 3), 2),
  ],
)
def test_values_and_gradients(axes, x, kernel, inputs):
  x, kernel = (jnp.asarray(RNG.normal(size=s), jnp.float32) for s in (x, kernel))

  def loss(function, *arrays):
    return jnp.sin(function(*arrays)).sum()

  found, expected = (
    jax.value_and_grad(lambda *arrays, f=function: loss(f, *arrays), (0, 1))(x, kernel)
    for function in (
      lambda x, kernel: product(x, kernel, inputs),
      lambda x, kernel: jnp.einsum(axes, x, kernel),
    )
  )
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, expected
  )


@pytest.mark.parametrize('axis', [-1, (-2, -1)])
def test_dense_general_gives_what_it_gives_without(axis):
  x = jnp.asarray(RNG.normal(size=(2, 5, 2, 4)), jnp.float32)
  stock = nn.DenseGeneral((3, 2), axis)
  expected, params = stock.init_with_output(jax.random.key(0), x)
  layer = nn.DenseGeneral((3, 2), axis, dot_general=dot_general)
  np.testing.assert_allclose(layer.apply(params, x), expected, atol=1e-6)


def test_gradients_have_the_dtype_of_their_operands():
  x, kernel = jnp.ones((2, 3), jnp.bfloat16), jnp.ones((3, 4), jnp.bfloat16)
  gradients = jax.grad(lambda *arrays: product(*arrays).sum(), (0, 1))(x, kernel)
  assert [gradient.dtype for gradient in gradients] == [jnp.bfloat16] * 2
