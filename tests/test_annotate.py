"""Annotation through Rapidata, with a fake client.

The fake accepts only the arguments of the real client's methods, and returns results
in the documented format, or where there is none in the format that the module assumes.
"""

import csv
import inspect
import sys

import numpy as np
import pytest
from rapidata.rapidata_client.job.rapidata_job_manager import RapidataJobManager

from rahf import annotate
from rahf.annotation import rapidata
from rahf.data import label_words as words_lib
from rahf.data.datasets.annotated import prepare_annotated
from rahf.data.images.codec import encode_png
from rahf.data.labels import raw
from rahf.data.labels.consolidate import consolidate
from rahf.data.storage.records import open_split

PROMPTS = {'a': 'a red  cat, asleep', 'b': 'two dogs'}


class Job:
  def __init__(self, number, results):
    self.id, self.results = f'job-{number}', results

  def get_results(self, preliminary_results=False):
    return {'info': {}, 'results': self.results, 'summary': {}}


class Service:
  """A fake client, job manager and audience in one; answers depend on the job name."""

  def __init__(self, answers):
    self.job = self.audience = self
    self.answers, self.asked, self.jobs = answers, [], []
    self.real = RapidataJobManager

  def __getattr__(self, name):
    if not name.startswith('create_'):
      raise AttributeError(name)
    signature = inspect.signature(getattr(self.real, name))

    def create(**arguments):
      signature.bind(self, **arguments)
      self.asked.append(arguments)
      return arguments

    return create

  def get_audience_by_id(self, audience_id):
    assert audience_id == 'global'
    return self

  def assign_job(self, job_definition):
    name = job_definition['name'].removeprefix('rahf ')
    files = [path.split('/')[-1] for path in job_definition['datapoints']]
    results = [
      {
        'originalFileName': file,
        'detailedResults': [
          answer | {'userDetails': {'userScores': {'global': trust}}}
          for answer, trust in self.answers[name][file[0]]
        ],
      }
      for file in files
    ]
    self.jobs.append(Job(len(self.jobs), results))
    return self.jobs[-1]

  def get_job_by_id(self, job_id):
    return next(job for job in self.jobs if job.id == job_id)


def voted(*levels):
  return [({'votedFor': str(level)}, 0.5) for level in levels]


def selected(*pairs):
  return {'selectedWords': [{'word': w, 'wordIndex': i} for w, i in pairs]}


@pytest.fixture
def service():
  return Service(
    {
      # Many errors in a, none in b.
      'plausibility': {'a': voted(5, 4), 'b': voted(1, 1)},
      'alignment': {'a': voted(2, 3), 'b': voted(5, 5)},
      'aesthetics': {'a': [*voted(3), ({'votedFor': '5'}, 0.0)], 'b': voted(4)},
      'overall': {'a': voted(2), 'b': voted(5)},
      'words': {
        'a': [
          (selected(('red', 1), ('cat,', 2)), 0.9),
          (selected((rapidata.NO_MISTAKE, 4)), 0.3),
        ],
        'b': [(selected((rapidata.NO_MISTAKE, 2)), 0.9)],
      },
      'implausibility': {'a': [({'coordinates': [{'x': 0.25, 'y': 0.5}]}, 0.5)]},
      'misalignment': {'a': [({'coordinates': []}, 0.5)]},
    }
  )


@pytest.fixture
def command(tmp_path, service):
  (tmp_path / 'images').mkdir()
  for uid in PROMPTS:
    path = tmp_path / f'images/{uid}.png'
    path.write_bytes(encode_png(np.zeros((40, 60, 3), np.uint8)))
  with (tmp_path / 'prompts.csv').open('w') as file:
    csv.writer(file).writerows([('uid', 'prompt'), *PROMPTS.items()])

  def run(*flags: str) -> int:
    paths = (
      f'--images={tmp_path / "images"}',
      f'--prompts={tmp_path / "prompts.csv"}',
      f'--out={tmp_path / "jobs"}',
    )
    return annotate.main(['rapidata', *paths, *flags], lambda: service)

  return run


def test_from_questions_to_a_data_set(command, service, tmp_path, capsys):
  assert command('--responses=2') == 0
  assert len(service.asked) == 5
  assert all(asked['responses_per_datapoint'] == 2 for asked in service.asked)
  (words,) = (asked for asked in service.asked if 'sentences' in asked)
  assert words['sentences'] == [
    'a red cat, asleep [No_Mistake]',
    'two dogs [No_Mistake]',
  ]
  scores = [asked for asked in service.asked if 'answer_options' in asked]
  assert [asked['contexts'] for asked in scores] == [list(PROMPTS.values())] * 4

  assert command('--collect') == 0
  assert 'Asked for points' in capsys.readouterr().out
  assert not (tmp_path / 'jobs/annotations.jsonl').exists()
  points = service.asked[5:]
  assert len(points) == 2
  # b scored high.
  assert all(len(asked['datapoints']) == 1 for asked in points)

  assert command('--collect') == 0
  assert len(service.asked) == 7
  annotations = raw.read(tmp_path / 'jobs/annotations.jsonl')
  a = consolidate(annotations['a'], ('a', 'red', 'cat', 'asleep'), 40, 60)
  # Error levels 5 and 4 become scores 1 and 2; untrusted annotators do not count.
  np.testing.assert_allclose(a.scores, (0.125, 0.375, 0.5, 0.25))
  np.testing.assert_allclose(a.misaligned, (0, 0.75, 0.75, 0))
  assert a.maps[0][20, 15] == 1
  assert not a.maps[1].any()
  b = consolidate(annotations['b'], ('two', 'dogs'), 40, 60)
  assert b.maps == (None, None)
  assert b.keyword_labels == (1, 1)
  np.testing.assert_allclose(b.scores, (1, 1, 0.75, 1))

  directory, report = prepare_annotated(
    tmp_path / 'data',
    name='mine',
    annotations=tmp_path / 'jobs/annotations.jsonl',
    images=tmp_path / 'images',
    prompts=tmp_path / 'prompts.csv',
    dev=0,
    test=0,
  )
  assert report.lines == []
  assert len(open_split(directory, 'train')) == 2


