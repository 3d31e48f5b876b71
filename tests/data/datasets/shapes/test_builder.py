import subprocess
import sys

import numpy as np
import pytest
import sentencepiece
import tensorflow_datasets as tfds

from rahf.data import label_words, schema
from rahf.data.datasets.shapes import annotators, workers
from rahf.data.datasets.shapes import builder as shapes
from rahf.data.datasets.shapes.record import make_record, make_sample, metric_ceilings
from rahf.data.datasets.shapes.render import draw, render
from rahf.data.datasets.shapes.scene import Damage
from rahf.data.datasets.shapes.world import COLOURS, KINDS, WORLDS
from rahf.data.images.codec import decode_image, decode_map
from rahf.data.labels import raw
from rahf.data.labels.consolidate import consolidate
from rahf.data.storage.records import open_split
from rahf.errors import InputError

SMALL = {'image_size': 64, 'train': 130, 'dev': 3, 'test': 2, 'seed': 5}


@pytest.fixture(scope='module', params=WORLDS)
def samples(request):
  return [make_sample(0, 'train', index, request.param) for index in range(300)]


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
  return shapes.prepare_shapes(tmp_path_factory.mktemp('serial'), **SMALL)


def pixels_near(image, colour):
  """Number of pixels within 12 levels of a named colour."""
  return (np.abs(image.astype(int) - COLOURS[colour]).max(-1) <= 12).sum()


def shards(folder):
  return {path.name: path.read_bytes() for path in folder.glob('*.tfrecord*')}


def test_a_sample_depends_on_its_key_alone():
  record = make_record(0, 'train', 7, 64)
  make_record(0, 'train', 6, 64)
  assert make_record(0, 'train', 7, 64) == record
  others = [(1, 'train', 7), (0, 'test', 7), (0, 'train', 8)]
  assert all(make_record(*key, 64).image != record.image for key in others)


def test_size_changes_only_the_pixels():
  for index in range(20):
    small, large = (make_record(0, 'train', index, size) for size in (64, 160))
    skipped = ('image', 'implausibility_map', 'misalignment_map')
    for name in set(schema.Record._fields) - set(skipped):
      assert getattr(small, name) == getattr(large, name)
    assert decode_image(large.image).shape == (160, 160, 3)
    assert decode_map(large.implausibility_map).shape == (160, 160)


def test_record_has_the_consolidated_annotations():
  for index in range(20):
    record, sample = make_record(3, 'dev', index, 64), make_sample(3, 'dev', index)
    labels = consolidate(sample.annotations, sample.tokens, 64, 64)
    assert len(sample.annotations) == 3
    assert record.tokens == tuple(label_words.label_tokens(record.prompt))
    assert record.keyword_labels == labels.keyword_labels
    assert record.scores == labels.scores
    for encoded, values in zip(
      (record.implausibility_map, record.misalignment_map), labels.maps, strict=True
    ):
      np.testing.assert_allclose(decode_map(encoded), values, atol=0.5 / 255)


def test_false_colours_are_not_in_the_image(samples):
  checked = 0
  for sample in samples:
    image = draw(sample.scene, 64)
    false = {sample.tokens[i] for i in sample.prompt.misaligned}
    for colour in set(sample.tokens) & set(COLOURS):
      checked += colour in false
      assert (pixels_near(image, colour) < 10) == (colour in false), sample.prompt
  assert checked > 50


def test_false_words_are_those_the_drawing_contradicts(samples):
  for sample in samples:
    false = {sample.tokens[i] for i in sample.prompt.misaligned}
    for group in sample.scene.groups:
      kinds = {w for w in sample.tokens if w.startswith(group.asked.kind)}
      drawn = group.drawn
      assert bool(kinds & false) == (drawn is None or drawn.kind != group.asked.kind)
    shown = {group.drawn.kind for group in sample.scene.groups if group.drawn}
    asked = {group.asked.kind for group in sample.scene.groups}
    if not sample.prompt.misaligned:
      assert shown == asked <= set(KINDS)


