"""Collects the examples of an evaluation to be looked at.

Memory: some panels and worst cases whatever the split's size, and for the report page a
thumbnail, some kB, of each example up to a limit.
"""

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


# What makes an example one of the worst, and whether that is a high value.
WORST: dict[str, tuple[Callable[[EvaluatedExample], float], bool]] = {
  'score error': (score_error, True),
  **{f'{name} CC': (_map_metric(name, 'cc'), False) for name in schema.MAPS},
  'keyword F1': (keyword_f1, False),
}


class SmallMap(NamedTuple):
  """A small grey picture of a map, in WebP; 255 is 1. `peak` is of the map itself."""

  picture: bytes
  peak: float


class Thumbnail(NamedTuple):
  """A small picture of an example, in WebP.

  Attributes:
    maps: by the names of schema.MAPS the annotated map, None where there is none, and
      the predicted.
  """

  prompt: str
  image: bytes
  maps: dict[str, tuple[SmallMap | None, SmallMap]]


class _Case(NamedTuple):
  record: schema.Record
  prediction: ExampleLabels


class Gallery:
  """Collects pictures, example by example.

  Attributes:
    panels: of the examples asked for.
    thumbnails: of the first examples, in the order of the evaluation's samples.
  """

  def __init__(
    self, *, panels: Collection[int] = (), worst: int = 0, thumbnails: int = 0
  ):
    """Says what to keep.

    Args:
      panels: which examples to draw, by their numbers.
      worst: how many for each of `WORST`.
      thumbnails: how many of the first.
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
    """Keeps what is to be kept of the next example."""
    worst, thumbnails = self._worst_limit, self._thumbnails
    if self._seen in self._panels:
      self.panels.append(panel(record, prediction, title=record.uid))
    if len(self.thumbnails) < thumbnails:
      self.thumbnails.append(thumbnail(record, prediction))
    for name, (measure, high) in WORST.items() if worst else ():
      value = measure(sample)
      if math.isnan(value):
        continue
      # The heap's least is what is dropped: the best, and of equals the later.
      rank = value if high else -value, -self._seen
      cases = self._worst[name]
      if len(cases) < worst or rank > cases[0][:2]:
        # A copy, since what was predicted is a view of its whole batch.
        kept = prediction._replace(maps=prediction.maps.copy())
        keep = heapq.heappush if len(cases) < worst else heapq.heapreplace
        keep(cases, (*rank, _Case(record, kept)))
    self._seen += 1

  def worst_panels(self) -> dict[str, list[UInt8[np.ndarray, '_ _ 3']]]:
    """Draws the worst cases by the names of `WORST`, the worst first."""
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
  """Returns a small copy of an example's image and maps."""
  image = Image.fromarray(codec.decode_image(record.image))
  image.thumbnail((IMAGE_SIDE, IMAGE_SIDE))
  truth = annotated_labels(record).maps
  maps = {}
  for name, annotated, predicted in zip(
    schema.MAPS, truth, prediction.maps, strict=True
  ):
    maps[name] = (
      None if annotated is None else _small_map(annotated),
      _small_map(predicted),
    )
  return Thumbnail(record.prompt, _webp(image, quality=60), maps)


def _small_map(heatmap: Float[np.ndarray, 'h w']) -> SmallMap:
  """Lossless in 64 levels: what WebP's compression adds shows where a map is empty."""
  small = Image.fromarray(np.asarray(np.clip(heatmap, 0, 1), np.float32))
  small.thumbnail((MAP_SIDE, MAP_SIDE))
  levels = np.round(np.round(63 * np.clip(small, 0, 1)) * (255 / 63))
  picture = _webp(Image.fromarray(levels.astype(np.uint8)), lossless=True)
  return SmallMap(picture, float(np.max(heatmap)))


def _webp(image: Image.Image, **options) -> bytes:
  file = io.BytesIO()
  image.save(file, 'WEBP', method=4, **options)
  return file.getvalue()
