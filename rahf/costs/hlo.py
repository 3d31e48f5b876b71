"""Counts bytes moved and collectives in a compiled program's HLO text.

XLA's own analysis counts a loop's body only once, however often it runs; with gradient
accumulation, the loop is most of the step.
"""

import dataclasses
import math
import re
from collections.abc import Iterator

BITS = {
  **{'pred': 8, 'token': 0, 's4': 4, 'u4': 4, 's8': 8, 'u8': 8, 's16': 16, 'u16': 16},
  **{'s32': 32, 'u32': 32, 's64': 64, 'u64': 64, 'bf16': 16, 'f16': 16, 'f32': 32},
  **{'f64': 64, 'c64': 64, 'c128': 128},
}
COLLECTIVES = (
  *('all-reduce', 'all-gather', 'reduce-scatter', 'all-to-all', 'collective-permute'),
  *('ragged-all-to-all', 'collective-broadcast'),
)
# They move no data themselves: they rename or regroup, or their parts are counted.
_FREE = frozenset(
  (
    *('parameter', 'constant', 'iota', 'partition-id', 'replica-id', 'after-all'),
    *('tuple', 'get-tuple-element', 'bitcast', 'opt-barrier', 'add-dependency'),
    *('while', 'conditional', 'call', 'async-start', 'async-update', 'async-done'),
    *('copy-start', 'slice-start', *(f'{kind}-done' for kind in COLLECTIVES)),
  )
)
# They read as many bytes as they write.
_SLICES = frozenset(('dynamic-slice', 'slice', 'gather'))
_ARRAY = re.compile(r'(\w+)\[([\d,]*)\](\{[^}]*\})?')
_ON_CHIP = re.compile(r'S\([1-9]\d*\)')
_COMPUTATION = re.compile(r'(ENTRY )?%?([\w.\-]+) \(.*\{$')
_INSTRUCTION = re.compile(r'\s+(?:ROOT )?%?([\w.\-]+) = ')
_OPCODE = re.compile(r' ?([\w\-]+)\(')
_NAME = re.compile(r'%([\w.\-]+)')
_CALLED = re.compile(r'(?:calls|to_apply|body|condition)=%?([\w.\-]+)')
_BRANCHES = re.compile(r'branch_computations=\{([^}]*)\}')
_TRIPS = re.compile(r'known_trip_count[^\d]*(\d+)')


@dataclasses.dataclass(frozen=True)
class Instruction:
  """One line: result, opcode, operands, and the rest of the line."""

  name: str
  shape: str
  opcode: str
  operands: tuple[str, ...]
  attributes: str


@dataclasses.dataclass(frozen=True)
class Collective:
  """All collectives of one kind in a program.

  Attributes:
    count: how many run.
    bytes: exchanged by one chip: for each collective, the larger of input and output.
  """

  kind: str
  count: int
  bytes: int


