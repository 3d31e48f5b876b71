"""Strictly loads pretrained weights into a model's parameters.

Every parameter is loaded, resized or fresh, and every array of a file is used or
ignored for a stated reason; anything else is an error. Arrays are read one at a time,
directly into their shards.
"""

import collections
import dataclasses
import math
import operator
import shlex
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from rahf.errors import InputError
from rahf.models.rahf import RAHFConfig
from rahf.models.vit import ViTConfig
from rahf.pretrained.clip import NO_HINTS, Hints
from rahf.pretrained.formats import open_source
from rahf.pretrained.positions import can_resample, resample_positions
from rahf.pretrained.source import Source, Weight

# Field of config.init -> prefix of the parameters that it provides, or several, of
# which it has at least one.
ROLES = {
  'vit': 'vit/',
  't5': 't5/',
  'clip': ('clip/', 'text/'),
  'resnet': 'resnet/',
  'muse': ('autoencoder/', 'transformer/', 'text/'),
  'rahf': '',
}
POSITIONS = 'vit/Transformer/posembed_input/pos_embedding'
SHOWN_PROBLEMS = 20

Shapes = Mapping[str, jax.ShapeDtypeStruct]


@dataclasses.dataclass(frozen=True)
class Plan:
  """Where each parameter comes from, before anything is read.

  Attributes:
    sources: by role, a key of ROLES.
    params: shapes, dtypes and shardings of the model's parameters, by path.
    loaded: weights to load from the sources, by path.
    resized: paths in `loaded` that are resampled.
    fresh: paths of all other parameters, which are initialised randomly.
    collections: other variables to load, such as statistics, by path.
  """

  sources: Mapping[str, Source]
  params: Shapes
  loaded: Mapping[str, Weight]
  resized: frozenset[str]
  fresh: tuple[str, ...]
  collections: Mapping[str, Weight] = dataclasses.field(default_factory=dict)

  def read(self) -> dict[str, jax.Array]:
    """Reads the parameters one at a time into their shards; returns them by path."""
    return {
      path: _place(self.read_one(path), self.params[path]) for path in self.loaded
    }

  def read_collections(self, shapes: Shapes) -> dict[str, jax.Array]:
    """Reads the other variables into their shards; returns them by path.

    Args:
      shapes: their shapes, dtypes and shardings, by path.
    """
    return {
      path: _place(np.asarray(weight.read(), shapes[path].dtype), shapes[path])
      for path, weight in self.collections.items()
    }

  def read_one(self, path: str) -> np.ndarray:
    """Reads one array of `loaded`, with the model's shape and dtype."""
    leaf, array = self.params[path], self.loaded[path].read()
    if path in self.resized:
      array = resample_positions(array, leaf.shape[1])
    array = np.asarray(array, leaf.dtype)
    assert array.shape == leaf.shape, (path, array.shape, leaf.shape)
    return array

  def report(self) -> str:
    """Returns a text listing what is loaded, resized, ignored and fresh."""
    lines = []
    for role, source in self.sources.items():
      mine = [path for path in self.loaded if path in source.weights]
      lines.append(
        f'init.{role}: {source.kind}, {source.path}\n'
        f'  loaded:  {self.count([p for p in mine if p not in self.resized])}'
      )
      for path in sorted(self.resized.intersection(mine)):
        old, new = self.loaded[path].shape, self.params[path].shape
        lines.append(
          f'  resized: {self.count([path])}: {path} {list(old)} to {list(new)}'
        )
      lines += [f'  ignored: {line}' for line in ignored_lines(source)]
      if source.licence:
        lines.append(f'  licence: {source.licence}')
    parts = sorted({path.split('/')[0] for path in self.fresh})
    return '\n'.join(
      [*lines, f'fresh: {self.count(self.fresh)}: {", ".join(parts) or "none"}']
    )

  def count(self, paths: Any) -> str:
    """Returns the number of arrays and values as text."""
    return count(self.params[path].shape for path in paths)


def _place(array: np.ndarray, leaf: jax.ShapeDtypeStruct) -> jax.Array:
  """Copies an array to the devices, each of which gets its own shard."""
  placed = jax.make_array_from_callback(
    leaf.shape, leaf.sharding, lambda index: array[index]
  )
  # Wait for the copy: queued ones would keep all arrays in host memory.
  return jax.block_until_ready(placed)


def open_sources(
  init: Mapping[str, str], vit: ViTConfig | None = None, hints: Hints = NO_HINTS
) -> dict[str, Source]:
  """Opens the sources named by the fields of config.init that are not empty.

  Args:
    vit, hints: as for `open_source`.

  Raises:
    InputError: a source cannot be read, or `rahf` is not the only one.
  """
  given = {role: init[role] for role in ROLES if init.get(role)}
  if 'rahf' in given and len(given) > 1:
    others = ' and '.join(f'config.init.{role}' for role in given if role != 'rahf')
    raise InputError(f'config.init.rahf is a whole model, so {others} must be empty')
  return {role: open_source(path, vit, hints) for role, path in given.items()}