def test_objects_are_apart_and_inside_the_frame(samples):
  for sample in samples:
    shown = [g for g in sample.scene.groups if g.drawn]
    boxes = [(*centre, g.radius) for g in shown for centre in g.centres]
    for i, (x, y, radius) in enumerate(boxes):
      assert radius <= min(x, y, 1 - x, 1 - y)
      for x2, y2, radius2 in boxes[i + 1 :]:
        assert max(abs(x - x2), abs(y - y2)) > radius + radius2


def test_every_damage_is_visible(samples):
  rng = np.random.default_rng(0)
  for sample in samples:
    clean = draw(sample.scene, 64).astype(int)
    for damage in sample.scene.damages:
      spoilt = render(sample.scene._replace(damages=(damage,)), 64, rng)
      changed = np.abs(spoilt - clean).max(-1) > 24
      assert changed.sum() >= 20, damage
      rows, columns = np.nonzero(changed)
      distance = np.hypot(rows - damage.y * 64, columns - damage.x * 64)
      assert distance.max() <= 1.1 * damage.radius * 64


def test_shares_of_clean_and_aligned_samples(samples):
  damaged = np.mean([bool(sample.scene.damages) for sample in samples])
  false = np.mean([bool(sample.prompt.misaligned) for sample in samples])
  assert damaged == pytest.approx(0.7, abs=0.08)
  assert false == pytest.approx(0.7, abs=0.08)


def test_scores_follow_from_defects(samples):
  scene = next(
    s.scene for s in samples if not s.scene.damages and not s.prompt.misaligned
  )
  typical = Damage('noise', 0.5, 0.5, 9.5 / 64, 0.8, 0.0)
  plausibility, alignment, _, overall = annotators.latent_scores(scene)
  worse = annotators.latent_scores(scene._replace(damages=(typical,)))
  assert (plausibility, alignment) == (5, 5)
  assert worse[0] == pytest.approx(1 + 4 * np.exp(-0.6))
  assert worse[1] == 5
  assert worse[3] < overall


def test_expected_labels_are_the_mean_over_annotators(samples):
  rng = np.random.default_rng(0)
  sample = next(s for s in samples if len(s.scene.damages) == 2 and s.prompt.misaligned)
  arguments = (sample.scene, sample.prompt.misaligned, len(sample.tokens))
  many = [a for _ in range(1_500) for a in annotators.annotate(*arguments, rng)]
  mean = consolidate(many, sample.tokens, 64, 64)
  expected = annotators.expected_labels(*arguments, 64, 64)
  np.testing.assert_allclose(expected.maps, mean.maps, atol=0.04)
  np.testing.assert_allclose(expected.scores, mean.scores, atol=0.01)
  assert expected.keyword_labels == mean.keyword_labels


def test_annotator_noise_leaves_room_to_learn():
  ceilings = metric_ceilings(0, 200, 64)
  assert ceilings['implausibility/cc'] > 0.88
  assert ceilings['misalignment/cc'] > 0.88
  assert ceilings['keywords/f1'] > 0.95
  assert all(ceilings[f'{name}/plcc'] > 0.92 for name in schema.SCORES)
  # Three annotators do disagree.
  assert max(ceilings['implausibility/cc'], ceilings['plausibility/plcc']) < 0.99


def test_prepared_records_equal_the_generated_ones(prepared):
  builder = tfds.builder_from_directory(prepared)
  assert {s: i.num_examples for s, i in builder.info.splits.items()} == {
    'train': 130,
    'dev': 3,
    'test': 2,
  }
  for example in tfds.as_numpy(builder.as_dataset(split='dev')):
    made = make_record(5, 'dev', int(example['uid'].decode().split('-')[1]), 64)
    assert example['image'] == made.image
    assert example['prompt'].decode() == made.prompt
    assert [token.decode() for token in example['tokens']] == list(made.tokens)
    assert example['keyword_labels'].tolist() == list(made.keyword_labels)
    np.testing.assert_allclose(example['scores'], made.scores, rtol=1e-6)
    assert example['misalignment_map'] == made.misalignment_map


