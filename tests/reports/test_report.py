"""The report files of an evaluation."""

import json
import math
import re
import shutil

import numpy as np
import pytest
from etils import epath

from rahf.drawing import charts
from rahf.errors import InputError
from rahf.evaluation import paper_tables
from rahf.evaluation.samples import EvaluatedExample, Evaluation
from rahf.reports import report
from rahf.reports.gallery import Gallery

NAN = math.nan


def test_a_run_leaves_the_page_and_the_annotators_row(trained):
  page = (trained / 'eval/dev-4.html').read_text()
  data = json.loads(page.split('id="data">')[1].split('</script>')[0])
  # The number in the config, of 61.
  assert len(data['samples']) == 5
  assert '61 samples' in page
  assert 'The first 5 samples are listed' in page
  text = (trained / 'eval/dev-4.md').read_text()
  assert paper_tables.ANNOTATOR in text
  assert paper_tables.ANNOTATOR_NOTE in text
  values = json.loads((trained / 'eval/dev-annotator.json').read_text())
  row = next(line for line in text.splitlines() if paper_tables.ANNOTATOR in line)
  assert f'{values["plausibility/plcc"]:.3f}' in row
  assert 0.5 < values['plausibility/plcc'] < 1
  assert 0.5 < values['keywords/f1'] < 1


class NoRecords:
  """A split that raises when it is read."""

  def __init__(self, directory, name):
    self.directory, self.name = epath.Path(directory), name

  def __iter__(self):
    raise AssertionError('was read')

  def undamaged(self):
    yield from self

  def __len__(self):
    return 1


def write(trained, tmp_path, metrics):
  """Writes an evaluation of one sample; the comparison rows exist already."""
  for row in ('constant', 'annotator'):
    name = f'dev-{row}.json'
    if not (tmp_path / name).exists():
      shutil.copy(trained / 'eval' / name, tmp_path / name)
  sample = EvaluatedExample('x', (0.5,) * 4, (NAN,) * 4, {}, (), ())
  return report.write(
    epath.Path(tmp_path),
    Evaluation(metrics, [sample]),
    Gallery(),
    data_name='shapes',
    train=NoRecords(tmp_path, 'train'),
    split=NoRecords(tmp_path, 'dev'),
    step=7,
  )


def test_computed_rows_are_reused(trained, tmp_path):
  text = write(trained, tmp_path, {'overall/plcc': NAN, 'keywords/truncated': 0})
  assert paper_tables.ANNOTATOR in text
  assert paper_tables.CONSTANT in text
  assert 'Prompts truncated' not in text
  assert json.loads((tmp_path / 'dev-7.json').read_text())['overall/plcc'] is None


@pytest.mark.parametrize('text', ['', '{"overall/plcc": 0.', '[]'])
def test_a_damaged_row_is_reported(trained, tmp_path, text):
  (tmp_path / 'dev-constant.json').write_text(text)
  with pytest.raises(InputError, match=r'dev-constant\.json is damaged .*delete it'):
    write(trained, tmp_path, {'keywords/truncated': 0})


def test_without_thumbnails_there_is_no_page(trained, tmp_path):
  text = write(trained, tmp_path, {'keywords/truncated': 1})
  assert re.search(r'Prompts truncated .*: 1 of 1\.', text)
  assert {path.suffix for path in tmp_path.glob('dev-7*')} == {'.md', '.json', '.jsonl'}


def test_score_charts_leave_out_unknown_values():
  known = EvaluatedExample('x', (0.5,) * 4, (0.25, 0.5, 0.75, 1.0), {}, (), ())
  unknown = known._replace(annotated=(NAN,) * 4, predicted=(0.9,) * 4)
  one, both = report.score_charts([known]), report.score_charts([known, unknown])
  assert [chart.shape[1] for chart in one] == [charts.WIDTH] * 2
  np.testing.assert_array_equal(one[0], both[0])
  # The histogram of predictions includes it.
  assert not np.array_equal(one[1], both[1])


@pytest.mark.parametrize('count', [0, 1])
def test_charts_without_annotations(count):
  sample = EvaluatedExample('x', (0.5,) * 4, (NAN,) * 4, {}, (), ())
  assert len(report.score_charts([sample] * count)) == 2
