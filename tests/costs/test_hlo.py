"""Bytes and collectives of handwritten programs and of one compiled for 8 devices."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from rahf.costs.hlo import Collective, Program, payload_bytes
from rahf.runtime import sharding

# As printed by the TPU compiler: tiles in the layouts, S(1) for on-chip memory, an
# asynchronous all-gather, a counted loop.
TEXT = """HloModule jit_step, is_scheduled=true

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[]{:T(128)} parameter(0)
  %y = f32[]{:T(128)} parameter(1)
  ROOT %sum = f32[]{:T(128)} add(%x, %y)
}

%fused (p: f32[8,128]) -> f32[8,128] {
  %p = f32[8,128]{1,0:T(8,128)} parameter(0)
  %inside = f32[8,128]{1,0:T(8,128)} exponential(%p)
  ROOT %reduced = f32[8,128]{1,0:T(8,128)} all-reduce(%inside), to_apply=%add
}

%body (state: (s32[], f32[8,128])) -> (s32[], f32[8,128]) {
  %state = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%state), index=0
  %v = f32[8,128]{1,0:T(8,128)} get-tuple-element(%state), index=1
  %w = f32[8,128]{1,0:T(8,128)} fusion(%v), kind=kLoop, calls=%fused, metadata={op="(("}
  ROOT %next = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) tuple(%i, %w)
}

%condition (state.1: (s32[], f32[8,128])) -> pred[] {
  %limit = s32[]{:T(128)} constant(5)
  %state.1 = (s32[]{:T(128)}, /*index=1*/f32[8,128]{1,0:T(8,128)}) parameter(0)
  %i.1 = s32[]{:T(128)} get-tuple-element(%state.1), index=0
  ROOT %less = pred[]{:T(512)} compare(%i.1, %limit), direction=LT
}

ENTRY %main (a: bf16[4,128], b: f32[8,128]) -> f32[8,128] {
  %a = bf16[4,128]{1,0:T(4,128)(2,1)} parameter(0)
  %b = f32[8,128]{1,0:T(8,128)} parameter(1)
  %zero = s32[]{:T(128)} constant(0)
  %start = (bf16[4,128]{1,0}, bf16[32,128]{1,0}) all-gather-start(%a), dimensions={0}
  %done = bf16[32,128]{1,0:T(8,128)} all-gather-done(%start)
  %near = f32[8,128]{1,0:T(8,128)S(1)} copy(%b)
  %both = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) tuple(%zero, %near)
  %loop = (s32[], f32[8,128]{1,0}) while(%both), body=%body, condition=%condition
  ROOT %out = f32[8,128]{1,0:T(8,128)} get-tuple-element(%loop), index=1
}
"""


@pytest.mark.parametrize(
  ('shape', 'size'),
  [
    ('f32[]', 4),
    ('bf16[8,16]{1,0:T(8,128)(2,1)}', 256),
    ('(s32[], /*index=1*/pred[3]{0}, f8e4m3fn[7])', 4 + 3 + 7),
    ('s4[9]', 4),
    ('token[]', 0),
  ],
)
def test_payload_bytes(shape, size):
  assert payload_bytes(shape) == size


def test_arrays_in_on_chip_memory_can_be_excluded():
  shape = '(f32[2]{0:T(128)S(1)}, f32[3]{0:T(128)})'
  assert payload_bytes(shape) == 20
  assert payload_bytes(shape, on_chip=False) == 12


def test_bytes_of_a_program():
  array, gathered = 4 * 8 * 128, 2 * 32 * 128
  moved = (2 * 128 * 4 + gathered) + 2 * 128 * 4  # all-gather-start
  moved += array  # The copy reads; its result stays on the chip.
  moved += 5 * 2 * array  # The fusion reads and writes, five times.
  moved += 5 * (4 + 4 + 1)  # The loop's comparison.
  assert Program(TEXT).bytes_moved() == moved


def test_collectives_of_a_program():
  assert Program(TEXT).collectives() == [
    Collective('all-reduce', 5, 5 * 4 * 8 * 128),
    Collective('all-gather', 1, 2 * 32 * 128),
  ]


def test_a_compiled_loop():
  """Each of four iterations sums 16 numbers per device."""
  mesh = sharding.make_mesh(dict(data=8, fsdp=1, tensor=1))
  split = NamedSharding(mesh, PartitionSpec('data'))

  def step(x):
    def round_(total, scale):
      return total + jnp.cos(x * scale * total.mean()).sum(0), None

    return jax.lax.scan(round_, jnp.zeros(16), jnp.arange(4.0))[0]

  program = jax.jit(step, in_shardings=split, out_shardings=sharding.replicated(mesh))
  text = program.lower(jnp.ones((8, 16))).compile().as_text()
  (found,) = Program(text).collectives()
  assert found == Collective('all-reduce', 4, 4 * 16 * 4)


SLICES = """HloModule jit_slices

