"""Label files of another release are refused with the column and advice, or masked and
counted; labels are never lost silently."""

import json
import pathlib
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from rahf.data import schema
from rahf.data.__main__ import main
from rahf.data.datasets.richhf18k import label_files
from rahf.data.images import codec
from rahf.data.storage.records import open_split

COUNT = 6
PICTURE = codec.encode_png(np.full((8, 16, 3), 90, np.uint8))
MAP = codec.encode_png(np.eye(8, dtype=np.uint8))
PROMPT = 'a red cat'
Row = dict[str, Any]


def change(row: Row, changes: Row) -> Row:
  """Returns a changed row.

  A value may be a function of the old value, None to drop the column, or '>name' to
  rename it.
  """
  row = dict(row)
  for name, value in changes.items():
    if value is None:
      del row[name]
    elif isinstance(value, str) and value.startswith('>'):
      row[value[1:]] = row.pop(name)
    else:
      row[name] = value(row[name]) if callable(value) else value
  return row


def of_release(uid: str, split: str) -> Row:
  return {
    'filename': f'{split}/{uid}.png',
    **dict.fromkeys(label_files.SCORES.values(), 0.5),
    **dict.fromkeys(label_files.MAPS.values(), MAP),
    'prompt_misalignment_label': '1 0 1',
  }


def write_tfrecords(folder: pathlib.Path, changes: Row) -> list[str]:
  """Writes files of the release, images and prompts; returns the flags for them."""
  (folder / 'labels').mkdir()
  (folder / 'images').mkdir()
  prompts = ['uid,prompt']
  for split in schema.SPLITS:
    with tf.io.TFRecordWriter(f'{folder}/labels/{split}.tfrecord') as writer:
      for number in range(COUNT):
        uid = f'{split}-{number}'
        (folder / f'images/{uid}.png').write_bytes(PICTURE)
        prompts.append(f'{uid},{PROMPT}')
        row = change(of_release(uid, split), changes)
        writer.write(tf.train.Example(features=_features(row)).SerializeToString())
  (folder / 'prompts.csv').write_text('\n'.join(prompts))
  return [
    *('richhf18k', f'--labels={folder}/labels', f'--images={folder}/images'),
    f'--prompts={folder}/prompts.csv',
  ]


def _features(row: Row) -> tf.train.Features:
  features = {}
  for name, value in row.items():
    if isinstance(value, float):
      kind = {'float_list': tf.train.FloatList(value=[value])}
    else:
      data = value.encode() if isinstance(value, str) else value
      kind = {'bytes_list': tf.train.BytesList(value=[data])}
    features[name] = tf.train.Feature(**kind)
  return tf.train.Features(feature=features)


def write_mirror(folder: pathlib.Path, changes: Row) -> list[str]:
  for split in ('train', 'validation', 'test'):
    rows = [
      change(
        of_release(f'{split}-{n}', split) | {'image': PICTURE, 'caption': PROMPT},
        changes,
      )
      for n in range(COUNT)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / f'{split}-0.parquet')
  return ['richhf18k', f'--mirror={folder}']


def write_rapidata(folder: pathlib.Path, changes: Row) -> list[str]:
  row = {
    'image': PICTURE,
    'prompt': PROMPT,
    'word_scores': json.dumps([['a', 0.0], ['red', 2.0], ['[No_mistakes]', 1.0]]),
    **{f'{name}_score': 3.0 for name in ('coherence', 'alignment', 'style')},
    **{f'{name}_heatmap': [[0.0, 0.5]] * 3 for name in ('coherence', 'alignment')},
  }
  rows = [change(row, changes) for _ in range(COUNT)]
  pq.write_table(pa.Table.from_pylist(rows), folder / 'part-0.parquet')
  return ['rapidata', '--name=other', f'--files={folder}', '--dev=0', '--test=0']


def write_annotated(folder: pathlib.Path, changes: Row) -> list[str]:
  (folder / 'images').mkdir()
  lines = []
  for number in range(COUNT):
    (folder / f'images/{number}.png').write_bytes(PICTURE)
    row = {
      'uid': f'{number}',
      'scores': {'plausibility': 4},
      'implausibility_points': [[0.5, 0.5]],
      'misaligned_words': ['red'],
    }
    lines.append(json.dumps(change(row, changes)))
  (folder / 'a.jsonl').write_text('\n'.join(lines))
  prompts = [f'{{"uid": "{n}", "prompt": "{PROMPT}"}}' for n in range(COUNT)]
  (folder / 'prompts.jsonl').write_text('\n'.join(prompts))
  return [
    *('annotated', '--name=mine', f'--annotations={folder}/a.jsonl', '--dev=0'),
    *(f'--images={folder}/images', f'--prompts={folder}/prompts.jsonl', '--test=0'),
  ]


WRITERS = (write_tfrecords, write_mirror, write_rapidata, write_annotated)


def prepare(tmp_path, write, changes):
  folder = tmp_path / 'source'
  folder.mkdir()
  return main(['prepare', *write(folder, changes), f'--out={tmp_path / "out"}'])


