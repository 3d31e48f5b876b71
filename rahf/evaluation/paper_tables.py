"""The paper's four evaluation tables, with our rows below the published ones.

Published rows are as printed in the paper for RichHF-18K's test split, with PickScore
and CLIP not fine-tuned unless the row says so. Those of the first author's PyTorch
re-implementation are as stated in its repository.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rahf.data import schema
from rahf.drawing.markdown import markdown_table

NAN = math.nan
MAP_TITLES = {
  'mse': 'MSE ↓',
  'mse_empty': 'MSE, empty ↓',
  'cc': 'CC ↑',
  'kld': 'KLD ↓',
  'sim': 'SIM ↑',
  'nss': 'NSS ↑',
  'auc_judd': 'AUC-Judd ↑',
}
KEYWORD_TITLES = {
  'precision': 'precision',
  'recall': 'recall',
  'f1': 'F1',
  'f1_per_sample': 'F1 per sample',
}
MAP_METRICS, KEYWORD_METRICS = tuple(MAP_TITLES), tuple(KEYWORD_TITLES)

# Published scores: PLCC and SRCC for each score of SCORE_ORDER.
SCORE_ORDER = ('plausibility', 'aesthetics', 'alignment', 'overall')
PUBLISHED_SCORES = {
  'ResNet-50': (0.495, 0.487, 0.370, 0.363, 0.108, 0.119, 0.337, 0.308),
  'PickScore': (0.0098, 0.0280, 0.131, 0.140, 0.346, 0.340, 0.202, 0.226),
  'CLIP': (NAN, NAN, NAN, NAN, 0.185, 0.130, NAN, NAN),
  'CLIP, fine-tuned': (0.390, 0.378, 0.357, 0.360, 0.398, 0.390, 0.353, 0.352),
  'RAHF, multi-head': (0.666, 0.654, 0.605, 0.591, 0.487, 0.500, 0.582, 0.561),
  'RAHF, augmented prompt': (0.693, 0.681, 0.600, 0.589, 0.474, 0.496, 0.580, 0.562),
  'RAHF in PyTorch¹': (0.739, 0.726, 0.629, 0.621, 0.565, 0.564, 0.642, 0.634),
}
# In the order of MAP_METRICS.
PUBLISHED_MAPS = {
  'implausibility': {
    'ResNet-50': (0.00996, 0.00093, 0.506, 1.669, 0.338, 2.924, 0.909),
    'RAHF, multi-head': (0.01216, 0.00141, 0.425, 1.971, 0.302, 2.330, 0.877),
    'RAHF, augmented prompt': (0.00920, 0.00095, 0.556, 1.652, 0.409, 3.085, 0.913),
    'RAHF in PyTorch¹': (0.00724, 0.00078, 0.525, 1.649, 0.339, 2.029, 0.905),
  },
  'misalignment': {
    'CLIP gradient': (0.00817, 0.00551, 0.015, 3.844, 0.041, 0.143, 0.643),
    'RAHF, multi-head': (0.00303, 0.00015, 0.206, 2.932, 0.093, 1.335, 0.838),
    'RAHF, augmented prompt': (0.00304, 0.00006, 0.212, 2.933, 0.106, 1.411, 0.841),
    'RAHF in PyTorch¹': (0.00324, 0.00035, 0.232, 2.848, 0.104, 1.256, 0.797),
  },
}
# In the order of KEYWORD_METRICS.
PUBLISHED_KEYWORDS = {
  'RAHF, multi-head': (0.629, 0.330, 0.433, NAN),
  'RAHF, augmented prompt': (0.613, 0.341, 0.439, NAN),
  'RAHF in PyTorch¹ ²': (0.565, 0.452, NAN, 0.475),
}
EMPTY_MAPS = {'implausibility': 69, 'misalignment': 144}

LATEX = {
  **{sign: f'\\{sign}' for sign in '&%$#_{}'},
  **{'~': r'\textasciitilde{}', '^': r'\textasciicircum{}'},
  **{'\\': r'\textbackslash{}', '<': '$<$', '>': '$>$', '–': '--', '−': '$-$'},
  **{'↑': r'$\uparrow$', '↓': r'$\downarrow$', '¹': '$^1$', '²': '$^2$'},
  **{'▲': r'$^{\blacktriangle}$', '▼': r'$^{\blacktriangledown}$'},
}

CONSTANT = 'constant predictor (training means)'
ANNOTATOR = 'one annotator, against the others'
PUBLISHED_NOTE = """\
The rows above ours are published figures for the test split of RichHF-18K (995
samples in the paper; 955 in the release). Rows on other data are not comparable
with them. A dash means not reported or not defined.

