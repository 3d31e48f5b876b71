"""Compiles a program and measures its costs per chip without running it."""

import contextlib
import dataclasses
import math
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

import jax
from jax.sharding import Mesh

from rahf.costs import work
from rahf.costs.chips import CHIPS, Chip
from rahf.costs.hlo import Collective, Program

# XLA's warning about resharding, and its error messages for insufficient memory.
_RESHARDING = 'nvoluntary full rematerialization'
_OVERFLOW = re.compile(
  r'Used ([\d.]+)([KMG]) of ([\d.]+)([KMG])'
  r'|\(([\d.]+)([KMG])\) exceeds available HBM \(([\d.]+)([KMG])\)'
)
_UNITS = {'K': 2**10, 'M': 2**20, 'G': 2**30}


@dataclasses.dataclass(frozen=True)
class Costs:
  """Costs of one program per chip; NaN where unknown.

  Attributes:
    peak: bytes of memory needed for arguments, temporaries, and outputs that do not
      reuse the arguments' memory.
    limit: bytes of memory available.
    flops: of matrix products and convolutions, split evenly over the chips.
    resharding: how often the compiler could change a sharding only by copying the whole
      array to every chip.
    seconds: compile time.
    arguments, temporaries, outputs: the parts of the peak, in bytes. These and the
      following are unknown for a program that does not fit.
    bytes_moved: between memory and compute units.
    collectives: exchanges with other chips.
  """

  peak: float
  limit: float
  flops: float
  resharding: int
  seconds: float
  arguments: float = math.nan
  temporaries: float = math.nan
  outputs: float = math.nan
  bytes_moved: float = math.nan
  collectives: tuple[Collective, ...] = ()

  @property
  def exchanged(self) -> float:
    """Bytes that a chip exchanges with others, NaN if unknown."""
    known = not math.isnan(self.bytes_moved)
    return sum(c.bytes for c in self.collectives) if known else math.nan

  @property
  def fits(self) -> bool:
    """Whether the program fits into memory; True if unknown."""
    return not self.peak > self.limit

  def times(self, chip: Chip) -> tuple[float, float, float]:
    """Returns the seconds of FLOPs, memory and collectives at the chip's rates."""
    return (
      self.flops / chip.flops,
      self.bytes_moved / chip.bandwidth,
      self.exchanged / chip.interconnect,
    )


def measure(function: Callable, args: tuple, mesh: Mesh, *, loop_trips: int) -> Costs:
  """Compiles a jitted function for a mesh, whose devices need not be present.

  Args:
    args: shapes with their shardings.
    loop_trips: assumed number of iterations of `while_loop`s.
  """
  device = mesh.devices.flat[0]
  total = work.total(work.count(function, *args, loop_trips=loop_trips))
  lowered = function.trace(*args).lower(lowering_platforms=(device.platform,))
  started = time.perf_counter()
  try:
    with captured_stderr() as log:
      compiled, overflow = _compile(lowered)
  except jax.errors.JaxRuntimeError as error:
    error.add_note(''.join(log))  # It may explain the error.
    raise
  common = {
    'flops': total.flops / mesh.size,
    'resharding': ''.join(log).count(_RESHARDING),
    'seconds': time.perf_counter() - started,
  }
  if compiled is None:
    needed, limit = overflow
    return Costs(peak=needed, limit=limit, **common)
  memory = compiled.memory_analysis()
  outputs = memory.output_size_in_bytes - memory.alias_size_in_bytes
  program = Program(compiled.as_text())
  return Costs(
    peak=memory.argument_size_in_bytes + memory.temp_size_in_bytes + outputs,
    limit=memory_limit(device),
    arguments=memory.argument_size_in_bytes,
    temporaries=memory.temp_size_in_bytes,
    outputs=outputs,
    bytes_moved=program.bytes_moved(),
    collectives=tuple(program.collectives()),
    **common,
  )


def memory_limit(device: jax.Device) -> float:
  """Returns the bytes of device memory available to a program; NaN if unknown.

  On GPUs, JAX reserves only a part (XLA_PYTHON_CLIENT_MEM_FRACTION).
  """
  if device in jax.devices():
    return (device.memory_stats() or {}).get('bytes_limit', math.nan)
  chip = CHIPS.get(device.device_kind)
  return chip.memory if chip else math.nan


def _compile(lowered) -> tuple[jax.stages.Compiled | None, tuple[float, float]]:
  """Returns the program, or None and (bytes needed, limit) if it does not fit."""
  try:
    return lowered.compile(), (math.nan, math.nan)
  except jax.errors.JaxRuntimeError as error:
    if not (found := _OVERFLOW.search(str(error))):
      raise
    needed, unit, limit, limit_unit = filter(None, found.groups())
    return None, (float(needed) * _UNITS[unit], float(limit) * _UNITS[limit_unit])


@contextlib.contextmanager
def captured_stderr() -> Iterator[list[str]]:
  """Collects what is written to stderr, including by native code such as compilers."""
  log: list[str] = []
  sys.stderr.flush()
  original = os.dup(2)
  with tempfile.TemporaryFile('w+', errors='replace') as file:
    os.dup2(file.fileno(), 2)
    try:
      yield log
    finally:
      os.dup2(original, 2)
      os.close(original)
      file.seek(0)
      log.append(file.read())
