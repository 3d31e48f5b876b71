"""stats agrees with the annotations that the sample was made from."""

import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from rahf.data import schema, stats, words
from rahf.data.datasets.richhf18k import prepare_richhf18k
from rahf.errors import InputError


def _rows(table):
  """Returns title -> text of each column; texts hold single spaces only."""
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
  columns, rows = _rows(stats.stats(directory))
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
  # The record whose labels do not fit has no say here.
  fits = [entry for entry in train if not entry['uid'].endswith('7bbc')]
  misaligned = sum(len(entry['misaligned']) for entry in fits)
  tokens = sum(len(entry['tokens']) for entry in fits)
  assert rows['words misaligned'][0] == f'{misaligned / tokens:.1%}'
  lengths = np.percentile([len(entry['tokens']) for entry in train], (5, 50, 95, 100))
  expected = ' / '.join(f'{length:.0f}' for length in lengths)
  assert rows['prompt words, 5 / 50 / 95 % / max'][0] == expected


def test_one_split_alone(directory):
  columns, rows = _rows(stats.stats(directory, 'test'))
  assert columns == ['test']
  assert rows['records'] == ['3']
  with pytest.raises(InputError, match=r"no split 'validation'"):
    stats.stats(directory, 'validation')


def test_facts_of_one_record(picture):
  buffer = io.BytesIO()
  Image.new('L', (4, 4)).save(buffer, 'PNG')
  prompt = 'one, two three four'
  record = schema.Record(
    uid='u',
    image=picture,
    prompt=prompt,
    tokens=tuple(words.label_tokens(prompt)),
    keyword_labels=(1, 1, 1, 0),
    scores=(0.5, 0.5, 0.5, float('nan')),
    implausibility_map=buffer.getvalue(),
    misalignment_map=b'',
  )
  facts = stats.measure(record)
  assert facts.peaks[0] == 0
  assert np.isnan(facts.peaks[1])
  assert (facts.words, facts.aligned) == (4, 0.75)
  assert (facts.size, facts.format) == ('16x8', 'PNG')
  rows = stats.summarise([facts])
  assert rows['overall score, mean ± std'] == 'none'
  assert rows['overall score missing'] == '100.0%'
  assert rows['misalignment map missing'] == '100.0%'
  assert rows['implausibility map empty'] == '100.0%'
