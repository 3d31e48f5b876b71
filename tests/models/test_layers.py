"""Building blocks against closed forms and against Flax's own layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from rahf.errors import InputError
from rahf.models.layers import RMSNorm, activate, partitioned
from rahf.runtime.sharding import AXES, LOGICAL_AXIS_RULES

RNG = np.random.default_rng(0)


def test_rms_norm_divides_by_the_root_mean_square():
  norm = RMSNorm(epsilon=0.5, dtype=jnp.dtype('float32'))
  y = norm.apply({'params': {'scale': jnp.array([1.0, 2.0])}}, jnp.array([[3.0, 4.0]]))
  # The mean of 9 and 16 is 12.5.
  np.testing.assert_allclose(y, [[3 / 13**0.5, 8 / 13**0.5]], rtol=1e-6)


def test_rms_norm_takes_its_statistics_in_float32():
  norm = RMSNorm(epsilon=0.0, dtype=jnp.dtype('bfloat16'))
  # In bfloat16 a sum of ones stops growing at 256.
  x = jnp.ones((1, 1024), jnp.bfloat16)
  y = norm.apply({'params': {'scale': jnp.ones(1024)}}, x)
  assert y.dtype == jnp.bfloat16
  np.testing.assert_array_equal(y.astype(jnp.float32), 1.0)


def test_dense_general_has_its_axes_under_a_mesh():
  """Flax's own box fails there: the layer makes its kernel flat."""
  kernel_init = partitioned(nn.initializers.ones, 'embed', 'heads', None)
  layer = nn.DenseGeneral((8, 2), use_bias=False, kernel_init=kernel_init)
  mesh = jax.make_mesh((2, 2, 2), AXES, (jax.sharding.AxisType.Auto,) * 3)
  x = jnp.ones((1, 4))
  with jax.set_mesh(mesh), nn.logical_axis_rules(LOGICAL_AXIS_RULES):
    boxed = jax.jit(layer.init)(jax.random.key(0), x)
    kernel = boxed['params']['kernel']
    found = jax.jit(layer.apply)(nn.unbox(boxed), x)
  assert kernel.names == ('embed', 'heads', None)
  assert kernel.value.shape == (4, 8, 2)
  np.testing.assert_array_equal(found, np.full((1, 8, 2), 4))


def test_activations():
  x = jnp.array([-1.0, 0.0, 2.0])
  np.testing.assert_array_equal(activate('linear', x), x)
  np.testing.assert_array_equal(activate('relu', x), [0, 0, 2])
  tanh = 0.5 * x * (1 + jnp.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3)))
  np.testing.assert_allclose(activate('gelu', x), tanh, atol=1e-6)
  with pytest.raises(InputError, match=r"'swish'; choose from \['gelu', 'linear'"):
    activate('swish', x)
