"""metrics.jsonl: writing it, and resuming a run."""

import json
import math

import pytest
from etils import epath

from rahf.workdir.metrics_log import MetricsLog


@pytest.fixture
def workdir(tmp_path):
  return epath.Path(tmp_path)


def rows(workdir) -> list[dict]:
  return [json.loads(line) for line in lines(workdir)]


def lines(workdir) -> list[str]:
  text = (workdir / 'metrics.jsonl').read_text()
  assert text.endswith('\n')
  return text.splitlines()


def test_lines_hold_step_split_and_values(workdir):
  log = MetricsLog(workdir, 0)
  log.append(2, 'train', {'loss/total': 0.5})
  log.append(2, 'dev', {'overall/plcc': math.nan, 'loss/total': math.inf})
  assert rows(workdir) == [
    {'step': 2, 'split': 'train', 'loss/total': 0.5},
    {'step': 2, 'split': 'dev', 'overall/plcc': None, 'loss/total': None},
  ]
  assert list(rows(workdir)[0]) == ['step', 'split', 'loss/total']


def test_the_best_step_of_a_split(workdir):
  log = MetricsLog(workdir, 0)
  for step, value in ((2, 0.5), (4, math.nan), (6, 0.25), (8, 0.5), (10, 0.25)):
    log.append(step, 'dev', {'overall/srcc': value})
    log.append(step, 'train', {'overall/srcc': 9.0, 'loss/total': -9.0})
  assert log.best('dev', 'overall/srcc', lowest=False) == 2
  assert log.best('dev', 'overall/srcc', lowest=True) == 6
  assert log.best('dev', 'loss/total', lowest=True) is None
  assert MetricsLog(workdir, 6).best('dev', 'overall/srcc', lowest=False) == 2


def test_lines_after_the_resume_step_are_dropped(workdir):
  log = MetricsLog(workdir, 0)
  for step in (1, 2, 3):
    log.append(step, 'train', {'loss/total': step})
  log.append(2, 'dev', {})
  resumed = MetricsLog(workdir, 2)
  assert [(row['step'], row['split']) for row in rows(workdir)] == [
    (1, 'train'),
    (2, 'train'),
    (2, 'dev'),
  ]
  assert resumed.has(2, 'dev')
  assert not resumed.has(3, 'train')
  resumed.append(3, 'train', {'loss/total': 30})
  assert rows(workdir)[-1]['loss/total'] == 30
  assert resumed.has(3, 'train')


@pytest.mark.parametrize(
  'cut',
  [
    *('{"step": 2, "spl', '{"step": 2', '{', '7', '[1, 2]', '{"step": 2}'),
    *('{"split": "dev"}', '{"step": "one", "split": "dev"}'),
  ],
)
def test_a_truncated_or_damaged_line_is_dropped(workdir, cut):
  MetricsLog(workdir, 0).append(1, 'train', {'loss/total': 1})
  whole = lines(workdir)
  with (workdir / 'metrics.jsonl').open('a') as file:
    file.write(cut)
  MetricsLog(workdir, 5).append(2, 'train', {'loss/total': 2})
  assert lines(workdir)[:1] == whole
  assert [row['step'] for row in rows(workdir)] == [1, 2]


def test_a_fresh_start_drops_all_lines(workdir):
  MetricsLog(workdir, 0).append(1, 'train', {})
  log = MetricsLog(workdir, 0)
  assert not log.has(1, 'train')
  assert (workdir / 'metrics.jsonl').read_text() == ''
