"""Attention against its formula, computed at once, in parts, and by the kernel."""

import functools
import math
import re

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rahf.costs import work
from rahf.costs.program import measure
from rahf.models import attention, attention_kernel
from rahf.models.attention import attend, attend_one
from rahf.precompile import find_devices
from rahf.runtime.sharding import AXES, LOGICAL_AXIS_RULES

RNG = np.random.default_rng(0)
BATCH, QUERIES, KEYS, HEADS, WIDTH = 8, 5, 7, 4, 3
SCALE = 0.25


@pytest.fixture(params=['at once', 'in parts', 'kernel'])
def way(request, monkeypatch):
  """Takes one of the ways at any size."""
  monkeypatch.setattr(attention, 'LARGE', 2**40 if request.param == 'at once' else 0)
  if request.param == 'kernel':
    use_kernel(monkeypatch)


def use_kernel(monkeypatch):
  """Runs the kernel for TPUs, as JAX interprets it elsewhere."""

  def interpreted(scale, *operands):
    return attention_kernel.attend(scale, True, *operands)

  monkeypatch.setattr(attention, 'attend_in_parts', interpreted)


def operands(dtype: str = 'float32') -> tuple:
  shapes = [(BATCH, length, HEADS, WIDTH) for length in (QUERIES, KEYS, KEYS)]
  shapes.append((1, HEADS, QUERIES, KEYS))
  return tuple(jnp.asarray(RNG.standard_normal(shape), dtype) for shape in shapes)


def random_mask(*shape: int):
  mask = RNG.random(shape) < 0.5
  mask[..., 0] = True
  return jnp.asarray(mask)


MASKS = {
  'none': None,
  'of keys': random_mask(BATCH, 1, 1, KEYS),
  'of queries and keys': random_mask(1, 1, QUERIES, KEYS),
  'of all': random_mask(BATCH, 1, QUERIES, KEYS),
}


def by_formula(query, key, value, bias, mask):
  logits = jnp.einsum('bthk,bshk->bhts', query, key) * SCALE
  if bias is not None:
    logits += bias
  weights = jnp.exp(logits) * (1 if mask is None else mask)
  weights /= weights.sum(-1, keepdims=True)
  return jnp.einsum('bhts,bshk->bthk', weights, value)


@pytest.mark.usefixtures('way')
@pytest.mark.parametrize('mask', MASKS.values(), ids=MASKS)
@pytest.mark.parametrize('biased', [True, False], ids=['biased', 'unbiased'])
def test_values_and_gradients(mask, biased):
  *arrays, bias = operands()
  arrays = (*arrays, bias) if biased else tuple(arrays)
  dy = RNG.standard_normal(arrays[0].shape).astype(np.float32)

  def loss(function, *arrays):
    query, key, value, bias = (*arrays, None)[:4]
    return (function(query, key, value, bias) * dy).sum()

  def ours(query, key, value, bias):
    return attend(query, key, value, scale=SCALE, bias=bias, mask=mask)

  def expected(query, key, value, bias):
    return by_formula(query, key, value, bias, mask)

  places = tuple(range(1, 1 + len(arrays)))
  found, wanted = (
    jax.value_and_grad(loss, argnums=places)(function, *arrays)
    for function in (ours, expected)
  )
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), found, wanted)


def heads_first(*arrays):
  return tuple(array.swapaxes(1, 2) for array in arrays)


@pytest.mark.parametrize(('dtype', 'atol'), [('float32', 1e-5), ('bfloat16', 2e-2)])
@pytest.mark.parametrize('mask', ['none', 'of keys'])
@pytest.mark.parametrize('biased', [True, False], ids=['biased', 'unbiased'])
def test_a_single_query_as_in_decoding(mask, biased, dtype, atol):
  query, key, value, bias = operands(dtype)
  query = query[:, :1]
  bias = bias[:, :, :1] if biased else None
  given = {'bias': bias, 'mask': MASKS[mask]}
  found = attend_one(query, *heads_first(key, value), scale=SCALE, **given)
  assert found.dtype == dtype
  arrays = (array.astype(jnp.float32) for array in (query, key, value))
  expected = by_formula(*arrays, **given)
  np.testing.assert_allclose(found.astype(jnp.float32), expected, atol=atol)


def test_decoding_does_not_copy_keys_and_values_at_each_step():
  query, *memory, _ = operands()

  @jax.jit
  def decode(query, *memory):
    def step(_, query):
      return attend_one(query, *memory, scale=SCALE)

    return jax.lax.fori_loop(0, 4, step, query)

  program = decode.lower(query[:, :1], *heads_first(*memory)).compile().as_text()
  moved = re.findall(r'f32\[([\d,]+)\]\S* (?:copy|transpose)\(', program)
  sizes = [math.prod(map(int, shape.split(','))) for shape in moved]
  assert memory[0].size not in sizes


