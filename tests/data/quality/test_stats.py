"""Statistics agree with the annotations that the sample was made from."""

import io
import json
import re

import numpy as np
import pytest
from PIL import Image
from util import make_record

from rahf.data import label_words, schema
from rahf.data.datasets.richhf18k.builder import prepare_richhf18k
from rahf.data.images import codec
from rahf.data.labels.agreement import krippendorff_alpha
from rahf.data.labels.consolidate import Annotation
from rahf.data.quality import figures, stats
from rahf.drawing import charts
from rahf.errors import InputError


def _rows(table):
  """Returns title -> text of each column; texts contain single spaces only."""
  header, *lines = table.splitlines()
  rows = (re.split(r'\s{2,}', line.strip()) for line in lines)
  return header.split(), {title: texts for title, *texts in rows}


@pytest.fixture(scope='module')
def directory(assets, tmp_path_factory):
  folder = assets / 'richhf_sample'
  return prepare_richhf18k(
    tmp_path_factory.mktemp('stats'), labels=folder, images=folder / 'pickapic'
  )[0]


def test_sample_statistics(directory, assets):
  manifest = json.loads((assets / 'richhf_sample/manifest.json').read_text())
  columns, rows = _rows(stats.table(stats.collect(directory)))
  assert columns == ['train', 'dev', 'test']
  for column, split in enumerate(columns):
    entries = [entry for entry in manifest if entry['split'] == split]
    assert rows['records'][column] == str(len(entries))
    for name in schema.SCORES:
      values = [entry['scores'][name] for entry in entries]
      expected = f'{np.mean(values):.3f} ± {np.std(values):.3f}'
      assert rows[f'{name} score, mean ± std'][column] == expected
  train = [entry for entry in manifest if entry['split'] == 'train']
  empty = np.mean([not entry['artifact_points'] for entry in train])
  assert rows['implausibility map empty'][0] == f'{empty:.1%}'
  assert rows['keyword labels missing'] == [f'{1 / 13:.1%}', '0.0%', '0.0%']
  # The record whose labels do not fit is not counted.
  fits = [entry for entry in train if not entry['uid'].endswith('7bbc')]
  misaligned = sum(len(entry['misaligned']) for entry in fits)
  tokens = sum(len(entry['tokens']) for entry in fits)
  assert rows['words misaligned'][0] == f'{misaligned / tokens:.1%}'
  lengths = np.percentile([len(entry['tokens']) for entry in train], (5, 50, 95, 100))
  expected = ' / '.join(f'{length:.0f}' for length in lengths)
  assert rows['prompt words, 5 / 50 / 95 % / max'][0] == expected


def test_a_single_split(directory):
  columns, rows = _rows(stats.table(stats.collect(directory, 'test')))
  assert columns == ['test']
  assert rows['records'] == ['3']
  with pytest.raises(InputError, match=r"no split 'validation'"):
    stats.collect(directory, 'validation')


def test_facts_of_one_record(picture):
  buffer = io.BytesIO()
  Image.new('L', (4, 4)).save(buffer, 'PNG')
  prompt = 'one, two three four'
  record = schema.Record(
    uid='u',
    image=picture,
    prompt=prompt,
    tokens=tuple(label_words.label_tokens(prompt)),
    keyword_labels=(1, 1, 1, 0),
    scores=(0.5, 0.5, 0.5, float('nan')),
    implausibility_map=buffer.getvalue(),
    misalignment_map=b'',
  )
  facts = stats.measure(record)
  assert facts.coverage[0] == 0
  assert np.isnan(facts.coverage[1])
  assert np.isnan(facts.differences).all()
  assert (facts.words, facts.aligned) == (4, 0.75)
  assert (facts.size, facts.format) == ('16x8', 'PNG')
  rows = stats.summarise([facts])
  assert rows['overall score, mean ± std'] == 'none'
  assert rows['overall score missing'] == '100.0%'
  assert rows['misalignment map missing'] == '100.0%'
  assert rows['implausibility map empty'] == '100.0%'


def test_sizes_are_those_of_upright_images():
  buffer = io.BytesIO()
  exif = Image.Exif()
  exif[0x0112] = 6
  Image.new('RGB', (16, 8)).save(buffer, 'JPEG', exif=exif)
  assert stats.measure(make_record(image=buffer.getvalue())).size == '8x16'