¹ The first author's re-implementation, with a larger image encoder (ViT-L/16) and at
  384 pixels. Its NSS and AUC-Judd take every pixel above 0 as fixated, as ours do;
  the paper does not state its choice.
² Precision, recall and F1 are means over the samples; the paper's are pooled."""
CONSTANT_NOTE = """\
The constant predictor returns the training means for every example: what
ignoring the image achieves."""
ANNOTATOR_NOTE = """\
Each annotator in turn is measured like a model against the labels of the others.
Their maps are nearly all 0: where they miss a region, KLD is large, and AUC-Judd,
which has no jitter, counts their ties as wrong."""


class Table(NamedTuple):
  """A table as text: title, note above it, column heads, rows of cells."""

  title: str
  note: str
  header: Sequence[str]
  rows: Sequence[Sequence[str]]


# Marks after a number, by row and metric.
Marks = Mapping[str, Mapping[str, str]]


def evaluation_tables(
  metrics: Mapping[str, float],
  constant: Mapping[str, float] | None = None,
  annotator: Mapping[str, float] | None = None,
  *,
  title: str = 'Evaluation',
  row: str = 'this model',
) -> str:
  """Returns the four tables as Markdown that also reads well in a terminal.

  Args:
    metrics: values by name, as for `paper_tables`.
    constant: the constant predictor's metrics; None for no row.
    annotator: the metrics of one annotator against the others; None for no row.
    title: heading, for example the data set, split and step.
    row: name of the evaluated model's row.
  """
  compared = (
    (CONSTANT, constant, CONSTANT_NOTE),
    (ANNOTATOR, annotator, ANNOTATOR_NOTE),
  )
  known = [each for each in compared if each[1] is not None]
  ours = {row: metrics} | {name: values for name, values, _ in known}
  notes = [*(note for _, _, note in known), PUBLISHED_NOTE]
  sections = [f'# {title}', *map(to_markdown, paper_tables(ours)), *notes]
  return '\n\n'.join(sections) + '\n'


def paper_tables(
  ours: Mapping[str, Mapping[str, float]], marks: Marks | None = None
) -> list[Table]:
  """Returns the paper's tables 1 to 4, with our rows under the published ones.

  Args:
    ours: for each row the values by name, such as `overall/srcc`, `misalignment/nss`,
      `keywords/f1`. With `keywords_constrained/…` there is another row for constrained
      decoding. Missing values and NaN are printed as a dash.
    marks: the marks after our numbers.
  """
  marks = marks or {}
  return [
    _scores(ours, marks),
    *(_maps(name, ours, marks) for name in schema.MAPS),
    _keywords(ours, marks),
  ]


def _scores(ours: Mapping[str, Mapping[str, float]], marks: Marks) -> Table:
  names = [f'{score}/{metric}' for score in SCORE_ORDER for metric in ('plcc', 'srcc')]
  rows = []
  for label, *cells in _rows(PUBLISHED_SCORES, ours, marks, names, [3] * len(names)):
    pairs = zip(cells[::2], cells[1::2], strict=True)
    rows.append([label, *(f'{plcc:>5} / {srcc:>5}' for plcc, srcc in pairs)])
  title = 'Scores: PLCC / SRCC, higher is better'
  return Table(title, '', ['', *SCORE_ORDER], rows)


