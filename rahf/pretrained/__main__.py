"""Describes a file of pretrained weights, and which of its arrays would be used.

python -m rahf.pretrained SOURCE [--arrays] [--read]
"""

import argparse
import collections
import re
import sys

from rahf.errors import InputError, fail
from rahf.pretrained.formats import open_source
from rahf.pretrained.loading import POSITIONS, ROLES, count, ignored_lines
from rahf.pretrained.positions import grid_of
from rahf.pretrained.source import Source

# Parameters of models that can be loaded, but that no run trains.
ONLY_IN_PYTHON = ('clip/', 'resnet/', 'inception/')


def main(arguments: list[str] | None = None) -> int:
  """Describes one source; returns 2 after an error message if it cannot be read."""
  parser = argparse.ArgumentParser(
    prog='python -m rahf.pretrained',
    description='Describes a file of pretrained weights, and which of its arrays would '
    'be used.',
  )
  parser.add_argument('source', help='a file or directory, local or gs://')
  parser.add_argument('--arrays', action='store_true', help='list every array')
  parser.add_argument(
    '--read', action='store_true', help='read every array, to detect damage'
  )
  options = parser.parse_args(arguments)
  try:
    source = open_source(options.source)
    print(describe(source))
    if options.arrays:
      print('\n'.join(array_lines(source)))
    if options.read:
      for array in source.arrays.values():
        array.read()
      print(f'read: {count(a.shape for a in source.arrays.values())}')
  except (InputError, OSError) as error:
    return fail(error)
  return 0


def describe(source: Source) -> str:
  """Returns a description: kind, settings, used and ignored arrays."""
  role = _role(source)
  says = 'config.model must say:' if role else 'sizes:'
  lines = [f'{source.kind}: {source.path}', says]
  lines += [f'  {field} = {value!r}' for field, value in source.settings.items()]
  if (positions := source.weights.get(POSITIONS)) and (
    grid := grid_of(positions.shape[1])
  ):
    side = grid[1]
    pixels = side * source.settings['vit.patch']
    lines.append(f'positions: {side} x {side}, for {pixels} px; resampled for others')
  shapes = {path: array.shape for path, array in source.arrays.items()}
  dtypes = sorted({str(array.dtype) for array in source.arrays.values()})
  lines.append(f'used: {count(shapes.values())}, {", ".join(dtypes)}')
  groups = collections.defaultdict(list)
  for path, shape in shapes.items():
    groups[_group(path)].append(shape)
  lines += [f'  {name}: {count(group)}' for name, group in groups.items()]
  lines += [f'ignored: {line}' for line in ignored_lines(source)] or ['ignored: none']
  if source.licence:
    lines.append(f'licence: {source.licence}')
  if not role:
    lines.append(f"to use it in Python: rahf.pretrained.load('{source.path}')")
    return '\n'.join(lines)
  lines.append(f'to train from it: --config.init.{role}={source.path}')
  if role == 'rahf':
    lines.append(
      f'to score with it directly: --mode=export --config.init.rahf={source.path} '
      '--config.export.dir=DIR --config.tokenizer=spiece.model'
    )
  return '\n'.join(lines)


def array_lines(source: Source) -> list[str]:
  """Returns a line per array: our path, shape, dtype, and its name in the file."""
  used = [
    f'{path} {list(weight.shape)} {weight.dtype} <- {weight.name}'
    for path, weight in source.arrays.items()
  ]
  return used + [f'ignored: {name}: {why}' for name, why in source.ignored.items()]


def _group(path: str) -> str:
  """Returns the start of a path, with layer numbers replaced by *."""
  parts = path.split('/')
  depth = 3 if parts[0] in ('vit', 't5') else 1
  return re.sub(r'_\d+$', '_*', '/'.join(parts[:depth]))


def _role(source: Source) -> str:
  """Returns the field of config.init that the source is for, '' if there is none."""
  if all(path.startswith(ONLY_IN_PYTHON) for path in source.weights):
    return ''
  return next(
    role
    for role, prefix in ROLES.items()
    if all(path.startswith(prefix) for path in source.weights)
  )


if __name__ == '__main__':
  sys.exit(main())
