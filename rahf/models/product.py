"""Matrix product whose gradient is also fast on CPUs.

The gradient by the kernel is the product of x and dy over all examples. XLA's compiler
for processors transposes the first of them, and computes again what made it. JAX puts
dy first and transposes the result; here the one of fewer columns comes first. An MLP's
gradient takes half to two thirds of the time.

Axis letters: N leading axes, I inputs, O outputs.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def product(
  x: Float[Array, '...'], kernel: Float[Array, '...'], inputs: int = 1
) -> Float[Array, '...']:
  """Multiplies the last axes of x with the first of the kernel, and adds up.

  Args:
    x: N I.
    kernel: I O.
    inputs: how many axes I are.

  Returns:
    N O.
  """
  return jnp.tensordot(x, kernel, inputs)


def _forward(x: Array, kernel: Array, inputs: int):
  return product(x, kernel, inputs), (x, kernel)


def _backward(inputs: int, saved: tuple[Array, Array], dy: Array):
  x, kernel = saved
  outputs = kernel.ndim - inputs
  dx = jnp.tensordot(
    dy, jnp.moveaxis(kernel, range(inputs), range(-inputs, 0)), outputs
  )
  x = x.reshape(-1, math.prod(kernel.shape[:inputs]))
  dy = dy.reshape(-1, math.prod(kernel.shape[inputs:]))
  if x.shape[1] <= dy.shape[1]:
    dkernel = _over_examples(x, dy)
  else:
    # Without the barrier the compiler would put x first again.
    dkernel = jax.lax.optimization_barrier(_over_examples(dy, x)).T
  return dx, dkernel.reshape(kernel.shape)


def _over_examples(a: Float[Array, 'N A'], b: Float[Array, 'N B']) -> Array:
  return jax.lax.dot_general(a, b, (((0,), (0,)), ((), ())))


product.defvjp(_forward, _backward)
