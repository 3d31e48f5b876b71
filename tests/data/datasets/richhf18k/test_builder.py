"""RichHF-18K: samples are joined correctly, and none is dropped silently."""

import collections
import io
import json

import image_files
import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from rahf.data import schema
from rahf.data.datasets.joining.report import DROPPED
from rahf.data.datasets.richhf18k import label_files
from rahf.data.datasets.richhf18k.builder import prepare_richhf18k
from rahf.data.images import codec
from rahf.errors import InputError


def _read(directory):
  """Returns split -> uid -> stored example, read by TFDS itself."""
  builder = tfds.builder_from_directory(directory)
  return {
    split: {
      example['uid'].decode(): example
      for example in tfds.as_numpy(builder.as_dataset(split))
    }
    for split in builder.info.splits
  }


def _prepare(release, tmp_path, **options):
  directory, report = prepare_richhf18k(
    tmp_path / 'out', labels=release.labels, images=release.images, **options
  )
  return _read(directory), report


# The sample of the release


@pytest.fixture(scope='module')
def sample(assets, tmp_path_factory):
  folder = assets / 'richhf_sample'
  directory, report = prepare_richhf18k(
    tmp_path_factory.mktemp('sample'), labels=folder, images=folder / 'pickapic'
  )
  return _read(directory), report, directory


def test_sample_has_the_annotations(sample, assets):
  stored, _, _ = sample
  manifest = json.loads((assets / 'richhf_sample/manifest.json').read_text())
  expected = collections.Counter(entry['split'] for entry in manifest)
  assert {split: len(found) for split, found in stored.items()} == expected
  masked = 0
  for entry in manifest:
    example = stored[entry['split']][entry['uid']]
    assert example['prompt'].decode() == entry['prompt']
    tokens = [token.decode() for token in example['tokens']]
    assert tokens == entry['tokens']
    scores = [entry['scores'][name] for name in schema.SCORES]
    np.testing.assert_allclose(example['scores'], scores, atol=1e-6)
    for name, points in (
      ('implausibility', entry['artifact_points']),
      ('misalignment', entry['misalignment_points']),
    ):
      peak = codec.decode_map(example[f'{name}_map']).max()
      # Up to JPEG noise, a map is empty exactly if nobody clicked.
      assert (peak > 0.1) == bool(points)
    if len(example['keyword_labels']):
      pairs = zip(tokens, example['keyword_labels'], strict=True)
      assert [token for token, label in pairs if label == 0] == entry['misaligned']
    else:
      masked += 1
  assert masked == 1


def test_sample_bytes_are_unchanged(sample, assets):
  stored, _, _ = sample
  folder = assets / 'richhf_sample'
  found = {}
  for path in (folder / 'pickapic/data').glob('*.parquet'):
    for row in pq.read_table(path).to_pylist():
      for side in (0, 1):
        found[row[f'image_{side}_uid']] = row[f'jpg_{side}']
  for split, examples in stored.items():
    path = str(folder / f'{split}.tfrecord')
    for record in tf.data.TFRecordDataset(path).as_numpy_iterator():
      feature = tf.train.Example.FromString(record).features.feature
      uid = feature['filename'].bytes_list.value[0].decode().split('/')[1][:-4]
      assert examples[uid]['image'] == found[uid]
      for ours, theirs in label_files.MAPS.items():
        expected = feature[theirs].bytes_list.value[0]
        assert examples[uid][f'{ours}_map'] == expected


def test_sample_report(sample):
  _, report, directory = sample
  written = json.loads((directory / 'report.json').read_text())
  assert report.records == report.prepared == {'train': 13, 'dev': 2, 'test': 3}
  for split, number in report.records.items():
    counts = written['splits'][split]
    assert counts['records'] == counts['matched'] == counts['prepared'] == number
    assert not any(counts['dropped'].values())
  (mismatch,) = written['samples']['label_mismatch']
  assert mismatch['uid'] == '5eed0000-0000-4000-8000-000000007bbc'
  assert mismatch['detail'].startswith('18 labels, 19 words')
  repeated = {line['uid'] for line in written['samples']['repeated_image']}
  assert '5eed0000-0000-4000-8000-000000000000' in repeated
  assert 'train 15,810, dev 995, test 955' in written['notes'][0]


