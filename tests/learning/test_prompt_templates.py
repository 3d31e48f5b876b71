"""Templates, and tables of images to generate."""

import csv
import io
import pathlib

import pytest

from rahf.data.sources.source import open_source
from rahf.errors import InputError
from rahf.learning import prompt_templates
from rahf.learning.prompt_templates import expand, read_prompts, read_templates


def write(path: pathlib.Path, text: str) -> pathlib.Path:
  path.write_bytes(text.encode())
  return path


def test_our_templates_are_twenty_and_the_first_changes_nothing():
  text = prompt_templates.DEFAULT.read_text('utf-8')
  lines = text.splitlines()
  assert len(lines) == len(set(lines)) == 20
  assert all(line.count('{prompt}') == 1 and line == line.strip() for line in lines)
  assert not set('{}') & set(text.replace('{prompt}', ''))
  assert read_templates() == lines
  assert lines[0] == '{prompt}'


def test_every_prompt_template_and_seed_once():
  prompts = [f'prompt {number}' for number in range(11)]
  rows = [*expand(prompts, ['{prompt}', 'a photo of {prompt}'], 3)]
  assert len(rows) == 11 * 2 * 3
  assert len({row.file_name for row in rows}) == len(rows)
  assert len({(row.original, row.template, row.seed) for row in rows}) == len(rows)
  assert rows[0] == ('prompt 0', 0, 'prompt 0', 0, 'images/00-0-0.png')
  assert rows[-1] == ('prompt 10', 1, 'a photo of prompt 10', 2, 'images/10-1-2.png')
  # Sorted by name, images are in the order of the table.
  assert [r.file_name for r in rows] == sorted(r.file_name for r in rows)


def test_a_prompt_may_contain_what_looks_like_a_place_or_a_format():
  (row,) = expand(['100 % {prompt} {0} \\1'], ['x {prompt} y'], 1)
  assert row.prompt == 'x 100 % {prompt} {0} \\1 y'


def test_the_table_can_be_read_as_images(tmp_path):
  prompt = 'a "red" circle, on blue'
  file = io.StringIO(newline='')
  prompt_templates.write_table(file, expand([prompt], ['{prompt}', '{prompt}!'], 2))
  path = write(tmp_path / 'prompts.csv', file.getvalue())
  with path.open(newline='') as stream:
    header = next(csv.reader(stream))
  assert header == ['original', 'template', 'prompt', 'seed', 'file_name']
  rows = open_source(str(path), extra='original').read(lambda _: True)
  items = [load() for _, load in rows]
  assert [item.extra for item in items] == [prompt] * 4
  assert [item.prompt for item in items] == [prompt] * 2 + [f'{prompt}!'] * 2
  assert items[3].image == tmp_path / 'images/0-1-1.png'


def test_lines_are_stripped_and_empty_ones_skipped(tmp_path):
  path = write(tmp_path / 'p.txt', '\ufeffgrün \r\n\r\n  blau\u2028hell\n')
  assert read_prompts(path) == ['grün', 'blau\u2028hell']


@pytest.mark.parametrize(
  ('read', 'text', 'message'),
  [
    (read_prompts, ' \n', r'PROMPTS .*t\.txt is empty; write one text a line'),
    (read_prompts, 'a\nb\n a\n', r'lines 1 and 3 are the same; remove one'),
    (read_prompts, 'a\nb\0', r't\.txt, line 2: it has NUL characters'),
    (read_templates, '{prompt}\nno place', r"line 2: 'no place' has {prompt} 0 times"),
    (read_templates, '\n{prompt} {prompt}', r'line 2: .* has {prompt} 2 times, not'),
    (read_templates, '', r'--templates=.*t\.txt is empty'),
  ],
)
def test_bad_lines_are_named(tmp_path, read, text, message):
  with pytest.raises(InputError, match=message):
    read(write(tmp_path / 't.txt', text))


def test_missing_files_are_named(tmp_path):
  with pytest.raises(InputError, match=r'PROMPTS .*none\.txt: no such file'):
    read_prompts(tmp_path / 'none.txt')