@pytest.mark.usefixtures('way')
def test_an_odd_batch():
  query, key, value, bias = operands()
  query, key, value = (array[:3] for array in (query, key, value))
  found = attend(query, key, value, scale=SCALE, bias=bias)
  expected = by_formula(query, key, value, bias, None)
  np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.usefixtures('way')
@pytest.mark.parametrize('batch', [1, 3])
def test_gradients_in_bfloat16_and_of_odd_batches(batch):
  query, key, value, bias = operands()
  arrays = query[:batch], key[:batch], value[:batch], bias
  mask = MASKS['of keys'][:batch]

  def loss(function, *arrays):
    return jnp.sum(jnp.sin(function(*arrays)), dtype=jnp.float32)

  def ours(query, key, value, bias):
    return attend(query, key, value, scale=SCALE, bias=bias, mask=mask)

  expected = jax.grad(
    lambda *arrays: loss(lambda *x: by_formula(*x, mask), *arrays), (0, 1, 2, 3)
  )(*arrays)
  rounded = [array.astype(jnp.bfloat16) for array in arrays]
  for operand, tolerance in ((arrays, 2e-5), (rounded, 0.05)):
    found = jax.grad(functools.partial(loss, ours), (0, 1, 2, 3))(*operand)
    for gradient, array, wanted in zip(found, operand, expected, strict=True):
      assert gradient.dtype == array.dtype
      np.testing.assert_allclose(
        gradient.astype(jnp.float32), wanted, atol=tolerance * float(abs(wanted).max())
      )


@pytest.mark.usefixtures('way')
def test_large_logits_do_not_overflow():
  query = jnp.full((2, 1, 1, 1), 200.0)
  key = jnp.array([1.0, 0.5] * 2).reshape(2, 2, 1, 1)
  found = attend(query, key, key, scale=1.0)
  np.testing.assert_array_equal(found.ravel(), [1, 1])


@pytest.mark.usefixtures('way')
def test_logits_are_float32_under_bfloat16():
  query = jnp.array([16, 1], jnp.bfloat16).reshape(1, 1, 1, 2)
  # The logits are 256 and 257; bfloat16 has no 257 and would weigh both alike.
  key = jnp.array([[16, 0], [16, 1]], jnp.bfloat16).reshape(1, 2, 1, 2)
  value = jnp.array([[0, 0], [1, 1]], jnp.bfloat16).reshape(1, 2, 1, 2)
  found = attend(query, key, value, scale=1.0)
  assert found.dtype == jnp.bfloat16
  expected = 1 / (1 + np.exp(-1.0))
  np.testing.assert_allclose(found.astype(jnp.float32), expected, atol=4e-3)


@pytest.mark.usefixtures('way')
def test_a_fully_masked_query_gets_the_mean():
  query, key, value, _ = operands()
  mask = jnp.ones((BATCH, 1, 1, KEYS), bool).at[1].set(False)

  def loss(value):
    return attend(query, key, value, scale=SCALE, mask=mask)[1].sum()

  found, gradient = jax.value_and_grad(loss)(value)
  np.testing.assert_allclose(found, QUERIES * value[1].mean(0).sum(), rtol=1e-5)
  np.testing.assert_allclose(gradient[1], QUERIES / KEYS, rtol=1e-5)


@pytest.mark.parametrize('kernel', [False, True])
@pytest.mark.parametrize('shape', [(8, 1, 1), (2, 2, 2), (1, 2, 4)])
def test_on_a_mesh(shape, kernel, monkeypatch):
  """Every device computes its own examples and heads, and bias gradients add up."""
  monkeypatch.setattr(attention, 'LARGE', 0)
  if kernel:
    use_kernel(monkeypatch)
  mask = MASKS['of keys']

  def loss(*arrays):
    y = attend(*arrays[:3], scale=SCALE, bias=arrays[3], mask=mask)
    return jnp.sin(y).sum()

  gradient = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2, 3)))
  arrays = operands()
  expected = jax.value_and_grad(
    lambda *arrays: jnp.sin(by_formula(*arrays, mask)).sum(), argnums=(0, 1, 2, 3)
  )(*arrays)
  mesh = jax.make_mesh(shape, AXES, (jax.sharding.AxisType.Auto,) * 3)
  with jax.set_mesh(mesh), nn.logical_axis_rules(LOGICAL_AXIS_RULES):
    found = gradient(*arrays)
    program = str(jax.make_jaxpr(loss)(*arrays))
  spec = "P(('data', 'fsdp'), None, 'tensor', None)"
  assert spec in program or spec.replace("', '", "','") in program
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), found, expected
  )