%read (p: f32[64,128], i: s32[]) -> f32[1,128] {
  %p = f32[64,128]{1,0} parameter(0)
  %i = s32[] parameter(1)
  %c = s32[] constant(0)
  %row = f32[1,128]{1,0} dynamic-slice(%p, %i, %c), dynamic_slice_sizes={1,128}
  ROOT %twice = f32[1,128]{1,0} add(%row, %row)
}

%write (q: f32[64,128], r: f32[1,128], j: s32[]) -> f32[64,128] {
  %j = s32[] parameter(2)
  %q = f32[64,128]{1,0} parameter(0)
  %r = f32[1,128]{1,0} parameter(1)
  %d = s32[] constant(0)
  ROOT %new = f32[64,128]{1,0} dynamic-update-slice(%q, %r, %j, %d)
}

ENTRY %main (a: f32[64,128], n: s32[]) -> f32[64,128] {
  %a = f32[64,128]{1,0} parameter(0)
  %n = s32[] parameter(1)
  %x = f32[1,128]{1,0} fusion(%a, %n), kind=kLoop, calls=%read
  ROOT %y = f32[64,128]{1,0} fusion(%a, %x, %n), kind=kLoop, calls=%write
}
"""


def test_only_the_slice_of_an_array_is_moved():
  row, number = 4 * 128, 4
  # Read and written; then read, and read and replaced as a whole.
  read, write = 2 * row + number, 3 * row + number
  assert Program(SLICES).bytes_moved() == read + write
  # As separate instructions, slices are moved twice.
  text = SLICES.replace(
    'fusion(%a, %n), kind=kLoop, calls=%read', 'dynamic-slice(%a, %n)'
  )
  assert Program(text).bytes_moved() == 2 * row + write


def test_slices_are_found_in_fusions_of_fusions():
  inner = SLICES[SLICES.index('%read') : SLICES.index('%write')]
  outer = """%outer (v: f32[8,8,128], w: s32[]) -> f32[1,128] {
  %v = f32[8,8,128]{2,1,0} parameter(0)
  %w = s32[] parameter(1)
  %flat = f32[64,128]{1,0} bitcast(%v)
  ROOT %inner = f32[1,128]{1,0} fusion(%flat, %w), kind=kLoop, calls=%read
}

"""
  main = """ENTRY %main (a: f32[8,8,128], n: s32[]) -> f32[1,128] {
  %a = f32[8,8,128]{2,1,0} parameter(0)
  %n = s32[] parameter(1)
  ROOT %x = f32[1,128]{1,0} fusion(%a, %n), kind=kLoop, calls=%outer
}
"""
  row, number = 4 * 128, 4
  assert Program(inner + outer + main).bytes_moved() == 2 * row + number
  whole = (inner + outer + main).replace('dynamic-slice(%p, %i, %c)', 'reduce(%p, %c)')
  assert Program(whole).bytes_moved() == 64 * row + row + number


def test_asynchronous_copies_count_once():
  text = """ENTRY %main (a: f32[64,128]) -> f32[16,128] {
  %a = f32[64,128]{1,0} parameter(0)
  %b = (f32[64,128]{1,0:S(1)}, f32[64,128]{1,0}, u32[]) copy-start(%a)
  %near = f32[64,128]{1,0:S(1)} copy-done(%b)
  %c = ((f32[64,128]{1,0}), f32[16,128]{1,0:S(1)}, s32[]) slice-start(%a)
  %part = f32[16,128]{1,0:S(1)} slice-done(%c)
  %sum = f32[16,128]{1,0:S(1)} add(%part, %part)
  %e = (f32[16,128]{1,0}, f32[16,128]{1,0:S(1)}, u32[]) copy-start(%sum)
  ROOT %far = f32[16,128]{1,0} copy-done(%e)
}
"""
  row = 4 * 128
  assert Program(text).bytes_moved() == (64 + 16 + 16) * row
