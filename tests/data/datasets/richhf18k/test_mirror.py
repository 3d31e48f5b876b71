"""RichHF-18K from parquet files with labels and images."""

import image_files
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rahf.data.__main__ import main
from rahf.data.datasets.richhf18k.mirror import prepare_mirror
from rahf.data.images.codec import decode_map, encode_png
from rahf.data.quality import verify
from rahf.data.storage.records import open_split
from rahf.errors import InputError

PICTURE = encode_png(np.full((8, 16, 3), 90, np.uint8))
MAP = encode_png(np.eye(8, dtype=np.uint8))


def row(uid='a', **changes):
  return {
    'filename': f'train/{uid}.png',
    'image': {'bytes': PICTURE, 'path': None},
    'caption': 'a red cat',
    'artifact_score': 1.0,
    'misalignment_score': 0.75,
    'aesthetics_score': 0.5,
    'overall_score': 0.25,
    'artifact_map': MAP,
    'misalignment_map': MAP,
    'prompt_misalignment_label': '1 0 1',
  } | changes


def write(folder, name, *rows):
  folder.mkdir(exist_ok=True)
  pq.write_table(pa.Table.from_pylist(list(rows)), folder / f'{name}.parquet')


def test_labels_and_images_of_a_row(tmp_path):
  files = tmp_path / 'files'
  bad = {'bytes': b'no', 'path': None}
  write(files, 'train-00000-of-00002', row('a'), row('b', image=bad))
  write(files, 'validation-00000-of-00001', row('c', image=PICTURE, artifact_map=b'x'))
  # An evaluation image is not trained on.
  write(files, 'test-00000-of-00001', row('a', caption='a blue cat'), row('d'))
  write(files, 'train-00001-of-00002', row('e', prompt_misalignment_label='1 0'))
  directory, report = prepare_mirror(tmp_path / 'out', files=files)
  records = {
    split: {record.uid: record for record in open_split(directory, split)}
    for split in ('train', 'dev', 'test')
  }
  assert {split: set(found) for split, found in records.items()} == {
    'train': {'e'},
    'dev': {'c'},
    'test': {'a', 'd'},
  }
  record = records['test']['a']
  assert record.prompt == 'a blue cat'
  assert record.scores == (1.0, 0.75, 0.5, 0.25)
  assert record.keyword_labels == (1, 0, 1)
  assert record.image == PICTURE
  assert record.implausibility_map == record.misalignment_map == MAP
  assert records['dev']['c'].implausibility_map == b''
  assert records['train']['e'].keyword_labels == ()
  assert {(line.uid, line.reason) for line in report.lines} == {
    ('a', 'duplicate_label'),
    ('b', 'unreadable_image'),
    ('c', 'unreadable_map'),
    ('e', 'label_mismatch'),
  }


def test_maps_of_16_bits(tmp_path):
  deep = image_files.png([[0, 6553, 32768, 65535]], 16, image_files.GREY)
  write(tmp_path / 'files', 'train-0', row(artifact_map=deep))
  directory, _ = prepare_mirror(tmp_path / 'out', files=tmp_path / 'files')
  (record,) = open_split(directory, 'train')
  assert not list(verify.check_record(record))
  expected = [[0, 6553 / 65535, 32768 / 65535, 1]]
  found = decode_map(record.implausibility_map)
  np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_by_command(tmp_path, capfd):
  files = tmp_path / 'files'
  write(files, 'train-00000', row())
  command = ['prepare', 'richhf18k', f'--out={tmp_path / "out"}']
  assert main([*command, f'--mirror={files}']) == 0
  assert main(['verify', str(tmp_path / 'out')]) == 0
  assert main([*command, '--overwrite']) == 2
  assert 'give --labels and --images, or --mirror' in capfd.readouterr().err


def test_what_is_refused(tmp_path):
  files = tmp_path / 'files'
  with pytest.raises(InputError, match=r'no file train-….parquet'):
    prepare_mirror(tmp_path / 'out', files=files)
  write(files, 'train-0', {'filename': 'a.png'})
  with pytest.raises(InputError, match='has no column'):
    prepare_mirror(tmp_path / 'out', files=files)
  (files / 'train-0.parquet').write_bytes(b'PAR1')
  with pytest.raises(InputError, match='not a complete parquet file'):
    prepare_mirror(tmp_path / 'out', files=files)
