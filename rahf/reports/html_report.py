"""Writes an evaluation as one HTML file that needs no network or server.

The page's script inserts annotations as text only, and the page's policy allows only
its own style, script and pictures, so nothing in a prompt can run.
"""

import base64
import math
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from rahf.data import label_words, schema
from rahf.drawing import html_page
from rahf.evaluation.paper_tables import KEYWORD_TITLES, MAP_TITLES
from rahf.evaluation.samples import EvaluatedExample, keyword_f1, score_error
from rahf.fileio import atomic_write
from rahf.metrics.bootstrap import Interval
from rahf.reports.gallery import SmallMap, Thumbnail

SCORE_TITLES = {'plcc': 'PLCC ↑', 'srcc': 'SRCC ↑', 'kendall': 'Kendall τ ↑'}
WORD_TITLES = {
  **{key: f'{title} ↑' for key, title in KEYWORD_TITLES.items()},
  'average_precision': 'average precision ↑',
}
CONSTRAINED = 'keywords_constrained'
# `mse_empty` makes no sense for a single example.
SAMPLE_TITLES = {key: title for key, title in MAP_TITLES.items() if key != 'mse_empty'}


def write(
  path: epath.Path,
  samples: Sequence[EvaluatedExample],
  thumbnails: Sequence[Thumbnail],
  metrics: Mapping[str, float],
  intervals: Mapping[str, Interval],
  *,
  title: str,
) -> None:
  """Writes the page.

  Args:
    path: of the file, `eval/<split>-<step>.html`.
    samples: all samples of the evaluation.
    thumbnails: of the first samples, in order; the page lists only these.
    metrics: of all samples, by name.
    intervals: of the metrics that can be bootstrapped (`samples.intervals`).
    title: data set, split and step.
  """
  data = {
    'scores': schema.SCORES,
    'maps': schema.MAPS,
    'metrics': SAMPLE_TITLES,
    'colours': html_page.colours(),
    'samples': [
      _sample(*pair)
      for pair in zip(samples[: len(thumbnails)], thumbnails, strict=True)
    ],
  }
  page = html_page.render(
    'rahf.reports',
    'report',
    title=title,
    summary=_summary(len(samples), len(thumbnails), metrics),
    tables=_tables(metrics, intervals),
    data=html_page.embed(data),
  )
  atomic_write.write(path, page.html)


def _summary(samples: int, pictured: int, metrics: Mapping[str, float]) -> str:
  text = (
    f'{samples:,} samples. Arrows show which way is better. Grey: 95 % intervals, '
    'bootstrapped over the samples.'
  )
  if pictured < samples:
    text += f' The first {pictured:,} samples are listed below.'
  if cut := int(metrics.get('keywords/truncated', 0)):
    text += f' {cut:,} prompts were truncated; lost words count as aligned.'
  return text


def _sample(sample: EvaluatedExample, thumbnail: Thumbnail) -> dict:
  """Returns the data of a sample for the page; undefined values are null."""
  return {
    'uid': sample.uid,
    # Alternates between text outside words and words.
    'words': _pieces(thumbnail.prompt),
    'image': _base64(thumbnail.image),
    'heat': {name: list(map(_heat, both)) for name, both in thumbnail.maps.items()},
    'annotated': list(map(_number, sample.annotated)),
    'predicted': list(map(_number, sample.predicted)),
    'metrics': {
      name: {key: _number(values[key]) for key in SAMPLE_TITLES}
      for name, values in sample.maps.items()
    },
    'truth': sample.truth or None,
    'marked': sample.marked,
    'p': [round(p, 3) for p in sample.p_misaligned] or None,
    'error': _number(score_error(sample)),
    'f1': _number(keyword_f1(sample)),
  }


def _pieces(prompt: str) -> list[str]:
  pieces, end = [], 0
  for start, stop in label_words.label_spans(prompt):
    pieces += [prompt[end:start], prompt[start:stop]]
    end = stop
  return [*pieces, prompt[end:]]


def _heat(small: SmallMap | None) -> dict | None:
  return small and {'picture': _base64(small.picture), 'peak': round(small.peak, 4)}


def _base64(data: bytes) -> str:
  return base64.b64encode(data).decode()


def _number(value: float) -> float | None:
  return round(value, 4) if math.isfinite(value) else None


def _tables(
  metrics: Mapping[str, float], intervals: Mapping[str, Interval]
) -> list[dict[str, Any]]:
  """Returns tables of all metrics with intervals, for the template."""
  decoders = {'keywords': 'decoded'}
  # Missing if no word is annotated.
  if (threshold := metrics.get(f'{CONSTRAINED}/threshold')) is not None:
    decoders[CONSTRAINED] = f'p > {threshold:.2f}'
  groups = (
    ('Scores', {name: name for name in schema.SCORES}, SCORE_TITLES),
    ('Heatmaps', {name: name for name in schema.MAPS}, MAP_TITLES),
    ('Misaligned words', decoders, WORD_TITLES),
  )
  return [
    {
      'heading': heading,
      'columns': [*columns.values()],
      'rows': [
        (title, [_cell(f'{name}/{key}', metrics, intervals) for name in columns])
        for key, title in titles.items()
      ],
    }
    for heading, columns, titles in groups
  ]


def _cell(
  name: str, metrics: Mapping[str, float], intervals: Mapping[str, Interval]
) -> dict[str, str]:
  """Returns the value, interval, and number of samples where it is undefined."""
  interval = intervals.get(name)
  if interval is None or math.isnan(interval.value):
    return {'value': '–', 'notes': ''}
  digits = 5 if '/mse' in name else 3
  value, low, high = (f'{number:.{digits}f}'.replace('-', '−') for number in interval)
  notes = [] if math.isnan(interval.low) else [f'{low} … {high}']
  if undefined := int(metrics.get(f'{name}/undefined', 0)):
    notes.append(f'({undefined:,} undefined)')
  return {'value': value, 'notes': ' '.join(notes)}
