"""Work of functions whose counts are known."""

import jax
import jax.numpy as jnp
import pytest

from rahf.costs import work


def array(*shape: int) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(shape, jnp.float32)


def total(function, *args, **options) -> float:
  return work.total(work.count(function, *args, **options)).flops


def convolve(x, kernel, **options):
  return jax.lax.conv_general_dilated(
    x, kernel, dimension_numbers=('NHWC', 'HWIO', 'NHWC'), **options
  )


def test_products():
  assert total(jnp.matmul, array(3, 5), array(5, 7)) == 2 * 3 * 5 * 7
  assert total(jnp.matmul, array(4, 3, 5), array(4, 5, 7)) == 4 * 2 * 3 * 5 * 7
  gradient = jax.grad(lambda x, y: (x @ y).sum(), argnums=(0, 1))
  # The gradient does not need the value.
  assert total(gradient, array(3, 5), array(5, 7)) == 4 * 105
  assert total(lambda x: jnp.sin(x) + x, array(100)) == 0


def test_convolutions_count_no_padding():
  def same(x, kernel):
    return convolve(x, kernel, window_strides=(1, 1), padding='SAME')

  def valid(x, kernel):
    return convolve(x, kernel, window_strides=(2, 2), padding='VALID')

  # Along an axis of 6, 3 taps use 6 x 3 pixels, 2 of which are outside.
  assert total(same, array(2, 6, 6, 3), array(3, 3, 3, 5)) == 2 * 2 * 16**2 * 3 * 5
  assert total(valid, array(2, 8, 8, 3), array(2, 2, 3, 5)) == 2 * 2 * 8**2 * 3 * 5


def test_zeros_between_pixels_do_not_count():
  def spread(x, kernel):
    return convolve(
      x, kernel, window_strides=(1, 1), padding=((1, 2), (1, 2)), lhs_dilation=(2, 2)
    )

  # An axis of 4 dilated to 7 and padded: 8 outputs, 3 taps; every even output sees
  # one pixel, every odd one two, except the last.
  x, kernel = array(1, 4, 4, 3), array(3, 3, 3, 5)
  assert total(spread, x, kernel) == 2 * (4 + 4 * 2 - 1) ** 2 * 3 * 5


@pytest.mark.parametrize('padding', ['SAME', 'VALID'])
def test_equals_xla(padding):
  def loss(x, kernel):
    y = convolve(x, kernel, window_strides=(1, 1), padding=padding)
    return (y.reshape(2, -1, 4) @ jnp.ones((4, 9))).sum()

  args = array(2, 9, 9, 3), array(3, 3, 3, 4)
  forward = jax.jit(lambda *x: loss(*x)).lower(*args).cost_analysis()['flops']
  ours = total(loss, *args)
  # XLA adds the sum at the end.
  assert ours <= forward <= 1.1 * ours


def test_loops_count_every_iteration():
  def scan(x):
    return jax.lax.scan(lambda x, _: (x @ x, None), x, length=10)[0]

  def loop(x):
    return jax.lax.while_loop(lambda x: x.sum() > 0, lambda x: x @ x, x)

  assert total(scan, array(4, 4)) == 10 * 2 * 4**3
  assert total(loop, array(4, 4), loop_trips=7) == 7 * 2 * 4**3


def test_what_no_result_needs_does_not_count():
  def product(x, y):
    return jax.lax.platform_dependent(x, y, default=lambda x, y: (x @ y, y))[1]

  assert total(product, array(3, 5), array(5, 7)) == 0


def test_recomputation_counts():
  def layer(x):
    return jnp.tanh(x @ x).sum()

  # With the value: without it, nothing needs the first computation.
  once = total(jax.value_and_grad(layer), array(4, 4))
  twice = total(jax.value_and_grad(jax.checkpoint(layer)), array(4, 4))
  assert twice == once + 2 * 4**3


def test_scopes_tell_the_parts_apart():
  @jax.jit
  def inner(x):
    with jax.named_scope('second'):
      return x @ x

  def model(x):
    with jax.named_scope('first'):
      x = x[:, :2] @ x[:2]
    with jax.named_scope('whole'):
      return inner(x)

  counts = work.count(model, array(4, 4))
  # float32: 4 x 2 and 2 x 4 read, 4 x 4 written.
  assert counts['first'] == (2 * 4 * 2 * 4, 4 * (8 + 8 + 16))
  assert {name for name in counts if 'second' in name and 'whole' in name}


def test_only_one_branch_counts():
  def product(x, y):
    return jax.lax.platform_dependent(
      x, y, cpu=jnp.matmul, default=lambda x, y: jnp.einsum('ij,jk->ik', x, y)
    )

  assert total(product, array(3, 5), array(5, 7)) == 2 * 3 * 5 * 7


def test_on_chip_values_cost_no_bytes():
  @jax.jit
  def on_chip_chain(x, y):
    return jax.lax.scan(lambda x, _: (x @ y, None), x, length=3)[0]

  counts = work.count(on_chip_chain, array(2, 4), array(4, 4))
  assert work.total(counts) == (3 * 2 * 2 * 4 * 4, 4 * (8 + 16 + 8))


def test_work_of_all_devices_counts():
  auto = (jax.sharding.AxisType.Auto,)
  mesh = jax.make_mesh((2,), ('data',), auto, devices=jax.devices()[:2])
  rows = jax.P('data')
  product = jax.shard_map(
    jnp.matmul, mesh=mesh, in_specs=(rows, jax.P()), out_specs=rows
  )
  assert total(product, array(4, 3), array(3, 5)) == 2 * 4 * 3 * 5
