import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from some_batches import PLAIN, assert_same, split_of, take
from util import make_record

from rahf.data.pipeline.batches import eval_batches
from rahf.errors import InputError


@pytest.mark.parametrize(
  ('change', 'reason'),
  [
    ({'image': b'no image'}, 'not a PNG, JPEG or WEBP'),
    ({'image': make_record(1, 64).image[:900]}, 'cannot be decoded'),
    ({'misalignment_map': b'GIF89a'}, 'not a PNG, JPEG or WEBP'),
    ({'keyword_labels': (1, 0)}, '2 keyword labels for the 5 words'),
  ],
)
def test_a_bad_record_is_named(tokenizer, tmp_path, change, reason):
  good, bad = make_record(0), make_record(1, **change)
  split = split_of(tmp_path, good, good, bad)
  batches = eval_batches(split, tokenizer, PLAIN, batch_size=2)
  next(batches)
  place = r"00000-of-00001, record 2 at byte \d+, uid 'uid-1',"
  with pytest.raises(InputError, match=rf'(?s){place}.*{reason}.*rahf\.data verify'):
    next(batches)


def test_a_damaged_record_is_named(tokenizer, tmp_path):
  split = split_of(tmp_path, make_record(0), make_record(1))
  data = bytearray(tf.io.gfile.GFile(split.files[0], 'rb').read())
  data[-30] ^= 0xFF
  with open(split.files[0], 'wb') as stream:
    stream.write(data)
  with pytest.raises(InputError, match=r'record 1 at byte \d+, cannot.*verify'):
    take(split, tokenizer, 1, batch_size=2)


def damage(split, *numbers):
  """Flips a byte in each of the given records of one shard."""
  path = split.files[0]
  data = bytearray(tf.io.gfile.GFile(path, 'rb').read())
  for number in numbers:
    data[split.offset[number] + 20] ^= 0xFF
  with open(path, 'wb') as stream:
    stream.write(data)


def by_index(batches):
  return {
    int(index): image
    for batch in batches
    for index, image in zip(batch.index, batch.image, strict=True)
  }


def test_damaged_records_are_skipped_up_to_a_limit(tokenizer, tmp_path):
  """The next record takes their place, also after resuming."""
  split = split_of(tmp_path, *(make_record(i, size=16) for i in range(6)))
  whole = take(split, tokenizer, 12, batch_size=2)
  damage(split, 2, 5)
  with pytest.raises(InputError, match=r'record [25] at byte'):
    take(split, tokenizer, 12, batch_size=2)
  limited = dataclasses.replace(PLAIN, max_skipped=1)
  with pytest.raises(InputError, match=r'record [25] at byte'):
    take(split, tokenizer, 12, limited, batch_size=2)
  options = dataclasses.replace(PLAIN, max_skipped=2)
  found = take(split, tokenizer, 12, options, batch_size=2)
  stand_ins = {2: 3, 5: 0}
  images = by_index(whole)
  for batch, before in zip(found, whole, strict=True):
    np.testing.assert_array_equal(batch.index, before.index)
    for index, image in zip(batch.index, batch.image, strict=True):
      expected = images[stand_ins.get(int(index), int(index))]
      np.testing.assert_array_equal(image, expected)
  assert_same(take(split, tokenizer, 3, options, batch_size=2, start_step=9), found[9:])


def test_damaged_records_of_all_workers_count(tokenizer, tmp_path):
  split = split_of(tmp_path, *(make_record(i, size=16) for i in range(4)))

  def divided(seed: int) -> bool:
    batches = take(split, tokenizer, 2, batch_size=2, seed=seed)
    return all(len({0, 2} & set(batch.index.tolist())) == 1 for batch in batches)

  # An order in which each of two workers finds one damaged record.
  seed = next(filter(divided, range(20)))
  damage(split, 0, 2)
  options = dataclasses.replace(PLAIN, max_skipped=1)
  with pytest.raises(InputError, match=r'record [02] at byte'):
    take(split, tokenizer, 2, options, batch_size=2, seed=seed, workers=2)


def test_a_damaged_record_is_replaced_by_one_that_training_takes(tokenizer, tmp_path):
  split = split_of(tmp_path, *(make_record(i, size=16) for i in range(12)))
  options = dataclasses.replace(PLAIN, limit=4, max_skipped=1)
  whole = by_index(take(split, tokenizer, 2, options, batch_size=2))
  taken = sorted(whole)
  assert len(taken) == 4
  for place, index in enumerate(taken):
    # None of the others is taken, wherever in the order this one is.
    damage(split, index)
    found = by_index(take(split, tokenizer, 2, options, batch_size=2))
    expected = whole | {index: whole[taken[(place + 1) % 4]]}
    for name, image in found.items():
      np.testing.assert_array_equal(image, expected[name])
    damage(split, index)  # The same byte flips back.


def test_consecutive_damaged_records(tokenizer, tmp_path):
  split = split_of(tmp_path, *(make_record(i) for i in range(4)))
  whole = take(split, tokenizer, 4, batch_size=4)
  images = by_index(whole)
  damage(split, 1, 2)
  options = dataclasses.replace(PLAIN, max_skipped=3)
  for batch in take(split, tokenizer, 4, options, batch_size=4):
    for index, image in zip(batch.index, batch.image, strict=True):
      expected = images[{1: 3, 2: 3}.get(int(index), int(index))]
      np.testing.assert_array_equal(image, expected)
  damage(split, 0, 3)
  with pytest.raises(InputError, match='at byte'):
    take(split, tokenizer, 4, options, batch_size=4)


def test_evaluation_skips_nothing(tokenizer, tmp_path):
  split = split_of(tmp_path, *(make_record(i) for i in range(4)))
  damage(split, 1)
  options = dataclasses.replace(PLAIN, max_skipped=4)
  with pytest.raises(InputError, match='record 1 at byte'):
    list(eval_batches(split, tokenizer, options, batch_size=2))