@pytest.mark.parametrize(
  'mask', [MASKS['of keys'], MASKS['of all']], ids=['keys', 'all']
)
def test_the_kernel_takes_queries_in_parts(mask, monkeypatch):
  """As it does if they are many: here 400, of which 256 are cut in two again."""
  monkeypatch.setattr(attention_kernel, 'BIAS_VALUES', 256 * KEYS)
  monkeypatch.setattr(attention_kernel, 'LOGITS', 128 * KEYS)
  _, key, value, _ = operands()
  query = jnp.asarray(RNG.standard_normal((BATCH, 400, HEADS, WIDTH)), jnp.float32)
  bias = jnp.asarray(RNG.standard_normal((1, HEADS, 400, KEYS)), jnp.float32)
  if mask.shape[2] > 1:
    mask = jnp.tile(mask, (1, 1, 400 // QUERIES, 1))

  def ours(*arrays):
    y = attention_kernel.attend(SCALE, True, *arrays, mask)
    return jnp.sin(y).sum()

  def expected(*arrays):
    return jnp.sin(by_formula(*arrays, mask)).sum()

  arrays = query, key, value, bias
  places = tuple(range(4))
  found, wanted = (jax.value_and_grad(f, places)(*arrays) for f in (ours, expected))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-5), found, wanted
  )


@pytest.mark.parametrize('topology', ['v5e:2x2', 'v5p:2x2x1', 'v6e:2x2'])
def test_the_kernel_for_tpus_moves_operands_and_gradients_only(topology):
  batch, tokens, heads, width = 8, 640, 4, 64
  types = (jax.sharding.AxisType.Auto,) * 3
  mesh = Mesh(np.reshape(find_devices(topology)[0], (1, 1, 1)), AXES, types)
  place = NamedSharding(mesh, PartitionSpec())

  def array(dtype, *shape):
    return jax.ShapeDtypeStruct(shape, dtype, sharding=place)

  one = array('bfloat16', batch, tokens, heads, width)
  bias = array('float32', 1, heads, tokens, tokens)
  mask = array('bool', batch, 1, 1, tokens)

  def gradients(query, key, value, dy, bias, mask):
    def y(*arrays):
      return attend(*arrays[:3], scale=1.0, bias=arrays[3], mask=mask)

    return jax.vjp(y, query, key, value, bias)[1](dy)

  with jax.set_mesh(mesh):
    costs = measure(
      jax.jit(gradients), (one, one, one, one, bias, mask), mesh, loop_trips=1
    )
  assert costs.bytes_moved < 1.01 * (7 * 2 * one.size + 2 * 4 * bias.size)


@pytest.mark.parametrize('queries', [1, 2, 129, 1025])
def test_any_number_of_queries_compiles_for_tpus(queries, monkeypatch):
  """A ViT with a class token has 1,025 of them at 512 px, one more than eight parts."""
  monkeypatch.setattr(attention, 'LARGE', 0)
  query, key = (
    jax.ShapeDtypeStruct((2, length, 2, 64), jnp.bfloat16) for length in (queries, 1025)
  )

  def loss(*arrays):
    return jnp.sum(attend(*arrays, scale=1.0), dtype=jnp.float32)

  traced = jax.jit(jax.grad(loss, (0, 1, 2))).trace(query, key, key)
  lowered = traced.lower(lowering_platforms=('tpu',)).as_text()
  assert ('tpu_custom_call' in lowered) == (queries > 1)


def test_logits_in_parts_do_not_count_as_traffic(monkeypatch):
  arrays = operands()

  def loss(*x):
    return attend(*x[:3], scale=1.0, bias=x[3]).sum()

  gradient = jax.value_and_grad(loss, (0, 1, 2))
  found = {}
  for large in (0, 2**40):
    monkeypatch.setattr(attention, 'LARGE', large)
    found[large] = work.total(work.count(lambda *x: gradient(*x), *arrays))
  forward = 2 * 2 * BATCH * HEADS * QUERIES * KEYS * WIDTH
  # Logits are computed again.
  assert found[2**40].flops == 3 * forward
  assert found[0].flops >= 3.5 * forward
  logits = 4 * BATCH * HEADS * QUERIES * KEYS
  assert found[2**40].bytes > 6 * logits
  assert found[0].bytes < found[2**40].bytes


def test_parts_keep_no_logits_for_the_gradient(monkeypatch):
  shape = (4, 512, 4, 8)
  arrays = [jnp.ones(shape)] * 3

  def temporaries(large: int) -> int:
    monkeypatch.setattr(attention, 'LARGE', large)
    gradient = jax.grad(lambda *arrays: attend(*arrays, scale=1.0).sum(), (0, 1, 2))
    compiled = jax.jit(gradient).lower(*arrays).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  logits = 4 * 4 * 4 * 512 * 512
  assert temporaries(2**40) > 2 * logits
  assert temporaries(0) < logits


def test_shapes_in_signatures_are_checked():
  """The import hook of conftest.py is at work."""
  query = jnp.zeros((1, 2, 3, 4))
  with pytest.raises(jaxtyping.TypeCheckError, match='value'):
    attend(query, query, jnp.zeros((1, 5, 3, 4)), scale=1.0)
