"""Scores the parts of a long job that fall to this process."""

import collections
import concurrent.futures
import itertools
import math
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import tqdm

from rahf.data.images.codec import encode_map
from rahf.data.pipeline.prefetch import prefetch
from rahf.data.sources.item import Item, Load
from rahf.data.sources.source import Source
from rahf.errors import InputError
from rahf.inference.feedback import Feedback
from rahf.inference.results_folder import Output
from rahf.inference.scorer import Example, Scorer
from rahf.runtime import distributed


class Prepared(NamedTuple):
  """An image that was read, or None and an error in place of `example`."""

  position: int
  item: Item
  example: Example | None
  error: str = ''


class PartScorer:
  """Scores the parts of this process: a contiguous range, so that few share a file."""

  def __init__(self, model: Scorer, source: Source, output: Output, maps: str):
    self._model, self._source, self._output = model, source, output
    self._maps = maps
    number, processes = jax.process_index(), jax.process_count()
    parts = range(
      output.parts * number // processes, output.parts * (number + 1) // processes
    )
    done = output.done()
    self._left = {part for part in parts if part not in done}
    self._stored: set[int] = set()
    self._rows = sum(len(output.rows_of(part)) for part in parts)
    self._errors = 0
    self._pool = concurrent.futures.ThreadPoolExecutor(os.cpu_count())

  def run(self) -> None:
    """Scores the remaining parts, with a progress bar."""
    left = sum(len(self._output.rows_of(part)) for part in self._left)
    self._bar = tqdm.tqdm(
      total=self._rows,
      initial=self._rows - left,
      desc='Scoring',
      unit='image',
      mininterval=1,  # Keeps logs of long jobs small.
      disable=not distributed.is_first(),
      file=sys.stderr,
    )
    waiting: collections.deque = collections.deque()
    self._part_rows: list[dict[str, Any]] = []
    try:
      with self._bar:
        for batch in prefetch(self._batches(), self._prepare_all):
          waiting.append((batch[0].position, self._score(batch)))
          # Maps are written while the devices work on the next batch.
          if len(waiting) > 1:
            self._store(*waiting.popleft())
        while waiting:
          self._store(*waiting.popleft())
      # Otherwise all processes would wait for the missing part forever.
      assert self._stored == self._left, 'a part is missing'
    finally:
      self._pool.shutdown(cancel_futures=True)

  def _batches(self) -> Iterator[list[tuple[int, Load]]]:
    """Yields batches of rows; no batch spans two parts."""
    size, part_rows = self._model.buckets[-1], self._output.part_rows
    rows = self._source.read(lambda position: position // part_rows in self._left)
    for _, part in itertools.groupby(rows, lambda row: row[0] // part_rows):
      while batch := list(itertools.islice(part, size)):
        yield batch

  def _prepare_all(self, batch: Sequence[tuple[int, Load]]) -> list[Prepared]:
    return [*self._pool.map(self._prepare, *zip(*batch, strict=True))]

  def _prepare(self, position: int, load: Load) -> Prepared:
    item = load()
    item = item._replace(uid=item.uid or str(position))
    if item.error:
      return Prepared(position, item, None, item.error)
    try:
      example = self._model.prepare(item.image, item.prompt)
    except InputError as error:
      return Prepared(position, item, None, str(error))
    except Exception as error:
      # One bad file must not end a job of a million; decoders raise many exceptions.
      return Prepared(position, item, None, f'{type(error).__name__}: {error}')
    return Prepared(position, item, example)

  def _score(self, batch: Sequence[Prepared]) -> list[concurrent.futures.Future]:
    """Scores a batch; returns its rows as futures, which threads complete."""
    examples = [one.example for one in batch if one.example]
    found = iter(self._model.score_examples(examples))
    return [
      self._pool.submit(self._row, one, next(found) if one.example else None)
      for one in batch
    ]

  def _row(self, one: Prepared, feedback: Feedback | None) -> dict[str, Any]:
    """Writes the maps of an image and returns its row; NaN becomes null."""
    prompt, outputs = one.item.prompt, self._model.outputs
    words = ('keywords', 'misaligned') if outputs.keywords else ()
    if feedback and not all(map(math.isfinite, feedback.scores.values())):
      one, feedback = one._replace(error='its scores are not finite'), None
    row = {
      'uid': _clean(one.item.uid),
      'prompt': _clean(prompt) if isinstance(prompt, str) else None,
      **dict.fromkeys(('height', 'width', *outputs.scores, *words)),
      **dict.fromkeys(('truncated', *(f'{name}_map' for name in outputs.maps))),
      'error': _clean(one.error) if feedback is None else None,
    }
    if feedback is None:
      return row
    height, width = feedback.size
    row |= {'height': height, 'width': width, **feedback.scores}
    if feedback.keywords is not None:
      row['keywords'] = [
        {'word': word, 'p_misaligned': None if math.isnan(p) else p}
        for word, p in feedback.keywords
      ]
      row['misaligned'] = feedback.misaligned
    row['truncated'] = feedback.truncated
    return row | self._write_maps(one, feedback)

  def _write_maps(self, one: Prepared, feedback: Feedback) -> dict[str, str]:
    """Writes the maps and returns their columns."""
    folder, name_parts = self._output.folder, (one.position, one.item.uid)
    if self._maps == 'none':
      return {}
    if self._maps == 'npz':
      path = self._output.map_path(*name_parts, '.npz')
      maps = {name: m.astype(np.float16) for name, m in feedback.heatmaps.items()}
      # Compression saves a fifth of the size and takes ten times as long.
      np.savez(folder / path, **maps)
      return {f'{name}_map': path for name in maps}
    paths = {}
    for name, heatmap in feedback.heatmaps.items():
      paths[f'{name}_map'] = path = self._output.map_path(*name_parts, f'.{name}.png')
      (folder / path).write_bytes(encode_map(heatmap))
    return paths

  def _store(self, position: int, rows: list[concurrent.futures.Future]) -> None:
    """Adds rows to the current part, and writes it once complete."""
    part = position // self._output.part_rows
    found = [row.result() for row in rows]
    self._part_rows += found
    if len(self._part_rows) == len(self._output.rows_of(part)):
      self._output.write_part(part, self._part_rows)
      self._stored.add(part)
      self._part_rows = []
    self._errors += sum(row['error'] is not None for row in found)
    if self._errors:
      self._bar.set_postfix(errors=self._errors, refresh=False)
    self._bar.update(len(found))


def _clean(text: str) -> str:
  """Replaces characters that UTF-8 cannot encode."""
  return text.encode('utf-8', 'replace').decode()