def test_words_of_a_prompt_with_other_white_space():
  """The sentence has spaces only; any selected word marks the label token it is in."""
  prompt = '\ufeffa\u00a0red \n circle,\r\nasleep\t'
  asked = rapidata.sentence(prompt)
  assert asked == f'a red circle, asleep {rapidata.NO_MISTAKE}'
  tokens = words_lib.label_tokens(prompt)
  assert tokens == ['\ufeffa\u00a0red', '\n', 'circle', '\r\nasleep\t']
  found = [
    rapidata._words(prompt, selected((word, index))).misaligned_words
    for index, word in enumerate(asked.split(' '))
  ]
  assert found == [[0], [0], [2], [3], []]


def test_started_jobs_are_not_started_again(command, service, tmp_path):
  """The connection fails before job 4, and before the second job for points."""
  assign, broken = service.assign_job, {3: True, 6: True}

  def flaky(job_definition):
    if broken.pop(len(service.jobs), False):
      raise OSError('no connection')
    return assign(job_definition)

  service.assign_job = flaky
  assert command() == 2
  assert command('--collect') == 2
  assert command() == 0
  assert len(service.jobs) == 5
  assert command('--collect') == 2
  assert command('--collect') == 0
  assert command('--collect') == 0
  assert len(service.jobs) == 7
  assert (tmp_path / 'jobs/annotations.jsonl').exists()
  assert len(list((tmp_path / 'jobs').glob('results-*.json'))) == 7


def test_mistakes(command, tmp_path, capsys):
  assert command('--collect') == 2
  assert 'start jobs first' in capsys.readouterr().err
  assert command() == 0
  assert command() == 2
  assert 'to collect its jobs' in capsys.readouterr().err
  jobs = tmp_path / 'jobs/jobs.json'
  whole = jobs.read_text()
  jobs.write_text(whole[:-5])
  assert command('--collect') == 2
  assert 'jobs.json is damaged' in capsys.readouterr().err
  jobs.write_text(whole)
  for file in (tmp_path / 'images').iterdir():
    file.rename(file.with_name(f'other-{file.name}'))
  assert command('--collect') == 2
  assert 'is named after a uid' in capsys.readouterr().err


@pytest.mark.parametrize(
  ('job', 'answer', 'complaint'),
  [
    ('alignment', {'votedFor': 'good'}, "'good' is not one of 1, 2"),
    ('words', selected(('green', 1)), "is not 'green'"),
    ('words', {'words': []}, 'selectedWords'),
    ('words', selected(('red', 17)), 'has no word 17'),
    ('words', selected(('red', -1)), 'has no word -1'),
    ('implausibility', {'coordinates': [{'x': 25, 'y': 50}]}, 'not fractions'),
    ('misalignment', {'coordinates': [[0.5, 0.5]]}, 'unexpected format'),
  ],
)
def test_unexpected_results_are_shown(command, service, capsys, job, answer, complaint):
  service.answers[job]['a'] = [(answer, 0.5)]
  assert command() == 0
  statuses = [command('--collect') for _ in range(2)]
  assert 2 in statuses
  shown = capsys.readouterr().err
  assert complaint in shown
  assert 'adapt rahf/annotation/rapidata.py' in shown


def test_without_the_client_the_extra_is_named(command, monkeypatch, capsys, tmp_path):
  monkeypatch.setitem(sys.modules, 'rapidata', None)
  folder = tmp_path / 'images'
  status = annotate.main(
    ['rapidata', f'--images={folder}', f'--prompts={tmp_path}/prompts.csv', '--out=x']
  )
  assert status == 2
  assert "pip install 'rahf[annotate]'" in capsys.readouterr().err


def test_left_out_rows_are_reported(command, service, tmp_path, capsys):
  rows = [
    'file_name,prompt',
    'a.png,"a red  cat, asleep"',
    'a.png,other',
    'x/b.png,two',
  ]
  rows += ['c.png,three', 'd.png,four']
  (tmp_path / 'prompts.csv').write_text('\n'.join(rows))
  (tmp_path / 'images/d.gif').write_bytes(b'GIF89a')
  assert command() == 0
  assert all(len(asked['datapoints']) == 1 for asked in service.asked)
  told = capsys.readouterr().out
  assert (
    'Left out: 3 uids; the first, b: the table has one for x/b.png, not for' in told
  )
  assert "Several prompts: 1 uids; the first, a: 'a red  cat, asleep' used, not" in told
