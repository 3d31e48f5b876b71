import dataclasses
import itertools

import numpy as np
import pytest
from some_batches import PLAIN, assert_same, split_of, take
from util import make_record, write_split

from rahf.data.images import codec as images
from rahf.data.pipeline import stream
from rahf.data.pipeline.batches import eval_batches
from rahf.data.pipeline.decoding import PipelineOptions
from rahf.data.schema import ImageBatch
from rahf.data.storage import records
from rahf.errors import InputError

COUNT = 10
AUGMENTED = PipelineOptions(image_size=16, text_length=40, target_length=48)


@pytest.fixture(scope='module')
def split(tmp_path_factory):
  folder = tmp_path_factory.mktemp('data')
  write_split(folder, 'train', [make_record(i) for i in range(COUNT)], shards=3)
  return records.open_split(folder, 'train')


def indices(batches):
  return np.concatenate([batch.index for batch in batches]).tolist()


def test_resuming_equals_an_uninterrupted_run(split, tokenizer):
  unbroken = take(split, tokenizer, 8, AUGMENTED)
  # Ten examples and batches of four: step 2 and step 7 span two epochs.
  for step in (1, 2, 5):
    resumed = take(split, tokenizer, 8 - step, AUGMENTED, start_step=step)
    assert_same(resumed, unbroken[step:])


def test_each_epoch_has_every_example_once_in_a_new_order(split, tokenizer):
  order = indices(take(split, tokenizer, 10))
  epochs = [order[k : k + COUNT] for k in range(0, len(order), COUNT)]
  assert [sorted(epoch) for epoch in epochs] == [list(range(COUNT))] * 4
  assert len({tuple(epoch) for epoch in epochs}) == 4
  assert indices(take(split, tokenizer, 10, seed=1)) != order
  assert indices(take(split, tokenizer, 10)) == order


def test_processes_read_only_their_rows(split, tokenizer):
  whole = take(split, tokenizer, 4, AUGMENTED)
  for rows in ([0, 1], [2, 3], [1, 3]):
    part = take(split, tokenizer, 4, AUGMENTED, rows=rows)
    expected = [type(batch)(*(values[rows] for values in batch)) for batch in whole]
    assert_same(part, expected)


def test_image_and_maps_are_cropped_together(split, tokenizer):
  # The maps of these records are the image's red and green channels.
  batches = take(split, tokenizer, 10, AUGMENTED)
  image = np.concatenate([batch.image for batch in batches])
  maps = np.concatenate([batch.maps for batch in batches])
  red = np.abs((image[..., 0] + 1) / 2 - maps[:, 0]).max((1, 2)) < 0.01
  green = np.abs((image[..., 1] + 1) / 2 - maps[:, 1]).max((1, 2)) < 0.01
  whole = np.stack([images.decode_map(record.implausibility_map) for record in split])
  index = np.concatenate([batch.index for batch in batches])
  moved = np.abs(maps[:, 0] - whole[index]).max((1, 2)) > 0.05
  # Four of five images keep their colours, and half are cropped.
  assert (red == green).all()
  assert red.mean() > 0.6
  assert 0.2 < (red & moved).mean() < 0.7


def test_a_map_of_another_size_is_cropped_by_the_same_fractions(tokenizer, tmp_path):
  ramp = np.tile(np.linspace(0, 255, 64), (64, 1))
  small = ramp.reshape(32, 2, 32, 2).mean((1, 3))
  pixels = np.repeat(ramp[..., None], 3, 2).round().astype(np.uint8)
  record = make_record(
    image=images.encode_png(pixels),
    misalignment_map=images.encode_png(small.round().astype(np.uint8)),
  )
  batches = take(split_of(tmp_path, record), tokenizer, 20, AUGMENTED, batch_size=1)
  image = np.concatenate([batch.image for batch in batches])
  maps = np.concatenate([batch.maps for batch in batches])
  difference = np.abs((image.mean(-1) + 1) / 2 - maps[:, 1])[:, 1:-1, 1:-1]
  # A shift by one of the 16 pixels would be 1/16.
  assert np.median(difference.max((1, 2))) < 0.012


def test_augmentation_differs_between_epochs_only(tokenizer, tmp_path):
  single = split_of(tmp_path, make_record(3))
  batches = take(single, tokenizer, 12, AUGMENTED, batch_size=1)
  assert_same(batches, take(single, tokenizer, 12, AUGMENTED, batch_size=1))
  assert len({batch.maps.tobytes() for batch in batches}) > 3
  whole = take(single, tokenizer, 3, PLAIN, batch_size=1)
  assert len({batch.image.tobytes() for batch in whole}) == 1


def test_batch_has_the_content_of_the_record(tokenizer, tmp_path):
  labels = (1, 0, 1, 1, 0)
  record = make_record(2, keyword_labels=labels, scores=(0.25, np.nan, 1.0, 0.0))
  record = record._replace(misalignment_map=b'')
  (batch,) = take(split_of(tmp_path, record), tokenizer, 1, batch_size=1)
  pixels = images.decode_image(record.image)
  np.testing.assert_allclose(batch.image[0], pixels / 127.5 - 1, atol=1e-6)
  np.testing.assert_allclose(batch.maps[0, 0], pixels[..., 0] / 255, atol=1e-6)
  assert not batch.maps[0, 1].any()
  assert batch.map_mask.tolist() == [[True, False]]
  assert batch.scores.tolist() == [[0.25, 0.0, 1.0, 0.0]]
  assert batch.score_mask.tolist() == [[True, False, True, True]]
  pieces = tokenizer.encode(record.prompt)
  assert batch.keyword_mask.tolist() == [True]
  assert tokenizer.read_marks(pieces, batch.target[0]) == (labels, 0)
  assert batch.text.shape == (1, 7, 40)
  assert {name: values.dtype for name, values in batch._asdict().items()} == {
    **dict.fromkeys(('index', 'text', 'target'), np.int32),
    **dict.fromkeys(('image', 'maps', 'scores'), np.float32),
    **dict.fromkeys(
      ('word_end', 'map_mask', 'score_mask', 'keyword_mask', 'truncated'), bool
    ),
  }