def test_folder_and_table_give_the_same(sample, assets, tmp_path):
  stored, _, _ = sample
  folder = tmp_path / 'images'
  lines = []
  for split, examples in stored.items():
    (folder / split).mkdir(parents=True)
    for uid, example in examples.items():
      suffix = Image.open(io.BytesIO(example['image'])).format.lower()
      (folder / split / f'{uid}.{suffix}').write_bytes(example['image'])
      row = {'uid': uid, 'prompt': example['prompt'].decode()}
      lines.append(json.dumps(row))
  table = tmp_path / 'prompts.jsonl'
  table.write_text('\n'.join(lines))
  directory, report = prepare_richhf18k(
    tmp_path / 'out',
    labels=assets / 'richhf_sample',
    images=folder,
    prompts=table,
  )
  again = _read(directory)
  assert report.prepared == {'train': 13, 'dev': 2, 'test': 3}
  for split, examples in stored.items():
    assert again[split].keys() == examples.keys()
    for uid, example in examples.items():
      for name, value in example.items():
        np.testing.assert_array_equal(again[split][uid][name], value)


# Errors


@pytest.fixture
def wide_png():
  buffer = io.BytesIO()
  Image.new('L', (30_000, 1)).save(buffer, 'PNG')
  return buffer.getvalue()


def test_each_defect_is_reported(release, tmp_path, picture, wide_png):
  release.add('train', 'good').add('dev', 'd').add('test', 't')
  release.add('train', 'no-image', image=None)
  release.add('train', 'no-prompt', prompt=None)
  release.add('train', 'text', image=b'<html>404</html>')
  release.add('train', 'cut', image=picture[:-30])
  release.add('train', 'wide', image=wide_png)
  release.add('train', 'null', image=b'')
  release.add('train', 'good', aesthetics_score=1.0)
  release.add('train', 'short', prompt_misalignment_label=b'1 1 1')
  release.add('train', 'odd', prompt_misalignment_label=b'1 2 1 1')
  release.add('train', 'score', overall_score=1.5, artifact_score=0.25)
  release.add('train', 'nan', overall_score=float('nan'))
  release.add('train', 'map', artifact_map=b'no map')
  stored, report = _prepare(release.write(), tmp_path)

  lines = {
    (line.reason, line.uid): line.detail
    for line in report.lines
    if line.split == 'train'
  }
  assert lines.keys() == {
    ('missing_image', 'no-image'),
    ('missing_prompt', 'no-prompt'),
    ('unreadable_image', 'text'),
    ('unreadable_image', 'cut'),
    ('unreadable_image', 'wide'),
    ('unreadable_image', 'null'),
    ('duplicate_label', 'good'),
    ('repeated_image', 'good'),
    ('label_mismatch', 'short'),
    ('invalid_label', 'odd'),
    ('invalid_score', 'score'),
    ('invalid_score', 'nan'),
    ('unreadable_map', 'map'),
  }
  assert 'not a PNG, JPEG or WEBP' in lines['unreadable_image', 'text']
  assert '30000x1 pixels' in lines['unreadable_image', 'wide']
  assert lines['invalid_score', 'score'] == 'overall 1.5, not in [0, 1]'
  assert lines['unreadable_map', 'map'].startswith('implausibility: not a PNG')

  train = stored['train']
  assert train.keys() == {'good', 'short', 'odd', 'score', 'nan', 'map'}
  assert train['good']['scores'].tolist() == [0.5] * 4
  assert train['good']['keyword_labels'].tolist() == [1, 0, 1, 1]
  for uid in ('short', 'odd'):
    assert train[uid]['keyword_labels'].size == 0
    assert train[uid]['scores'].tolist() == [0.5] * 4
  np.testing.assert_array_equal(train['score']['scores'], [0.25, 0.5, 0.5, np.nan])
  assert train['map']['implausibility_map'] == b''
  assert codec.decode_map(train['map']['misalignment_map']).shape == (8, 8)
  for split in schema.SPLITS:
    dropped = sum(report.count(split, reason) for reason in DROPPED)
    assert report.records[split] == report.prepared[split] + dropped


