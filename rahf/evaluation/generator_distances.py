"""CMMD and FID between each generator's images and reference images."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from rahf.errors import InputError
from rahf.evaluation import generator_judgement
from rahf.evaluation.image_features import Extractor, ImageFeatures, extract
from rahf.metrics.distribution import cmmd, frechet_distance, gaussian

# CMMD's published values are of this network.
CMMD_NETWORK = 'CLIP L/14@336'
# With fewer images, FID depends more on their number than on what they show.
FEWEST_FOR_FID = 10_000


class _Kind(NamedTuple):
  """How a distance is computed: from what is kept of both sets."""

  keep: Callable[[np.ndarray], Any]
  distance: Callable[[Any, Any], float]


_KINDS = {
  'CMMD': _Kind(lambda features: features, cmmd),
  'FID': _Kind(gaussian, lambda one, other: frechet_distance(*one, *other)),
}


class Distances(NamedTuple):
  """The distance of each generator from the reference; lower is better.

  Attributes:
    name: 'CMMD' or 'FID'.
    extractor: the network and its preprocessing.
    reference_images: number of readable ones.
    images: of each generator, all that are readable, with or without a prompt.
    values: of each generator.
    notes: a sentence for everything that makes the numbers hard to compare.
  """

  name: str
  extractor: str
  reference_images: int
  images: list[int]
  values: list[float]
  notes: list[str]

  @property
  def ranks(self) -> list[int]:
    """Ranks from 1, the nearest. Empty for one generator."""
    if len(self.values) == 1:
      return []
    return generator_judgement.rank(self.values, higher_is_better=False)


def measure(
  name: str,
  extractor: Extractor,
  reference: str,
  generators: Mapping[str, str],
  *,
  batch_size: int,
) -> Distances:
  """Computes one kind of distance for all generators, with progress bars.

  The features of the reference and of one generator are in memory at a time.

  Args:
    name: 'CMMD' or 'FID'.
    reference: a folder of images, or another of `source.KINDS`.
    generators: their images, by name.

  Raises:
    InputError: a set cannot be read, or has fewer than two readable images.
  """
  kind = _KINDS[name]
  sets = [('--reference', 'the reference', reference)]
  sets += [(f'--images {one}:', one, path) for one, path in generators.items()]
  counts, values, notes, real = [], [], [], None
  for flag, whose, path in sets:
    title = f'{name} of {whose}'
    found = extract(extractor, path, batch_size=batch_size, flag=flag, title=title)
    if len(found.uids) < 2:
      raise InputError(
        f'{flag} {path} has one readable image; {name} needs two or more'
      )
    counts.append(len(found.uids))
    notes += _left_out(name, whose, found)
    kept = kind.keep(found.features)
    if real is None:
      real = kept
    else:
      values.append(kind.distance(kept, real))
  notes += _doubts(name, extractor, counts)
  return Distances(name, extractor.name, counts[0], counts[1:], values, notes)


def _left_out(name: str, whose: str, found: ImageFeatures) -> list[str]:
  if not found.unreadable:
    return []
  first = found.unreadable[0]
  return [
    f'{name} leaves out images of {whose} that cannot be read: '
    f'{len(found.unreadable):,}, the first {first.uid} ({first.reason:.200})'
  ]


def _doubts(name: str, extractor: Extractor, counts: list[int]) -> list[str]:
  notes = []
  if name == 'CMMD' and extractor.name != CMMD_NETWORK:
    notes.append(
      f'published values of CMMD are of {CMMD_NETWORK}; these are of {extractor.name}'
    )
  if name == 'FID' and min(counts) < FEWEST_FOR_FID:
    notes.append(
      f'FID is of {min(counts):,} images only; with fewer than {FEWEST_FOR_FID:,} it '
      'depends on their number more than on what they show'
    )
  if len(set(counts[1:])) > 1:
    notes.append(
      f'{name} is larger for fewer images; those of the generators are not equally many'
    )
  return notes