def to_five(value):
  return 1 + 4 * value


def to_percent(value):
  return 100 * value


def other_uid(value):
  return value.replace('-', '_')


def strange(value):
  return f'{value}x'


@pytest.mark.parametrize(
  ('write', 'changes', 'words'),
  [
    # Missing or renamed columns.
    (
      write_tfrecords,
      {'artifact_score': '>plausibility'},
      ('artifact_score',),
    ),
    (
      write_tfrecords,
      {'misalignment_map': None},
      ('misalignment_map',),
    ),
    (write_mirror, {'artifact_score': '>plausibility'}, ('artifact_score', 'only')),
    (write_mirror, {'caption': '>prompt'}, ('caption', 'only')),
    (write_rapidata, {'coherence_score': '>coherence'}, ('coherence_score', 'only')),
    (write_rapidata, {'alignment_heatmap': None}, ('alignment_heatmap', 'only')),
    (write_rapidata, {'word_scores': '>words'}, ('word_scores', 'only')),
    (write_annotated, {'scores': '>ratings'}, ('ratings', 'a.jsonl:1')),
    (write_annotated, {'uid': '>id'}, ('id', 'a.jsonl:1')),
    # Another scale: 1 is worst on 1 to 5, but best on 0 to 1.
    (write_tfrecords, {'overall_score': to_five}, ('overall 3.0', '[0, 1]')),
    (write_mirror, {'aesthetics_score': to_percent}, ('aesthetics 50.0', '[0, 1]')),
    (
      write_rapidata,
      {'style_score': to_percent},
      ('aesthetics 300.0', 'between 1 and 5'),
    ),
    (
      write_annotated,
      {'scores': {'overall': 80}},
      ('80', 'between 1 and 5', 'a.jsonl:1'),
    ),
    # Other types of values.
    (write_tfrecords, {'overall_score': 'high'}, ('overall_score', 'record 0')),
    (write_mirror, {'overall_score': strange}, ('overall_score', 'string')),
    (write_mirror, {'prompt_misalignment_label': [1, 0, 1]}, ('prompt_misalignment',)),
    (write_mirror, {'filename': 7}, ('filename', 'int64')),
    (write_rapidata, {'style_score': strange}, ('style_score', 'string')),
    (write_rapidata, {'word_scores': [1.0, 2.0]}, ('word_scores', 'list')),
    (write_rapidata, {'prompt': 7}, ('prompt', 'int64')),
    (write_tfrecords, {'prompt_misalignment_label': 'a b c'}, ('a b c', '0 and 1')),
    (write_annotated, {'implausibility_points': [[300, 200]]}, ('300', 'a.jsonl:1')),
    # Other ids.
    (write_tfrecords, {'filename': other_uid}, ('none of the 18', 'first wanted uid')),
    (write_annotated, {'uid': strange}, ('none of the 6', 'prompts.jsonl')),
  ],
)
def test_another_release_is_refused(tmp_path, capfd, write, changes, words):
  assert prepare(tmp_path, write, changes) == 2
  error = capfd.readouterr().err.split('error: ')[-1]
  assert 'Traceback' not in error
  for word in words:
    assert word in error
  assert str(tmp_path / 'source') in error or 'uid' in error
  assert not list((tmp_path / 'out').rglob('dataset_info.json'))


@pytest.mark.parametrize('write', WRITERS)
def test_correct_labels_are_complete_and_extra_columns_are_ignored(tmp_path, write):
  extra = {} if write == write_annotated else {'filename_2': 'further'}
  found = []
  for number, changes in enumerate(({}, extra)):
    folder = tmp_path / str(number)
    folder.mkdir()
    assert prepare(folder, write, changes) == 0
    (info,) = (folder / 'out').rglob('dataset_info.json')
    names = [split['name'] for split in json.loads(info.read_text())['splits']]
    found.append({name: [*open_split(info.parent, name)] for name in names})
  assert found[0].keys() == found[1].keys()
  for name, records in found[0].items():
    assert len(records) == COUNT
    for record, other in zip(records, found[1][name], strict=True):
      np.testing.assert_equal(record._asdict(), other._asdict())


@pytest.mark.parametrize(
  ('write', 'changes', 'line'),
  [
    (write_tfrecords, {'prompt_misalignment_label': '1 0'}, 'labels do not fit'),
    (write_tfrecords, {'artifact_map': b'no map'}, 'map unreadable'),
    (write_mirror, {'image': b'no image'}, None),
  ],
)
def test_masked_labels_are_counted(tmp_path, capfd, write, changes, line):
  """Or refused, if no image is left."""
  status = prepare(tmp_path, write, changes)
  out, err = capfd.readouterr()
  if line is None:
    assert status == 2
    assert 'none of the 6 images of train can be used; first' in err
    return
  assert status == 0
  (counted,) = [text for text in out.splitlines() if line in text]
  assert counted.split()[-3:] == [f'{COUNT}'] * 3
  (report,) = (tmp_path / 'out').rglob('report.json')
  samples = json.loads(report.read_text())['samples']
  assert sum(map(len, samples.values())) == 3 * COUNT
