"""Parquet files with the documented columns of Pick-a-Pic v1."""

import datetime
import io
import pathlib
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

SCHEMA = pa.schema(
  [
    ('are_different', pa.bool_()),
    ('best_image_uid', pa.string()),
    ('caption', pa.string()),
    ('created_at', pa.timestamp('ns')),
    ('has_label', pa.bool_()),
    ('image_0_uid', pa.string()),
    ('image_0_url', pa.string()),
    ('image_1_uid', pa.string()),
    ('image_1_url', pa.string()),
    ('jpg_0', pa.binary()),
    ('jpg_1', pa.binary()),
    ('label_0', pa.float64()),
    ('label_1', pa.float64()),
    ('model_0', pa.string()),
    ('model_1', pa.string()),
    ('ranking_id', pa.int64()),
    ('user_id', pa.int64()),
    ('num_example_per_prompt', pa.int64()),
    ('__index_level_0__', pa.int64()),
  ]
)
FORMATS = ('PNG', 'JPEG', 'WEBP')


def picture(number: int) -> bytes:
  """Returns an image whose width in pixels is number + 1, in alternating formats."""
  buffer = io.BytesIO()
  image = Image.new('RGB', (number + 1, 4), 'teal')
  image.save(buffer, FORMATS[number % len(FORMATS)])
  return buffer.getvalue()


def row(number: int = 0, **changes) -> dict:
  """Returns a labelled row whose image 0 is preferred, derived from its number."""
  uids = (f'{number}-0', f'{number}-1')
  return {
    'are_different': True,
    'best_image_uid': uids[0],
    'caption': f'prompt {number}',
    'created_at': datetime.datetime(2023, 1, 1, 12, 0, number % 60),
    'has_label': True,
    'image_0_uid': uids[0],
    'image_0_url': f'https://example.com/{uids[0]}.png',
    'image_1_uid': uids[1],
    'image_1_url': f'https://example.com/{uids[1]}.png',
    'jpg_0': picture(2 * number),
    'jpg_1': picture(2 * number + 1),
    'label_0': 1.0,
    'label_1': 0.0,
    'model_0': 'model-a',
    'model_1': 'model-b',
    'ranking_id': 1000 + number,
    'user_id': number % 2,
    'num_example_per_prompt': 1,
    '__index_level_0__': number,
    **changes,
  }


def write(path: pathlib.Path, rows: Sequence[Mapping], size: int = 2, **options):
  """Writes a file in row groups of `size` rows; `options` are pyarrow's."""
  path.parent.mkdir(parents=True, exist_ok=True)
  table = pa.Table.from_pylist(list(rows), SCHEMA)
  pq.write_table(table, path, row_group_size=size, **options)


def damage_column(path: pathlib.Path, group: int, name: str) -> None:
  """Overwrites the start of one column of one row group, a page's header."""
  chunk = next(
    chunk
    for chunk in pq.read_metadata(path).row_group(group).to_dict()['columns']
    if chunk['path_in_schema'] == name
  )
  start = chunk['dictionary_page_offset'] or chunk['data_page_offset']
  whole = path.read_bytes()
  path.write_bytes(whole[:start] + b'\xff' * 16 + whole[start + 16 :])
