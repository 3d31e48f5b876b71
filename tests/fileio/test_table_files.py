"""CSV, TSV and JSON lines of other programs; no row is lost silently."""

import csv
import io
import math

import pytest

from rahf.errors import InputError
from rahf.fileio.table_files import Delimited, first_column, json_lines, parse_object


def rows(tmp_path, name: str, text: str | bytes) -> list[tuple[int, list[str]]]:
  path = tmp_path / name
  path.write_bytes(text.encode() if isinstance(text, str) else text)
  return [(line, [*values.values()]) for line, values in Delimited(path).rows()]


def test_rows_and_their_line_numbers(tmp_path):
  text = 'a,b\r\n1,"x, ""y""\n\rz"\r\n\r\n2,5" wide\r\n3,'
  # The quoted value has a line end and a carriage return, which are two more lines.
  assert rows(tmp_path, 't.csv', text) == [
    (2, ['1', 'x, "y"\n\rz']),
    (6, ['2', '5" wide']),
    (7, ['3', '']),
  ]
  assert rows(tmp_path, 't.csv', 'a,b\r1,x\r2,y\r') == [
    (2, ['1', 'x']),
    (3, ['2', 'y']),
  ]
  assert rows(tmp_path, 't.csv', '') == []


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('a,b\n1,x\n2,red, blue\n', 'line 3: 3 values, but 2 columns .* needs quotes'),
    ('a,b\n\n1,"x\ny"\n2, "red, blue"\n', 'line 5: 3 values, but 2 columns'),
    ('a,b\n1,x\n2\n', 'line 3: 1 value, but 2 columns .* a comma for each empty value'),
    ('a\nx, y\n', 'line 2: 2 values, but 1 column in'),
    (
      'a,b\n1,"x\n2,y\n3,z\n',
      """line 2: the quote that opens in '"x' is never closed""",
    ),
    ('a,b\n1,"x\n2,"y"\n3,z\n', """line 2: the quote that opens in '"x'"""),
    ('a,b\n1,"x" y\n', """line 2: the quote that opens in '"x" y'"""),
    ('a,b,c\n1,"x\n\ny","z\n2,y,x\n', """line 4: the quote that opens in '"z'"""),
    ('a,b\r"1\r2","x\r3,y', """line 3: the quote that opens in '"x'"""),
    ('a,b\n1,"' + 'x\n' * 100_000, 'line 2: the quote that opens in'),
    ('a,b\n1,' + 'x' * 200_000, r'line 2: it cannot be read \(field larger'),
  ],
)
def test_csv_is_read_strictly(tmp_path, text, message):
  with pytest.raises(InputError, match=rf't\.csv, {message}'):
    rows(tmp_path, 't.csv', text)


def test_quotes_in_tsv_are_ordinary_characters(tmp_path):
  text = 'a\tb\n1\t5" wide\n2\t"a blue\n3\t"a star"\n4\tx, "y\n5\t""\n'
  assert rows(tmp_path, 't.tsv', text) == [
    (2, ['1', '5" wide']),
    (3, ['2', '"a blue']),
    (4, ['3', '"a star"']),
    (5, ['4', 'x, "y']),
    (6, ['5', '""']),
  ]
  with pytest.raises(
    InputError, match=r'line 2: 1 value, .* cannot contain tabs or line '
  ):
    rows(tmp_path, 't.tsv', 'a\tb\n"1\n2"\tx\n')
  with pytest.raises(
    InputError, match=r'line 2: 3 values, .* cannot contain tabs or line'
  ):
    rows(tmp_path, 't.tsv', 'a\tb\n1\t"x\ty"\n')


@pytest.mark.parametrize('quoting', [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
def test_tsv_quoted_like_csv(tmp_path, quoting):
  """As written by Python's csv and by pandas."""
  values = ['a sign "hello"', '"hello"', '"', 'plain', '5" x 6"']
  # Line ends and tabs are only supported if every value is quoted.
  values += ['two\nlines', 'a\ttab'] * (quoting == csv.QUOTE_ALL)
  text = io.StringIO()
  writer = csv.writer(text, delimiter='\t', quoting=quoting)
  writer.writerows([('a', 'b'), *enumerate(values)])
  found = rows(tmp_path, 't.tsv', text.getvalue())
  assert [value for _, (_, value) in found] == values


@pytest.mark.parametrize(
  ('encoding', 'message'),
  [
    ('utf-16', r'line 1: it is UTF-16; save it as UTF-8'),
    ('utf-16-le', 'line 1: it has NUL characters, as in UTF-16'),
    ('utf-16-be', 'line 1: it has NUL characters'),
    ('latin-1', "line 2: byte 0xe4 after '1,a gr' is not UTF-8"),
  ],
)
def test_other_encodings_are_named(tmp_path, encoding, message):
  text = 'a,b\n1,a gr\xe4y cat\n'.encode(encoding)
  with pytest.raises(InputError, match=rf't\.csv cannot be read \({message}'):
    rows(tmp_path, 't.csv', text)


def test_a_git_lfs_pointer_is_named(tmp_path):
  pointer = 'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n'
  with pytest.raises(InputError, match=r't\.csv is a Git LFS pointer.*lfs pull'):
    rows(tmp_path, 't.csv', pointer)
  (tmp_path / 't.jsonl').write_text(pointer)
  with pytest.raises(InputError, match=r't\.jsonl is a Git LFS pointer.*lfs pull'):
    [*json_lines(tmp_path / 't.jsonl')]


def test_lines_of_json_end_at_newlines_only(tmp_path):
  path = tmp_path / 't.jsonl'
  # Line ends to Python's `splitlines`; JSON allows them in a string.
  value = 'a\u2028b\u2029c\x85d'
  path.write_text(f'\ufeff{{"a": "{value}"}}\r\n \n{{"a": 2}}', 'utf-8', newline='')
  found = [(number, parse_object(line)) for number, line in json_lines(path)]
  assert found == [(1, {'a': value}), (3, {'a': 2})]


def test_nan_is_read_and_other_errors_are_named():
  found = parse_object('{"a": NaN, "b": -Infinity, "c": 1e999, "d": "x"}')
  assert math.isnan(found['a'])
  assert (found['b'], found['c'], found['d']) == (-math.inf, math.inf, 'x')
  for line, message in (
    ('{"a": 1,}', r'not JSON \(.* at character'),
    ('[1]', 'not a JSON object'),
    ('{"a": 1, "a": 2}', "'a' occurs twice"),
    ('{"a": "\udcff"}', 'byte 0xff after .* is not UTF-8'),
    ('{\0"\0a\0', 'NUL characters'),
  ):
    with pytest.raises(ValueError, match=message):
      parse_object(line)


def test_duplicate_columns_are_refused():
  names = ['x', 'path', 'x', 'image']
  assert first_column('t', ('image', 'path'), names) == 'image'
  assert first_column('t', ('uid', 'id'), names) is None
  with pytest.raises(InputError, match='t: the column x occurs twice'):
    first_column('t', ('x',), names)
