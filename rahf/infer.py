"""Scores a folder or table of any size with an exported model or a CLIP.

  python -m rahf.main --mode=infer --model=DIR --input=images --output=results

Threads read and prepare images while the devices work on earlier ones; only a few
batches are in memory at any time. Rows are written in parts: after a kill, the same
command continues after the last complete part (`inference/results_folder.py`). Several
processes share the parts.

Data format of each row:
  uid           text            from the input, or the file's name or row number
  prompt        text            as read
  height, width int             image size in pixels
  plausibility, alignment, aesthetics, overall
                float           in [0, 1], higher is better
  similarity    float           instead of these four, of a CLIP: the cosine times the
                                model's scale, higher is better
  keywords      list            {"word", "p_misaligned"}: the words of the prompt, which
                                end at white space and , . ? ! " : ; each with its
                                probability in [0, 1], higher is worse, or null if the
                                prompt was truncated before it
  misaligned    list of text    words whose probability is above the threshold
  truncated     bool            whether the prompt was too long and lost its end
  implausibility_map, misalignment_map
                text            file, relative to the output; in [0, 1], higher is worse
  error         text            why there is no result; all but uid and prompt are null
Missing values are null. There are no columns for what the model does not say: a CLIP
gives neither words nor maps. The manifest has range and direction of each output.
"""

import collections
import concurrent.futures
import contextlib
import dataclasses
import itertools
import math
import os
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import tqdm
from etils import epath

from rahf.data.images.codec import encode_map
from rahf.data.pipeline.prefetch import prefetch
from rahf.data.sources.item import Item, Load
from rahf.data.sources.source import Source, open_source
from rahf.errors import InputError
from rahf.fileio import locks
from rahf.fileio.table_files import check_pyarrow
from rahf.inference import open_scorer
from rahf.inference.feedback import Feedback
from rahf.inference.open_scorer import load
from rahf.inference.results_folder import (
  FORMATS,
  PART_ROWS,
  Output,
  Settings,
  check_apart,
  check_place,
  wait_until,
)
from rahf.inference.scorer import Example, Scorer, ScorerDescription
from rahf.runtime import distributed
from rahf.runtime.preemption import Interruption

MAPS = ('none', 'png', 'npz')


@dataclasses.dataclass(frozen=True)
class Job:
  """What to score, with which model, and where to write results.

  Attributes:
    model: a model directory, or a CLIP; see `open_scorer.load`.
    input: images and prompts, see `source.KINDS`.
    output: a folder, new or with results of the same job, which is then continued.
    prompts: a table, for a folder of images without text files; '' for none.
    maps: 'png', two 8-bit grey files per image, where 255 means 1; 'npz', one float16
      file; both at the image's own size; or 'none'.
    format: of the results, 'jsonl' or 'parquet'.
    batch_size: images per device in a batch.
  """

  model: str
  input: str
  output: str
  prompts: str = ''
  maps: str = 'none'
  format: str = 'jsonl'
  batch_size: int = 32


class Prepared(NamedTuple):
  """An image that was read, or None and an error in place of `example`."""

  position: int
  item: Item
  example: Example | None
  error: str = ''


def infer(job: Job, interruption: Interruption) -> int:
  """Scores all images and prints where the results are.

  Returns:
    0, or 1 if an image has no result (its row says why) or if linked folders were
    skipped.

  Raises:
    InputError: model, input or output cannot be used, or the input changed.
    Interrupted: SIGTERM or Ctrl-C came; complete parts are kept.
  """
  _check(job)
  # Safe to interrupt anywhere: files get their final names only once complete.
  with interruption.raising(), contextlib.ExitStack() as stack:
    output_path = pathlib.Path(job.output).expanduser()
    check_apart(job.input, output_path)
    source = open_source(job.input, job.prompts)
    folder = open_scorer.find(job.model)
    description = open_scorer.read_description(folder)
    _check_maps(job, description)
    devices = jax.local_devices()
    batch = job.batch_size * len(devices)
    check_place(output_path)
    if distributed.is_first():
      stack.enter_context(locks.locked(output_path))
    output = Output(
      output_path,
      _settings(job, folder, description, source),
      about={
        'job': dataclasses.asdict(job),
        'model': description.summary,
        'outputs': description.outputs.to_dict(),
      },
      # A whole number of batches, so that only the last batch is not full.
      part_rows=batch * -(-PART_ROWS // batch),
      first=distributed.is_first(),
    )
    if not output.summary:
      print(
        f'Model: {folder}, {description.summary}; {source.rows:,} images', flush=True
      )
      model = load(folder, batch_size=batch, devices=devices)
      _Worker(model, source, output, job.maps).run()
      _complete(source, output)
    if distributed.is_first():
      output.remove_parts()
  return _report(source, output, description)


def _report(source: Source, output: Output, description: ScorerDescription) -> int:
  """Prints where the results are; returns the exit status."""
  summary = output.summary
  print(
    f'Written to {output.results}: {summary["rows"]:,} images. '
    f'{description.outputs.ranges}'
  )
  if summary['errors']:
    print(
      f'{summary["errors"]:,} of them have no result; see the column `error` of their '
      'rows'
    )
  if source.linked:
    print(
      f'Warning: skipped {len(source.linked):,} linked folders, the first '
      f'{source.linked[0]}; to score their images, give the target as --input',
      file=sys.stderr,
    )
  return 1 if summary['errors'] or source.linked else 0


def _check(job: Job) -> None:
  for name in ('input', 'prompts', 'output'):
    if '://' in (value := getattr(job, name)):
      advice = (
        'write to a local folder and copy that' if name == 'output' else 'copy it'
      )
      raise InputError(
        f'--{name}={value} is not a local path; {advice}, or mount the bucket '
        '(gcsfuse, s3fs) and give the path in it'
      )
  for name, value, known in (
    ('maps', job.maps, MAPS),
    ('format', job.format, FORMATS),
  ):
    if value not in known:
      raise InputError(f'--{name}={value} is not one of {", ".join(known)}')
  if job.batch_size < 1:
    raise InputError(f'--batch_size={job.batch_size} must be at least 1')
  if job.format == 'parquet':
    check_pyarrow()
  distributed.check_joined()


def _check_maps(job: Job, description: ScorerDescription) -> None:
  if job.maps != 'none' and not description.outputs.maps:
    raise InputError(
      f'--maps={job.maps}, but {job.model} makes no heatmaps ({description.summary}); '
      'leave out --maps'
    )


def _settings(
  job: Job, folder: epath.Path, description: ScorerDescription, source: Source
) -> Settings:
  model = open_scorer.fingerprint(folder, description)
  return Settings(model, source.digest, source.rows, job.maps, job.format)


def _complete(source: Source, output: Output) -> None:
  """Waits for the parts of all processes; the first process joins them."""
  wait_until(lambda: output.summary or len(output.done()) == output.parts)
  if distributed.is_first():
    source.check_unchanged()
    output.finish()
  wait_until(lambda: output.summary)


class _Worker:
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
