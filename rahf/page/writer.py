"""Writes an evaluation as one HTML file that needs no network and no server.

The page's script sets texts from annotations as text only, and the page's policy lets
nothing run or load but its own style, script and pictures, whatever a prompt holds.
"""

import base64
import hashlib
import html
import json
import math
import re
from collections.abc import Mapping, Sequence
from importlib import resources

import numpy as np
from etils import epath

from rahf import panels
from rahf.data import schema, words
from rahf.gallery import Thumbnail
from rahf.metrics.bootstrap import Interval
from rahf.samples import Sample, keyword_f1, score_error

MAP_METRICS = {
  'mse': 'MSE ↓',
  'cc': 'CC ↑',
  'kld': 'KLD ↓',
  'sim': 'SIM ↑',
  'nss': 'NSS ↑',
  'auc_judd': 'AUC-Judd ↑',
}
SCORE_METRICS = {'plcc': 'PLCC ↑', 'srcc': 'SRCC ↑', 'kendall': 'Kendall τ ↑'}
KEYWORD_METRICS = {
  'precision': 'precision ↑',
  'recall': 'recall ↑',
  'f1': 'F1 ↑',
  'f1_per_sample': 'F1 per sample ↑',
  'average_precision': 'average precision ↑',
}


def write(
  path: epath.Path,
  samples: Sequence[Sample],
  thumbnails: Sequence[Thumbnail],
  intervals: Mapping[str, Interval],
  *,
  title: str,
) -> None:
  """Writes the page.

  Args:
    path: of the file, `eval/<split>-<step>.html`.
    samples: all of the evaluation.
    thumbnails: of the first samples, in their order; the page lists those that have
      one.
    intervals: the metrics of all samples by name, as in `rahf.samples.metrics`.
    title: data set, split and step.
  """
  folder = resources.files('rahf.page')
  parts = {
    name: (folder / file).read_text('utf-8')
    for name, file in (('style', 'style.css'), ('script', 'script.js'))
  }
  data = {
    'scores': schema.SCORES,
    'maps': schema.MAPS,
    'metrics': MAP_METRICS,
    'colours': _colours(),
    'samples': [
      _sample(*pair)
      for pair in zip(samples[: len(thumbnails)], thumbnails, strict=True)
    ],
  }
  parts |= {
    'policy': _policy(parts['style'], parts['script']),
    'title': html.escape(title),
    'summary': html.escape(_summary(len(samples), len(thumbnails))),
    'metrics': _metrics(intervals),
    # No tag can begin within it.
    'data': json.dumps(data, allow_nan=False).replace('<', '\\u003c'),
  }
  template = (folder / 'template.html').read_text('utf-8')
  # One pass, so that what is filled in is not looked at again.
  page = re.sub(r'{{(\w+)}}', lambda match: parts[match[1]], template)
  path.write_text(page, encoding='utf-8')


def _policy(style: str, script: str) -> str:
  """Allows this style and this script by their hashes, pictures within the page."""
  hashes = (
    base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    for text in (style, script)
  )
  styles, scripts = (f"'sha256-{value}'" for value in hashes)
  return f"default-src 'none'; img-src data:; style-src {styles}; script-src {scripts}"


def _summary(samples: int, pictured: int) -> str:
  text = (
    f'{samples:,} samples. Arrows say which way is better; in grey 95 % intervals, '
    'bootstrapped over the samples.'
  )
  if pictured < samples:
    text += f' The first {pictured:,} samples are listed below.'
  return text


def _colours() -> list[list[int]]:
  """Red, green, blue and opacity for each of 256 values of a map, from 0 to 1."""
  colours, alpha = panels.heat(np.linspace(0, 1, 256))
  both = np.concatenate([colours, 255 * alpha[:, None]], axis=1)
  return np.round(both).astype(int).tolist()


def _sample(sample: Sample, thumbnail: Thumbnail) -> dict:
  """Returns what the page shows of a sample; null is what is not defined."""
  return {
    'uid': sample.uid,
    # In turn what stands between words, and a word.
    'words': _pieces(thumbnail.prompt),
    'image': _base64(thumbnail.image),
    'heat': {name: list(map(_base64, both)) for name, both in thumbnail.maps.items()},
    'annotated': list(map(_number, sample.annotated)),
    'predicted': list(map(_number, sample.predicted)),
    'metrics': {
      name: {key: _number(values[key]) for key in MAP_METRICS}
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
  for start, stop in words.label_spans(prompt):
    pieces += [prompt[end:start], prompt[start:stop]]
    end = stop
  return [*pieces, prompt[end:]]


def _base64(data: bytes | None) -> str | None:
  return None if data is None else base64.b64encode(data).decode()


def _number(value: float) -> float | None:
  return round(value, 4) if math.isfinite(value) else None


def _metrics(intervals: Mapping[str, Interval]) -> str:
  """Returns tables of all metrics with their intervals, in HTML."""
  maps = {'mse': 'MSE ↓', 'mse_empty': 'MSE, empty ↓'} | MAP_METRICS
  keywords = {'keywords': 'decoded', 'keywords_constrained': 'by p'}
  return ''.join(
    [
      _table(
        'Scores', {name: name for name in schema.SCORES}, SCORE_METRICS, intervals
      ),
      _table('Heatmaps', {name: name for name in schema.MAPS}, maps, intervals),
      _table('Misaligned words', keywords, KEYWORD_METRICS, intervals),
    ]
  )


def _table(
  title: str,
  columns: Mapping[str, str],
  metrics: Mapping[str, str],
  intervals: Mapping[str, Interval],
) -> str:
  heads = ''.join(f'<th scope="col">{text}</th>' for text in columns.values())
  rows = ''.join(
    f'<tr><th scope="row">{text}</th>'
    + ''.join(_cell(key, intervals.get(f'{name}/{key}')) for name in columns)
    + '</tr>'
    for key, text in metrics.items()
  )
  return (
    f'<div><h2>{title}</h2><table><thead><tr><td></td>{heads}</tr></thead>'
    f'<tbody>{rows}</tbody></table></div>'
  )


def _cell(metric: str, interval: Interval | None) -> str:
  if interval is None or math.isnan(interval.value):
    return '<td>–</td>'
  digits = 5 if metric.startswith('mse') else 3
  value, low, high = (f'{number:.{digits}f}'.replace('-', '−') for number in interval)
  bounds = '' if math.isnan(interval.low) else f' <small>{low} … {high}</small>'
  return f'<td>{value}{bounds}</td>'