def test_polarity_and_names(release, tmp_path):
  release.add(
    'train',
    'a',
    artifact_score=0.1,
    misalignment_score=0.2,
    aesthetics_score=0.3,
    overall_score=0.4,
    artifact_map=codec.encode_png(np.full((2, 2), 255, np.uint8)),
    misalignment_map=codec.encode_png(np.zeros((2, 2), np.uint8)),
  )
  release.add('dev', 'd').add('test', 't')
  stored, _ = _prepare(release.write(), tmp_path)
  example = stored['train']['a']
  assert schema.SCORES == ('plausibility', 'alignment', 'aesthetics', 'overall')
  np.testing.assert_allclose(example['scores'], [0.1, 0.2, 0.3, 0.4], atol=1e-7)
  assert codec.decode_map(example['implausibility_map']).min() == 1
  assert codec.decode_map(example['misalignment_map']).max() == 0


def test_maps_of_16_bits(release, tmp_path):
  """A ramp from 0 to 1 stays one, with 8 and with 16 bits."""
  deep = np.arange(0, 65536, 257).reshape(16, 16)
  maps = {
    'artifact_map': image_files.png(deep, 16, image_files.GREY),
    'misalignment_map': codec.encode_png((deep >> 8).astype(np.uint8)),
  }
  release.add('train', 'a', **maps).add('dev', 'd').add('test', 't')
  stored, _ = _prepare(release.write(), tmp_path)
  example = stored['train']['a']
  expected = np.linspace(0, 1, 256).reshape(16, 16)
  for name in schema.MAPS:
    found = codec.decode_map(example[f'{name}_map'])
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_uid_in_two_splits_stays_in_the_evaluation_split(release, tmp_path):
  release.add('train', 'a').add('train', 'both').add('dev', 'd').add('test', 'both')
  stored, report = _prepare(release.write(), tmp_path)
  assert 'both' in stored['test']
  assert stored['train'].keys() == {'a'}
  (line,) = [line for line in report.lines if line.reason == 'duplicate_label']
  assert line[:2] == ('train', 'both')
  assert line.detail == 'already taken from test'


def test_split_without_images_is_left_out(release, tmp_path):
  release.add('train', 'a').add('dev', 'd', image=None).add('test', 't')
  stored, report = _prepare(release.write(), tmp_path)
  assert stored.keys() == {'train', 'test'}
  assert report.notes[-1] == 'dev is left out: none of its images were found'


def test_nothing_usable_is_an_error(release, tmp_path):
  release.add('train', 'a', image=None).add_pair(('x', 'y'), (b'', b'')).write()
  with pytest.raises(InputError, match=r"none of the 1 .* first wanted uid is 'a'"):
    _prepare(release, tmp_path)
  release.add('train', 'b', image=b'text').write()
  with pytest.raises(
    ValueError, match=r'none of the 1 images of train .* b: not a PNG'
  ):
    _prepare(release, tmp_path)
  assert not (tmp_path / 'out/richhf18k/1.0.0').exists()


def test_existing_data_is_replaced_only_on_request(release, tmp_path):
  for split in schema.SPLITS:
    release.add(split, f'{split}-1')
  _prepare(release.write(), tmp_path)
  with pytest.raises(InputError, match=r'1\.0\.0 exists; give --overwrite'):
    _prepare(release, tmp_path)
  release.add('train', 'train-2').write()
  stored, _ = _prepare(release, tmp_path, overwrite=True)
  assert stored['train'].keys() == {'train-1', 'train-2'}
  (tmp_path / 'out/richhf18k/1.0.0/dataset_info.json').unlink()
  with pytest.raises(InputError, match='not a prepared data set; move it away'):
    _prepare(release, tmp_path, overwrite=True)


def test_label_file_truncated_between_records_shows_in_the_counts(release, tmp_path):
  for split in schema.SPLITS:
    release.add(split, f'{split}-1').add(split, f'{split}-2')
  path = release.write().labels / 'train.tfrecord'
  first = next(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
  path.write_bytes(path.read_bytes()[: len(first) + 16])
  _, report = _prepare(release, tmp_path)
  assert report.records['train'] == report.prepared['train'] == 1
  assert 'train 1, dev 2, test 2 records, the release train 15,810' in report.notes[0]