def plan(
  sources: Mapping[str, Source],
  params: Shapes,
  settings: RAHFConfig | ConfigDict,
  *,
  section: str = 'config.model',
) -> Plan:
  """Decides where every parameter comes from, without reading arrays.

  Args:
    sources: by role, see `ROLES`.
    params: the model's parameters, by path.
    settings: the model's, which must match those of the sources.
    section: where a config has these settings.

  Raises:
    InputError: a source is of another model or has other settings; or its arrays are
      missing, superfluous or of another shape.
  """
  loaded, resized, problems = {}, set(), []
  for role, source in sources.items():
    _check_role(role, source)
    _check_settings(role, source, settings, section)
    expected = {path for path in params if path.startswith(_prefixes(role, source))}
    for path in sorted(expected | source.weights.keys()):
      leaf, weight = params.get(path), source.weights.get(path)
      if problem := _problem(path, leaf, weight):
        problems.append(f'{source.path}: {problem}')
        continue
      loaded[path] = weight
      if weight.shape != leaf.shape:
        resized.add(path)
  if problems:
    more = len(problems) - SHOWN_PROBLEMS
    tail = [f'… and {more} more'] if more > 0 else []
    raise InputError(
      'the initial weights do not fit the model:\n  '
      + '\n  '.join(problems[:SHOWN_PROBLEMS] + tail)
    )
  fresh = tuple(path for path in params if path not in loaded)
  others = {path: w for s in sources.values() for path, w in s.collections.items()}
  return Plan(sources, params, loaded, frozenset(resized), fresh, others)


def _prefixes(role: str, source: Source) -> str | tuple[str, ...]:
  """Returns the beginnings of the paths that a source must provide.

  A Muse may have the autoencoder only, and a CLIP may provide a Muse's text encoder.
  """
  prefixes = ROLES[role]
  if isinstance(prefixes, str):
    return prefixes
  return tuple(
    prefix
    for prefix in prefixes
    if any(path.startswith(prefix) for path in source.weights)
  )


def ignored_lines(source: Source) -> list[str]:
  """Returns a line per reason with the number of ignored arrays."""
  reasons = collections.Counter(source.ignored.values())
  return [
    f'{number} array{"s"[: number != 1]}: {reason}'
    for reason, number in sorted(reasons.items())
  ]


def count(shapes: Any) -> str:
  """Returns the number of arrays and values as text."""
  sizes = [math.prod(shape) for shape in shapes]
  return f'{len(sizes):,} array{"s"[: len(sizes) != 1]}, {sum(sizes):,} values'


def _check_role(role: str, source: Source) -> None:
  """Raises InputError if a source has parameters that its field may not provide."""
  foreign = [path for path in source.weights if not path.startswith(ROLES[role])]
  if foreign:
    parts = ', '.join(sorted({path.split('/')[0] for path in foreign}))
    raise InputError(
      f'config.init.{role} = {source.path} is a {source.kind} with {parts}, but this '
      f'field is only for {ROLES[role]}; use another field of config.init'
    )


def _check_settings(
  role: str, source: Source, settings: RAHFConfig | ConfigDict, section: str
) -> None:
  flags = []
  for field, value in source.settings.items():
    value = tuple(value) if isinstance(value, list) else value
    try:
      own = operator.attrgetter(field)(settings)
    except AttributeError:
      raise InputError(
        f'config.init.{role} = {source.path} has the setting {field}, which this '
        'version does not know; update rahf'
      ) from None
    if own != value:
      flags.append(shlex.quote(f'--{section}.{field}={value}'))
  if flags:
    raise InputError(
      f'config.init.{role} = {source.path} has other settings; give\n  '
      + '\n  '.join(flags)
    )


def _problem(
  path: str, leaf: jax.ShapeDtypeStruct | None, weight: Weight | None
) -> str | None:
  """Returns why a parameter cannot be loaded, or None if it can."""
  if weight is None:
    return f'{path} {list(leaf.shape)} is missing'
  found = f'{weight.name} {list(weight.shape)}'
  if leaf is None:
    return f'{found} has no place in the model (as {path})'
  if not jnp.issubdtype(weight.dtype, jnp.floating):
    return f'{found} has dtype {weight.dtype}, but {path} must be floats'
  if weight.shape == leaf.shape:
    return None
  if (
    path == POSITIONS
    and weight.shape[::2] == leaf.shape[::2]
    and can_resample(weight.shape[1], leaf.shape[1])
  ):
    return None
  return f'{found} should have the shape {list(leaf.shape)} of {path}'