def test_without_labels_the_target_is_the_prompt(tokenizer, tmp_path):
  record = make_record(2, keyword_labels=())
  (batch,) = take(split_of(tmp_path, record), tokenizer, 1, batch_size=1)
  ids = tokenizer.encode(record.prompt).ids
  assert batch.keyword_mask.tolist() == [False]
  assert tuple(batch.target[0, : len(ids) + 1]) == (*ids, 1)


def test_batches_without_labels(split, tokenizer):
  """They are the images and plain prompts of the labelled batches."""
  for options in (PLAIN, AUGMENTED):
    unlabelled = dataclasses.replace(options, labels=False)
    found = [
      *take(split, tokenizer, 4, unlabelled),
      *eval_batches(split, tokenizer, unlabelled, batch_size=4),
    ]
    labelled = [
      *take(split, tokenizer, 4, options),
      *eval_batches(split, tokenizer, options, batch_size=4),
    ]
    assert_same(
      found,
      [ImageBatch(b.index, b.image, b.text[:, -1], b.truncated) for b in labelled],
    )
  # Ten examples leave two rows of the last batch of four.
  padded = found[-1]
  assert padded.index.tolist() == [8, 9, -1, -1]
  assert padded.image[:2].any(axis=(1, 2, 3)).all()
  assert not padded.image[2:].any()
  assert (padded.text[2:] == np.eye(1, 40)).all()


def test_truncated_text_or_target_is_flagged(split, tokenizer):
  options = PipelineOptions(16, 8, 64, augment=False)
  (batch,) = take(split, tokenizer, 1, options)
  assert batch.truncated.all()
  assert (batch.text[..., -1] == 1).all()
  options = PipelineOptions(16, 64, 8, augment=False)
  (batch,) = take(split, tokenizer, 1, options)
  assert batch.truncated.all()
  assert (batch.target[:, -1] == 1).all()
  assert not take(split, tokenizer, 1, PipelineOptions(16, 64, 64))[0].truncated.any()


@pytest.mark.parametrize('parts', [[range(8)], [range(4), range(4, 8)]])
def test_evaluation_sees_every_example_once(split, tokenizer, parts):
  per_process = [
    list(eval_batches(split, tokenizer, AUGMENTED, batch_size=8, rows=rows))
    for rows in parts
  ]
  assert [len(batches) for batches in per_process] == [2] * len(parts)
  seen = [i for batches in per_process for i in indices(batches)]
  assert sorted(seen) == [-1] * 6 + list(range(COUNT))
  for batch in itertools.chain(*per_process):
    padding = batch.index < 0
    for name in ('image', 'maps', 'scores', 'map_mask', 'score_mask', 'keyword_mask'):
      assert not getattr(batch, name)[padding].any()
    assert (batch.text[padding].sum(-1) == 1).all()
    assert (batch.text[padding, :, 0] == 1).all()
    assert batch.map_mask[~padding].all()


def test_word_limits_leave_prompts_out(tokenizer, tmp_path):
  prompts = ['a', 'a b c', 'a b c d', 'a b c d e f']
  split = split_of(tmp_path, *(make_record(0, prompt=p) for p in prompts))
  options = PipelineOptions(16, 40, 40, min_words=3, max_words=4)
  batches = take(split, tokenizer, 3, options, batch_size=2)
  assert [sorted(batch.index) for batch in batches] == [[1, 2]] * 3
  options = PipelineOptions(16, 40, 40, min_words=7)
  with pytest.raises(InputError, match='none of the 4 prompts'):
    take(split, tokenizer, 1, options)


def test_limits_are_nested(tokenizer, tmp_path):
  split = split_of(tmp_path, *(make_record(i) for i in range(12)))

  def seen(limit, seed=0):
    options = PipelineOptions(16, 40, 40, limit=limit, limit_seed=seed)
    # Two epochs: each takes all that there are.
    batches = take(split, tokenizer, 2, options, batch_size=limit)
    first, second = ({*map(int, batch.index)} for batch in batches)
    assert first == second
    return first

  few, more, all_of_them = seen(3), seen(6), seen(12)
  assert len(few) == 3
  assert few < more < all_of_them
  assert seen(6, seed=1) != more
  with pytest.raises(InputError, match=r'limit = 13, but .* has only 12 examples'):
    seen(13)


def test_workers_make_the_same_batches(split, tokenizer):
  expected = take(split, tokenizer, 7, AUGMENTED, start_step=2)
  found = take(split, tokenizer, 7, AUGMENTED, start_step=2, workers=2)
  assert_same(found, expected)


def test_the_same_whatever_is_decoded_at_once(split, tokenizer, monkeypatch):
  expected = take(split, tokenizer, 6, AUGMENTED)
  for images_at_once in (1, 2, 3):
    monkeypatch.setattr(stream, '_PIXELS_AT_ONCE', images_at_once * 16**2)
    assert_same(take(split, tokenizer, 6, AUGMENTED), expected)
