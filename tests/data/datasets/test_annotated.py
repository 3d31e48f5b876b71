"""Own images: from raw annotations to records."""

import json

import numpy as np
import pytest

from rahf.data.__main__ import main
from rahf.data.datasets.annotated import prepare_annotated
from rahf.data.images.codec import decode_map, encode_png
from rahf.data.labels import raw
from rahf.data.labels.consolidate import consolidate, gaussians
from rahf.data.storage.records import open_split
from rahf.errors import InputError

PROMPTS = {'a': 'a red cat', 'b': 'two dogs, asleep', 'c': 'a red cat'}
PICTURE = encode_png(np.zeros((40, 60, 3), np.uint8))
TREE = dict(
  implausibility_points=[[0.5, 0.5]],
  misalignment_points=[],
  misaligned_words=['red'],
  scores={'plausibility': 2, 'alignment': 4},
)


@pytest.fixture
def own(tmp_path):
  """Three images, two of which share a prompt."""
  (tmp_path / 'images').mkdir()
  for uid in PROMPTS:
    (tmp_path / f'images/{uid}.png').write_bytes(PICTURE)
  lines = ['uid,prompt', *(f'{uid},"{prompt}"' for uid, prompt in PROMPTS.items())]
  (tmp_path / 'prompts.csv').write_text('\n'.join(lines))
  return tmp_path


def annotate(own, *rows):
  text = '\n'.join(json.dumps(row) for row in rows)
  (own / 'annotations.jsonl').write_text(text)


def prepare(own, **changes):
  settings = {
    'name': 'mine',
    'annotations': own / 'annotations.jsonl',
    'images': own / 'images',
    'prompts': own / 'prompts.csv',
    'dev': 0,
    'test': 0,
  }
  return prepare_annotated(own / 'out', **settings | changes)


def test_records_have_the_annotations(own):
  other = TREE | {'misaligned_words': [], 'scores': {'plausibility': 4}}
  annotate(own, {'uid': 'a'} | TREE, {'uid': 'a'} | other, {'uid': 'b', 'scores': {}})
  directory, report = prepare(own)
  assert directory == own / 'out/mine/1.0.0'
  a, b = sorted(open_split(directory, 'train'), key=lambda record: record.uid)
  assert a.tokens == ('a', 'red', 'cat')
  # One of two is not a majority.
  assert a.keyword_labels == (1, 1, 1)
  assert a.keyword_shares == (0, 0.5, 0)
  np.testing.assert_equal(a.scores, np.float32([0.5, 0.75, np.nan, np.nan]))
  annotations = raw.read(raw.path(directory, 'train'))
  assert annotations.keys() == {'a', 'b'}
  expected = consolidate(annotations['a'], a.tokens, 40, 60).maps[0]
  np.testing.assert_allclose(decode_map(a.implausibility_map), expected, atol=1 / 500)
  assert not decode_map(a.misalignment_map).any()
  # Nothing was asked.
  assert b.implausibility_map == b.misalignment_map == b''
  assert b.keyword_labels == ()
  assert np.isnan(b.scores).all()
  assert json.loads((directory / 'report.json').read_text())['samples']
  assert report.prepared == {'train': 2}


def test_gaussians(own):
  annotate(own, {'uid': 'a'} | TREE)
  directory, _ = prepare(own, drawn='gaussians')
  (record,) = open_split(directory, 'train')
  expected = gaussians([(0.5, 0.5)], 40, 60)
  np.testing.assert_allclose(decode_map(record.implausibility_map), expected, atol=0.01)


def test_invalid_images_and_annotations_are_reported_and_left_out(own):
  wrong = TREE | {'misaligned_words': ['dog']}
  annotate(
    own,
    {'uid': 'a'} | wrong,
    {'uid': 'c'} | TREE,
    {'uid': 'z'} | TREE,
  )
  (own / 'images/c.png').write_bytes(b'no image')
  with pytest.raises(InputError, match='none of the 2 images of train can be used'):
    prepare(own)
  (own / 'images/c.png').write_bytes(PICTURE)
  directory, report = prepare(own, overwrite=True)
  assert [record.uid for record in open_split(directory, 'train')] == ['c']
  assert raw.read(raw.path(directory, 'train')).keys() == {'c'}
  found = {(line.uid, line.reason) for line in report.lines}
  assert found == {('a', 'invalid_annotation'), ('z', 'missing_image')}


def test_by_command(own, capfd):
  annotate(own, {'uid': 'a'} | TREE, {'uid': 'b', 'scores': {'overall': 3}})
  command = [
    *('prepare', 'annotated', '--name=mine', f'--out={own / "out"}'),
    *(f'--annotations={own / "annotations.jsonl"}', f'--images={own / "images"}'),
    *(f'--prompts={own / "prompts.csv"}', '--dev=0', '--test=0'),
  ]
  assert main(command) == 0
  assert 'Prepared: ' in capfd.readouterr().out
  assert main(['verify', str(own / 'out')]) == 0
  assert main(['stats', str(own / 'out')]) == 0
  assert main(command) == 2
  assert '--overwrite' in capfd.readouterr().err
  assert main([*command, '--overwrite']) == 0
  for flag in ('annotations', 'images', 'prompts'):
    assert main([*command, '--overwrite', f'--{flag}=nowhere']) == 2
    assert f'--{flag} nowhere: no such' in capfd.readouterr().err


def test_existing_data_stay_if_preparing_fails(own):
  annotate(own, {'uid': 'a'} | TREE)
  directory, _ = prepare(own)
  before = {path.name: path.read_bytes() for path in directory.iterdir()}
  (own / 'images/a.png').write_bytes(b'no image')
  with pytest.raises(InputError, match='can be used'):
    prepare(own, overwrite=True)
  assert {path.name: path.read_bytes() for path in directory.iterdir()} == before
  # Finished parts stay, to continue from.
  left = sorted(path.name for path in (own / 'out').iterdir())
  assert left == ['.mine-1.0.0.partial', 'mine']


def test_invalid_names_are_refused(own):
  annotate(own, {'uid': 'a'} | TREE)
  for name in ('a/b', 'shapes', '.hidden', ''):
    with pytest.raises(InputError, match='--name'):
      prepare(own, name=name)


def test_an_empty_split_is_noted(own):
  annotate(own, {'uid': 'a'} | TREE)
  _, report = prepare(own)
  assert [note.split(',')[0] for note in report.notes] == [
    'the dev split is empty',
    'the test split is empty',
  ]
  with pytest.raises(InputError, match='no image is left to train on'):
    prepare(own, overwrite=True, test=0.999999)
