"""Programs that do not fit into memory are refused before they run."""

import math
import pathlib

import jax
import jax.numpy as jnp
import pytest

from rahf.errors import InputError
from rahf.runtime import device_memory


@pytest.mark.skipif(not pathlib.Path('/proc/meminfo').exists(), reason='Linux only')
def test_this_machine_says_what_is_free():
  assert 2**20 < device_memory.free_bytes(jax.devices('cpu')[0]) < 2**50


def test_a_program_that_does_not_fit():
  device = jax.devices('cpu')[0]
  side = 2**20  # Its square has 4 TiB.
  outer = jax.jit(lambda x: jnp.sort(x[:, None] + x)[0])
  program = outer.lower(jax.ShapeDtypeStruct((side,), jnp.float32)).compile()
  with pytest.raises(
    InputError, match=r'not enough memory: .* are needed, but .*; try'
  ):
    device_memory.check_program(program, device, 'try less')
  small = outer.lower(jax.ShapeDtypeStruct((8,), jnp.float32)).compile()
  device_memory.check_program(small, device, 'try less')


def test_an_unknown_limit_refuses_nothing(monkeypatch):
  monkeypatch.setattr(device_memory, 'free_bytes', lambda device: math.nan)
  device_memory.check_bytes(2.0**60, jax.devices('cpu')[0], 'try less')