def test_differences_between_annotators():
  """In steps of the scale, among those who were asked."""
  annotations = [
    Annotation(scores=(1, 3, 2, None)),
    Annotation(scores=(5, 3, None, None)),
    Annotation(scores=(2, 3, 3, 4)),
  ]
  found = stats.measure(make_record(), annotations).differences
  np.testing.assert_array_equal(found, (1.0, 0.0, 0.25, np.nan))
  facts = [stats.measure(make_record(i), annotations[i:]) for i in range(2)]
  rows = stats.summarise(facts)
  title = '{}: annotators agree / differ by at most one step'
  # 1 and 3/4; 0 and 0; 1/4 and unknown; unknown.
  assert rows[title.format('plausibility')] == '0.0% / 0.0%'
  assert rows[title.format('alignment')] == '100.0% / 100.0%'
  assert rows[title.format('aesthetics')] == '0.0% / 100.0%'
  assert title.format('overall') not in rows


def test_annotators_alpha():
  """Equals that of the whole matrix; every word is a unit."""
  likert = [[(1, 2), (2, 2), (4, 5)], [(5, 4), (3, 3), (1, 1)]]
  facts = []
  for number, image in enumerate(likert):
    said = [
      Annotation(misaligned_words=[number] if i else [], scores=(*pair, None, None))
      for i, pair in enumerate(image)
    ]
    facts.append(stats.measure(make_record(number), said))
  rows = stats.summarise(facts)
  expected = krippendorff_alpha(np.array([[1, 5], [2, 3], [4, 1]], float))
  assert rows["plausibility: annotators' alpha"] == f'{expected:.3f}'
  assert "aesthetics: annotators' alpha" not in rows
  # Five words each; two of three annotators mark one of them.
  marks = np.zeros((3, 10))
  marks[1:, [0, 6]] = 1
  expected = krippendorff_alpha(marks, 'nominal')
  assert rows["misaligned words: annotators' alpha"] == f'{expected:.3f}'


def test_values_unknown_in_one_split_are_not_zero():
  known = stats.measure(make_record(), [Annotation(scores=(1, 2, 3, 4))] * 2)
  unknown = stats.measure(make_record())
  _, rows = _rows(stats.table({'train': [known], 'test': [unknown]}))
  title = 'overall: annotators agree / differ by at most one step'
  assert rows[title] == ['100.0% / 100.0%', '–']


def test_coverage_excludes_empty_maps():
  half = np.zeros((4, 4), np.uint8)
  half[:2] = 9
  records = [
    make_record(0, implausibility_map=codec.encode_png(half)),
    make_record(1, implausibility_map=codec.encode_png(0 * half)),
    make_record(2, implausibility_map=b''),
  ]
  facts = [stats.measure(record) for record in records]
  np.testing.assert_array_equal([f.coverage[0] for f in facts], (0.5, 0, np.nan))
  rows = stats.summarise(facts)
  assert rows['implausibility map coverage if not empty, mean'] == '50.0%'
  assert rows['implausibility map empty'] == '33.3%'
  assert rows['implausibility map missing'] == '33.3%'


def test_charts_by_split(directory, tmp_path):
  facts = stats.collect(directory)
  names = figures.write(tmp_path / 'new', facts)
  # The release has no raw annotations.
  assert names == ['scores.png', 'coverage.png', 'words.png']
  for name in names:
    picture = np.asarray(Image.open(tmp_path / 'new' / name))
    assert picture.shape[1:] == (charts.WIDTH, 3)
  alone = figures.draw({'train': facts['train']})['scores']
  assert not np.array_equal(alone, figures.draw(facts)['scores'])


def test_charts_of_missing_labels():
  """One record, all of whose labels are missing."""
  record = make_record(
    0,
    scores=(np.nan,) * 4,
    keyword_labels=(),
    implausibility_map=b'',
    misalignment_map=b'',
  )
  assert figures.draw({'test': [stats.measure(record)]}).keys() == {
    'scores',
    'coverage',
    'words',
  }
  annotations = [Annotation(scores=(1, 2, 3, 4)), Annotation(scores=(1, 2, 3, 5))]
  facts = {'test': [stats.measure(make_record(0), annotations)]}
  assert 'differences' in figures.draw(facts)
