"""The evaluation tables: published digits, our rows, and Markdown that aligns."""

import math

import pytest

from rahf.data import schema
from rahf.evaluation import paper_tables

METRICS = {
  'plausibility/plcc': 0.5126,
  'plausibility/srcc': -0.25,
  'overall/srcc': math.nan,
  'implausibility/mse': 0.012344,
  'implausibility/mse_empty': 0.00041,
  'implausibility/auc_judd': 0.87654,
  'misalignment/nss': 1.23456,
  'keywords/precision': 0.5,
  'keywords/f1_per_sample': 0.4321,
}


def parse(markdown):
  """Returns {section heading: {row label: [cells]}} and checks the alignment."""
  sections = {}
  for line in markdown.splitlines():
    if line.startswith('## '):
      table = sections[line[3:].split(':')[0]] = {}
      width = None
    if line.startswith('|'):
      width = width or len(line)
      assert len(line) == width
      label, *cells = (cell.strip() for cell in line.strip('|').split('|'))
      table[label.strip('*')] = cells
  return sections


@pytest.fixture(scope='module')
def sections():
  constant = {'implausibility/mse': 0.02, 'plausibility/plcc': math.nan}
  return parse(paper_tables.evaluation_tables(METRICS, constant, row='tiny'))


def test_published_rows(sections):
  scores, implausible, misaligned, keywords = sections.values()
  assert scores['RAHF, augmented prompt'][0] == '0.693 / 0.681'
  assert scores['RAHF, multi-head'][2] == '0.487 / 0.500'
  assert implausible['RAHF, augmented prompt'] == (
    ['0.00920', '0.00095', '0.556', '1.652', '0.409', '3.085', '0.913']
  )
  assert misaligned['RAHF, multi-head'] == (
    ['0.00303', '0.00015', '0.206', '2.932', '0.093', '1.335', '0.838']
  )
  assert keywords['RAHF, multi-head'] == ['62.9', '33.0', '43.3', '–']


def test_our_rows_stand_under_their_columns(sections):
  scores, implausible, misaligned, keywords = sections.values()
  assert scores['tiny'][scores[''].index('plausibility')] == '0.513 / -0.250'
  assert scores['tiny'][scores[''].index('overall')].split() == ['–', '/', '–']
  assert implausible['tiny'] == ['0.01234', '0.00041', '–', '–', '–', '–', '0.877']
  assert misaligned['tiny'][misaligned[''].index('NSS ↑')] == '1.235'
  assert keywords['tiny'] == ['50.0', '–', '–', '43.2']


def test_every_metric_has_a_cell():
  names = [f'{score}/{name}' for score in schema.SCORES for name in ('plcc', 'srcc')]
  names += [f'{map}/{name}' for map in schema.MAPS for name in paper_tables.MAP_METRICS]
  names += [f'keywords/{name}' for name in paper_tables.KEYWORD_METRICS]
  # Distinct values that no published row has, so that none is mistaken for another.
  values = {name: 0.00777 + 0.01 * i for i, name in enumerate(names)}
  text = paper_tables.evaluation_tables(values)
  (*rows,) = (line for line in text.splitlines() if '**this model**' in line)
  cells = [
    c.strip() for row in rows for part in row.split('|')[2:-1] for c in part.split('/')
  ]
  assert len(set(cells)) == len(cells) == len(names)
  assert '–' not in cells


def test_constant_row_is_optional(sections):
  assert sections['Implausibility heatmap'][paper_tables.CONSTANT][0] == '0.02000'
  assert paper_tables.CONSTANT not in paper_tables.evaluation_tables(METRICS)


def test_constrained_row_follows_its_model(sections):
  keywords = 'Misaligned keywords, in percent, higher is better'
  assert not any('constrained' in label for label in sections[keywords])
  metrics = METRICS | {
    'keywords_constrained/recall': 0.25,
    'keywords_constrained/threshold': 0.375,
  }
  rows = parse(paper_tables.evaluation_tables(metrics, {}, row='tiny'))[keywords]
  label = 'tiny, constrained, p > 0.38'
  assert rows[label] == ['–', '25.0', '–', '–']
  assert list(rows)[-3:] == ['tiny', label, paper_tables.CONSTANT]


def test_title_and_note():
  text = paper_tables.evaluation_tables(METRICS, title='Shapes, step 200')
  assert text.startswith('# Shapes, step 200\n')
  assert 'not comparable' in text
