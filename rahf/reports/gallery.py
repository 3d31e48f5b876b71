"""Collects pictures of examples during an evaluation.

Memory: a fixed number of panels and worst cases, and for the report page one thumbnail
of a few kB per example, up to a limit.
"""

import copy
import heapq
import io
import math
from collections.abc import Callable, Collection
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from rahf.data import schema
from rahf.data.images import codec
from rahf.evaluation.samples import EvaluatedExample, keyword_f1, score_error
from rahf.evaluation.score_example import ExampleLabels, annotated_labels
from rahf.reports.panels import review_panel

IMAGE_SIDE, MAP_SIDE = 160, 48  # of thumbnails, the longer one, in pixels


def _map_metric(name: str, metric: str) -> Callable[[EvaluatedExample], float]:
  return lambda sample: sample.maps.get(name, {}).get(metric, math.nan)


# Criteria for the worst examples, and whether high values are bad.
WORST: dict[str, tuple[Callable[[EvaluatedExample], float], bool]] = {
  'score error': (score_error, True),
  **{f'{name} CC': (_map_metric(name, 'cc'), False) for name in schema.MAPS},
  'keyword F1': (keyword_f1, False),
}


class SmallMap(NamedTuple):
  """A small grey WebP picture of a map; 255 is 1. `peak` is that of the full map."""

  picture: bytes
  peak: float


class Thumbnail(NamedTuple):
  """A prompt, and small WebP pictures of an example's image and maps.

  Attributes:
    maps: for each name in schema.MAPS, the annotated and the predicted map, or None.
  """

  prompt: str
  image: bytes
  maps: dict[str, tuple[SmallMap | None, SmallMap | None]]


class _Case(NamedTuple):
  record: schema.Record
  prediction: ExampleLabels


class Gallery:
  """Collects pictures, example by example.

  Attributes:
    panels: of the requested examples.
    thumbnails: of the first examples, in the order of the evaluation.
  """

  def __init__(
    self, *, panels: Collection[int] = (), worst: int = 0, thumbnails: int = 0
  ):
    """Chooses what to collect.

    Args:
      panels: numbers of the examples to draw.
      worst: how many examples to keep for each criterion of `WORST`.
      thumbnails: for how many of the first examples to keep a thumbnail.
    """
    self._panels, self._worst_limit, self._thumbnails = panels, worst, thumbnails
    self._worst: dict[str, list[tuple[float, int, _Case]]] = {
      name: [] for name in WORST
    }
    self._seen = 0
    self.panels: list[UInt8[np.ndarray, '_ _ 3']] = []
    self.thumbnails: list[Thumbnail] = []

  def add(
    self, record: schema.Record, prediction: ExampleLabels, sample: EvaluatedExample
  ) -> None:
    """Adds the next example."""
    worst, thumbnails = self._worst_limit, self._thumbnails
    if self._seen in self._panels:
      self.panels.append(panel(record, prediction, title=record.uid))
    if len(self.thumbnails) < thumbnails:
      self.thumbnails.append(thumbnail(record, prediction))
    for name, (measure, high) in WORST.items() if worst else ():
      value = measure(sample)
      if math.isnan(value):
        continue
      # The heap drops its minimum: the best example, or of equals the latest.
      rank = value if high else -value, -self._seen
      cases = self._worst[name]
      if len(cases) < worst or rank > cases[0][:2]:
        # Copied, since the maps are a view of the whole batch.
        kept = prediction._replace(maps=copy.deepcopy(prediction.maps))
        keep = heapq.heappush if len(cases) < worst else heapq.heapreplace
        keep(cases, (*rank, _Case(record, kept)))
    self._seen += 1

  def worst_panels(self) -> dict[str, list[UInt8[np.ndarray, '_ _ 3']]]:
    """Draws the worst examples for each criterion of `WORST`, the worst first."""
    return {
      name: [
        panel(*case, title=f'{name} {abs(value):.2f}, {case.record.uid}')
        for value, _, case in sorted(cases, key=lambda case: case[:2], reverse=True)
      ]
      for name, cases in self._worst.items()
    }


def panel(
  record: schema.Record, prediction: ExampleLabels, *, title: str
) -> UInt8[np.ndarray, '_ _ 3']:
  """Returns a picture of an example's annotation and prediction."""
  image = codec.decode_image(record.image)
  truth = annotated_labels(record)
  return review_panel(image, record.prompt, truth, prediction, title=title)


def thumbnail(record: schema.Record, prediction: ExampleLabels) -> Thumbnail:
  """Returns small copies of an example's image and maps."""
  image = Image.fromarray(codec.decode_image(record.image))
  image.thumbnail((IMAGE_SIDE, IMAGE_SIDE))
  truth = annotated_labels(record).maps
  maps = {}
  for name, *pair in zip(schema.MAPS, truth, prediction.maps, strict=True):
    maps[name] = tuple(None if one is None else _small_map(one) for one in pair)
  return Thumbnail(record.prompt, _webp(image, quality=60), maps)


def _small_map(heatmap: Float[np.ndarray, 'h w']) -> SmallMap:
  """Encodes a map losslessly, in 64 levels: lossy WebP spoils empty maps."""
  small = Image.fromarray(np.asarray(np.clip(heatmap, 0, 1), np.float32))
  small.thumbnail((MAP_SIDE, MAP_SIDE))
  levels = np.round(np.round(63 * np.clip(small, 0, 1)) * (255 / 63))
  picture = _webp(Image.fromarray(levels.astype(np.uint8)), lossless=True)
  return SmallMap(picture, float(np.max(heatmap)))


def _webp(image: Image.Image, **options) -> bytes:
  file = io.BytesIO()
  image.save(file, 'WEBP', method=4, **options)
  return file.getvalue()