def test_raw_annotations_are_written(prepared):
  for split, count in (('dev', 3), ('test', 2)):
    annotations = raw.read(raw.path(prepared, split))
    records = list(open_split(prepared, split))
    assert len(records) == len(annotations) == count
    for record in records:
      labels = consolidate(annotations[record.uid], record.tokens, 64, 64)
      assert labels.keyword_labels == record.keyword_labels
      np.testing.assert_allclose(labels.scores, record.scores, rtol=1e-6)


def test_worker_processes_make_the_same_files(prepared, tmp_path, monkeypatch):
  monkeypatch.setattr(workers, '_SERIAL_SAMPLES', 100)
  monkeypatch.setattr(shapes.os, 'cpu_count', lambda: 2)
  parallel = shapes.prepare_shapes(tmp_path, **SMALL)
  assert shards(parallel) == shards(prepared)
  tokenizers = [folder / schema.TOKENIZER_FILE for folder in (parallel, prepared)]
  assert tokenizers[0].read_bytes() == tokenizers[1].read_bytes()


def test_existing_data_are_reused(prepared, capsys):
  before = {path: path.stat().st_mtime_ns for path in prepared.iterdir()}
  data_dir = prepared.parents[2]
  assert shapes.prepare_shapes(data_dir, **SMALL) == prepared
  assert {path: path.stat().st_mtime_ns for path in prepared.iterdir()} == before
  assert capsys.readouterr().out == ''


def test_tokenizer_has_short_sequences_and_t5_ids(prepared, samples):
  file = str(prepared / schema.TOKENIZER_FILE)
  pieces = sentencepiece.SentencePieceProcessor(model_file=file)
  ids = (pieces.pad_id(), pieces.eos_id(), pieces.unk_id(), pieces.bos_id())
  assert ids == (0, 1, 2, -1)
  assert pieces.encode('red_0 circle_0.', out_type=str) == [
    *('▁red', '_0', '▁circle', '_0', '.')
  ]
  tasks = 'implausibility misalignment plausibility alignment aesthetics overall'
  known = {w for s in samples for w in s.tokens} | set(f'{tasks} heatmap'.split())
  assert all(len(pieces.encode(word)) == 1 for word in known)
  assert pieces.encode('score:', out_type=str) == ['▁score', ':']
  lengths = [
    len(pieces.encode(s.prompt.text)) + len(s.prompt.misaligned) for s in samples
  ]
  assert np.mean(lengths) < 24
  assert max(lengths) <= 45
  assert 2 not in pieces.encode('"Why?" asked 3 {Zebras} & <co>; ~50%')


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'image_size': 63}, 'image_size 63 is too small'),
    ({'dev': -1}, 'dev -1 must not be negative'),
    ({'seed': -2}, 'seed -2 must not be negative'),
    ({'train': 0, 'dev': 0, 'test': 0}, 'all 0'),
  ],
)
def test_what_is_refused(tmp_path, change, message):
  with pytest.raises(InputError, match=message):
    shapes.prepare_shapes(tmp_path, **(SMALL | change))
  assert not list(tmp_path.iterdir())


def test_make_record_refuses_an_unknown_split():
  with pytest.raises(InputError, match="split 'valid' is unknown"):
    make_record(0, 'valid', 0, 64)


def test_workers_start_without_tensorflow():
  code = (
    'import sys, rahf.data.datasets.shapes.record\n'
    "print({'tensorflow', 'jax'} & set(sys.modules))"
  )
  run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
  assert run.stdout.strip() == 'set()', run.stderr
