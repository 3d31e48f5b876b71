"""Rows of several files by their position."""

import pytest
from PIL import Image

from rahf.data.datasets.shapes.builder import prepare_shapes
from rahf.data.sources.source import open_source
from rahf.errors import InputError


def test_some_rows_of_several_files(tmp_path):
  """Files that have none of them are not opened."""
  header, row = 'image,prompt\n', 'x.png,{}\n'
  prompts = {'a.csv': 'abc', 'b.csv': '', 'c.csv': 'de', 'd.csv': 'fgh'}
  for name, letters in prompts.items():
    (tmp_path / name).write_text(header + ''.join(map(row.format, letters)))
  source = open_source(str(tmp_path))
  (tmp_path / 'c.csv').unlink()
  found = [(place, load().prompt) for place, load in source.read_rows([7, 0, 5, 2])]
  assert found == [(0, 'a'), (2, 'c'), (5, 'f'), (7, 'h')]
  files = [source.file_of(place).name[0] for place in range(source.rows)]
  assert ''.join(files) == 'aaaccddd'
  (tmp_path / 'd.csv').write_text(header + row.format('f'))
  rows = source.read_rows([5, 6])
  assert next(rows)[0] == 5
  with pytest.raises(InputError, match='changed while being read'):
    next(rows)


def test_a_prepared_data_set_with_reports_beside_it(tmp_path):
  """As `python -m rahf.data stats` writes them."""
  folder = prepare_shapes(tmp_path, train=2, dev=1, test=1)
  (folder / 'stats').mkdir()
  Image.new('RGB', (8, 8)).save(folder / 'stats/labels.png')
  (folder / 'attributes.csv').write_text('uid,kind\n')
  assert open_source(str(folder), images_only=True).rows == 4
