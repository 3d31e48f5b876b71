"""Writes the reports of an evaluation: files in eval/, and TensorBoard."""

import json
from collections.abc import Callable, Sequence

import numpy as np
from etils import epath
from jaxtyping import UInt8

from rahf.data import schema
from rahf.data.attributes import table
from rahf.data.storage.records import RecordSplit
from rahf.drawing import charts
from rahf.drawing.charts import Histogram
from rahf.errors import InputError
from rahf.evaluation import by_attribute, samples
from rahf.evaluation.human_agreement import annotator_metrics
from rahf.evaluation.paper_tables import evaluation_tables, to_markdown
from rahf.evaluation.samples import THRESHOLD, EvaluatedExample, Evaluation
from rahf.evaluation.score_example import constant_metrics
from rahf.fileio import atomic_write, strict_json
from rahf.reports import html_report
from rahf.reports.gallery import Gallery
from rahf.reports.tensorboard import TensorBoardWriter


def write(
  folder: epath.Path,
  evaluation: Evaluation,
  gallery: Gallery,
  *,
  data_name: str,
  train: RecordSplit,
  split: RecordSplit,
  step: int,
) -> str:
  """Writes <split>-<step>.json, .html, .samples.jsonl and .md; returns the tables.

  The rows of the constant predictor and, if individual answers are known, of the
  annotators depend only on the data. They are computed once and stored in
  <split>-constant.json and <split>-annotator.json.

  Args:
    folder: `eval` in the work directory.
    gallery: its thumbnails are listed on the page; without thumbnails there is no page.
    train: the split whose means the constant predictor returns.
    split: the evaluated split. If the attributes of its images are known, there are
      tables by attribute.
  """
  metrics, found = evaluation
  folder.mkdir(parents=True, exist_ok=True)
  constant, annotator = (
    _read_or_compute(folder / f'{split.name}-{row}.json', compute)
    for row, compute in (
      ('constant', lambda: constant_metrics(train, split)),
      ('annotator', lambda: annotator_metrics(split)),
    )
  )
  name = f'{split.name}-{step}'
  title = f'{data_name}, {split.name} split, step {step}'
  tables = evaluation_tables(metrics, constant, annotator, title=title)
  if metrics['keywords/truncated']:
    tables += (
      f'\nPrompts truncated to config.data.text_length or config.data.target_length: '
      f'{metrics["keywords/truncated"]} of {len(split)}. Lost words count as aligned.\n'
    )
  tables += _by_attribute(evaluation, split)
  if gallery.thumbnails:
    page = folder / f'{name}.html'
    intervals = samples.intervals(found, metrics.get(THRESHOLD))
    html_report.write(page, found, gallery.thumbnails, metrics, intervals, title=title)
  samples.write(folder / f'{name}.samples.jsonl', found)
  atomic_write.write(folder / f'{name}.json', _to_json(metrics))
  # Written last, so that if it exists, everything does.
  atomic_write.write(folder / f'{name}.md', tables)
  return tables


def _by_attribute(evaluation: Evaluation, split: RecordSplit) -> str:
  """Returns the tables, or why there are none: an evaluation is not lost for it."""
  metrics, found = evaluation
  try:
    attributes = table.find(split.directory)
    if attributes is None:
      return ''
    known = attributes.of([one.uid for one in found], table.FILE)
  except InputError as error:
    return f'\nNot shown by attribute: {error}.\n'
  tables = by_attribute.tables(found, known, metrics.get(THRESHOLD))
  return ''.join(f'\n{to_markdown(one)}\n' for one in tables)


def show(
  board: TensorBoardWriter,
  step: int,
  split: str,
  evaluation: Evaluation,
  gallery: Gallery,
  tables: str,
) -> None:
  """Writes scalars, fixed examples, worst examples, charts and tables."""
  board.scalars(step, split, evaluation.metrics)
  board.pictures(step, f'{split} examples', gallery.panels)
  for name, panels in gallery.worst_panels().items():
    board.pictures(step, f'{split} worst {name}', panels)
  board.pictures(step, f'{split} scores', score_charts(evaluation.samples))
  board.text(step, split, tables)


def score_charts(found: Sequence[EvaluatedExample]) -> list[UInt8[np.ndarray, '_ _ 3']]:
  """Draws predicted against annotated scores, and the distributions of both."""
  shape = len(found), len(schema.SCORES)
  predicted, annotated = (
    np.reshape([getattr(sample, side) for sample in found], shape).T
    for side in ('predicted', 'annotated')
  )
  pairs = {name: (annotated[i], predicted[i]) for i, name in enumerate(schema.SCORES)}
  edges = np.linspace(0, 1, 21)
  counted = {
    name: Histogram({'annotated': x, 'predicted': y}, edges)
    for name, (x, y) in pairs.items()
  }
  return [
    charts.scatters(pairs, 'annotated', 'predicted'),
    charts.histograms(counted, 'score', 'share of known values'),
  ]


def _read_or_compute(
  path: epath.Path, compute: Callable[[], dict[str, float] | None]
) -> dict[str, float] | None:
  """Reads metrics from a file, or computes and writes them, if they can be computed."""
  if not path.exists():
    found = compute()
    if found is None:
      return None
    atomic_write.write(path, _to_json(found))
  stored = strict_json.read_own(path, 'delete it, and it will be computed again')
  return {name: np.nan if v is None else v for name, v in stored.items()}


def _to_json(metrics: dict[str, float]) -> str:
  """Converts metrics to JSON; undefined values are null, since JSON has no NaN."""
  values = {k: float(v) if np.isfinite(v) else None for k, v in metrics.items()}
  return json.dumps(values, indent=2) + '\n'