def _maps(name: str, ours: Mapping[str, Mapping[str, float]], marks: Marks) -> Table:
  names = [f'{name}/{metric}' for metric in MAP_METRICS]
  digits = [5, 5, 3, 3, 3, 3, 3]
  note = (
    f'"Empty" are the samples without an annotated region, {EMPTY_MAPS[name]} in the '
    'paper; CC to AUC-Judd are over the others.'
  )
  rows = _rows(PUBLISHED_MAPS[name], ours, marks, names, digits)
  return Table(f'{name.capitalize()} heatmap', note, ['', *MAP_TITLES.values()], rows)


def _keywords(ours: Mapping[str, Mapping[str, float]], marks: Marks) -> Table:
  prefix = 'keywords_constrained/'
  rows, row_marks = {}, {}
  for label, values in ours.items():
    rows[label], row_marks[label] = values, marks.get(label, {})
    constrained = _renamed(values, prefix)
    if 'keywords/threshold' in constrained:
      threshold = constrained['keywords/threshold']
      name = f'{label}, constrained, p > {threshold:.2f}'
      rows[name], row_marks[name] = constrained, _renamed(row_marks[label], prefix)
  names = [f'keywords/{metric}' for metric in KEYWORD_METRICS]
  percent = {
    label: {name: 100 * values.get(name, NAN) for name in names}
    for label, values in rows.items()
  }
  published = {
    label: [100 * value for value in values]
    for label, values in PUBLISHED_KEYWORDS.items()
  }
  return Table(
    'Misaligned keywords, in percent, higher is better',
    '',
    ['', *KEYWORD_TITLES.values()],
    _rows(published, percent, row_marks, names, [1] * len(names)),
  )


def _renamed(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
  """Returns the metrics of constrained decoding under the names of free decoding."""
  return {
    name.replace(prefix, 'keywords/'): value
    for name, value in values.items()
    if name.startswith(prefix)
  }


def _rows(
  published: Mapping[str, Sequence[float]],
  ours: Mapping[str, Mapping[str, float]],
  marks: Marks,
  names: Sequence[str],
  digits: Sequence[int],
) -> list[list[str]]:
  """Returns labels and cells: published rows, then ours in bold."""
  rows = [
    [label, *(_number(*cell) for cell in zip(values, digits, strict=True))]
    for label, values in published.items()
  ]
  for label, values in ours.items():
    row_marks = marks.get(label, {})
    cells = [
      _number(values.get(name, NAN), places) + row_marks.get(name, '')
      for name, places in zip(names, digits, strict=True)
    ]
    rows.append([f'**{label}**', *cells])
  return rows


def _number(value: float, digits: int) -> str:
  return '–' if math.isnan(value) else f'{value:.{digits}f}'


def to_markdown(table: Table) -> str:
  """Returns a section of a Markdown document."""
  parts = f'## {table.title}', table.note, markdown_table(table.header, table.rows)
  return '\n\n'.join(filter(None, parts))


def to_latex(table: Table) -> str:
  """Returns a `table` environment for LaTeX with the packages booktabs and amssymb."""
  lines = [
    r'\begin{table}',
    r'\centering',
    rf'\caption{{{to_latex_text(". ".join(filter(None, table[:2])))}}}',
    rf'\begin{{tabular}}{{l{"r" * (len(table.header) - 1)}}}',
    r'\toprule',
    _latex_row(table.header),
    r'\midrule',
    *map(_latex_row, table.rows),
    r'\bottomrule',
    r'\end{tabular}',
    r'\end{table}',
  ]
  return '\n'.join(lines)


def _latex_row(cells: Sequence[str]) -> str:
  return ' & '.join(map(to_latex_text, cells)) + r' \\'


def to_latex_text(text: str) -> str:
  """Escapes special characters of LaTeX, and replaces our signs by its commands."""
  bold = text.startswith('**') and text.endswith('**')
  text = text.strip('*')
  text = ''.join(LATEX.get(character, character) for character in text)
  return rf'\textbf{{{text}}}' if bold else text