class Program:
  """One chip's share of a compiled program, from `compiled.as_text()`."""

  def __init__(self, text: str):
    self._lines: dict[str, str] = {}
    self._computations: dict[str, list[Instruction]] = {}
    self._entry = ''
    computation: list[Instruction] = []
    for line in text.splitlines():
      if header := _COMPUTATION.match(line):
        computation = self._computations.setdefault(header[2], [])
        if header[1]:
          self._entry = header[2]
      elif name := _INSTRUCTION.match(line):
        computation.append(_parse(name[1], line[name.end() :]))
    self._instructions = {
      instruction.name: instruction
      for instructions in self._computations.values()
      for instruction in instructions
    }

  def bytes_moved(self) -> int:
    """Returns the bytes that all instructions read from and write to the chip's memory.

    Excludes values within a fusion, arrays in on-chip memory, and the rest of an array
    of which only a slice is read or replaced. Loops that may end early count as run to
    their limit.
    """
    return sum(
      times * self._moved(i)
      for times, i in self._walk(self._entry, 1, into_fusions=False)
      if i.opcode not in _FREE
    )

  def collectives(self) -> list[Collective]:
    """Returns the collectives by kind, largest first."""
    found = {}
    for times, i in self._walk(self._entry, 1, into_fusions=True):
      kind = i.opcode.removesuffix('-start')
      if kind not in COLLECTIVES:
        continue
      sent = sum(map(self._payload, i.operands))
      received = payload_bytes(i.shape)
      if i.opcode.endswith('-start') and received > sent:
        received -= sent  # Its result includes its operands.
      before = found.get(kind, Collective(kind, 0, 0))
      found[kind] = Collective(
        kind, before.count + times, before.bytes + times * max(sent, received)
      )
    return sorted(found.values(), key=lambda collective: -collective.bytes)

  def _moved(self, instruction: Instruction) -> int:
    """Returns the bytes that one instruction reads and writes."""
    if instruction.opcode in _SLICES:
      return 2 * self._bytes(instruction.shape)
    if instruction.opcode == 'dynamic-update-slice':
      return 2 * self._operand_bytes(instruction.operands[1])
    if instruction.opcode in ('copy-done', 'slice-done'):
      (start,) = instruction.operands
      (source,) = self._instructions[start].operands
      # It reads no more of the source than it writes.
      read = min(self._operand_bytes(source), payload_bytes(instruction.shape))
      return read + self._bytes(instruction.shape)
    if instruction.opcode == 'fusion':
      return self._moved_by_fusion(instruction)
    read = sum(map(self._operand_bytes, instruction.operands))
    return read + self._bytes(instruction.shape)

  def _moved_by_fusion(self, fusion: Instruction) -> int:
    moved = self._bytes(fusion.shape)
    for operand, (inside, name) in self._entrances(fusion):
      whole = self._operand_bytes(operand)
      users = [user for user in inside if name in user.operands]
      if whole and users and all(_replaces(user, name) for user in users):
        # Updated in place: neither read nor, as the result, written in full.
        moved += 2 * self._payload(users[0].operands[1]) - whole
      else:
        moved += min(whole, self._read(inside, name))
    return moved

  def _read(self, inside: list[Instruction], name: str) -> float:
    """Returns how many bytes of an array a fusion reads; infinity means all."""
    users = [user for user in inside if name in user.operands]
    return sum(self._read_by(user, inside, name) for user in users) or math.inf

  def _read_by(self, user: Instruction, inside: list[Instruction], name: str) -> float:
    if user.opcode in _SLICES and name not in user.operands[1:]:
      return payload_bytes(user.shape)
    if user.opcode == 'bitcast':
      return self._read(inside, user.name)
    if user.opcode == 'fusion':
      return sum(
        self._read(*e) for operand, e in self._entrances(user) if operand == name
      )
    return math.inf

  def _entrances(
    self, fusion: Instruction
  ) -> Iterator[tuple[str, tuple[list[Instruction], str]]]:
    """Yields each operand with the fused computation and its name there."""
    inside = self._computations[_CALLED.search(fusion.attributes)[1]]
    parameters = {int(i.attributes): i.name for i in inside if i.opcode == 'parameter'}
    for number, operand in enumerate(fusion.operands):
      yield operand, (inside, parameters[number])

  def _walk(
    self, computation: str, times: int, *, into_fusions: bool
  ) -> Iterator[tuple[int, Instruction]]:
    """Yields (number of runs, instruction) for every instruction that runs."""
    for instruction in self._computations.get(computation, ()):
      yield times, instruction
      opcode, attributes = instruction.opcode, instruction.attributes
      inside = opcode in ('while', 'conditional', 'call', 'async-start')
      if not (inside or (into_fusions and opcode == 'fusion')):
        continue
      called = _CALLED.findall(attributes)
      if branches := _BRANCHES.search(attributes):
        called += _NAME.findall(branches[1])
      trips = self._trips(instruction) if opcode == 'while' else 1
      for name in called:
        yield from self._walk(name, times * trips, into_fusions=into_fusions)

  def _trips(self, loop: Instruction) -> int:
    """Returns the maximum number of runs of a loop's body; 1 if unknown."""
    if known := _TRIPS.search(loop.attributes):
      return int(known[1])
    # A counted loop compares its counter with a constant.
    condition = re.search(r'condition=%?([\w.\-]+)', loop.attributes)[1]
    limits = [
      int(i.attributes)
      for _, i in self._walk(condition, 1, into_fusions=True)
      if i.opcode == 'constant' and i.attributes.isdigit()
    ]
    return max(limits, default=1)

  def _operand_bytes(self, name: str) -> int:
    return self._bytes(self._shape(name))

  def _payload(self, name: str) -> int:
    return payload_bytes(self._shape(name))

  def _shape(self, name: str) -> str:
    return self._instructions[name].shape if name in self._instructions else ''

  def _bytes(self, shape: str) -> int:
    return payload_bytes(shape, on_chip=False)


def payload_bytes(shape: str, *, on_chip: bool = True) -> int:
  """Returns the bytes of a shape such as 'bf16[8,16]{1,0:T(8,128)}', or of a tuple.

  Args:
    on_chip: also count arrays that the layout places in on-chip memory.
  """
  total = 0
  for dtype, dimensions, layout in _ARRAY.findall(shape):
    if on_chip or not _ON_CHIP.search(layout):
      # 8-bit floats have many names.
      bits = BITS.get(dtype, 8)
      total += math.prod(map(int, filter(None, dimensions.split(',')))) * bits // 8
  return total


def _replaces(user: Instruction, name: str) -> bool:
  """Returns whether an instruction replaces a slice of an array."""
  return user.opcode == 'dynamic-update-slice' and name not in user.operands[1:]


def _parse(name: str, text: str) -> Instruction:
  """Parses 'shape opcode(operands), attributes'."""
  end = _closing(text, 0) if text.startswith('(') else text.index(' ')
  opcode = _OPCODE.match(text, end)
  close = _closing(text, opcode.end() - 1)
  arguments = text[opcode.end() : close - 1]
  attributes = text[close:]
  if opcode[1] in ('constant', 'parameter'):
    arguments, attributes = '', arguments
  return Instruction(
    name, text[:end], opcode[1], tuple(_NAME.findall(arguments)), attributes
  )


def _closing(text: str, start: int) -> int:
  """Returns the position after the bracket that closes the one at `start`."""
  depth = 0
  for position in range(start, len(text)):
    depth += (text[position] == '(') - (text[position] == ')')
    if not depth:
      return position + 1
  return len(text)
