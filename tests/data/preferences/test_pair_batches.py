"""Batches of pairs: order, resuming, several processes, pairs that are dropped."""

import itertools
import math
import re

import numpy as np
import pair_files
import pytest

import clip_directory
from rahf.data.clip_tokenizer import ClipTokenizer, train_vocabulary
from rahf.data.preferences.pair_batches import PairDecoder, PairReader
from rahf.data.preferences.pair_order import make_lanes
from rahf.data.preferences.pair_tally import Problem, damaged
from rahf.data.preferences.pairs import open_pairs
from rahf.errors import InputError

VOCABULARY = train_vocabulary(clip_directory.PROMPTS, 530)
TOKENIZER = ClipTokenizer(VOCABULARY, 'huggingface', 40)


def make_reader(folder, rows, size=4, labelled_only=False) -> PairReader:
  pair_files.write(folder / 'train-00000.parquet', rows, size)
  decoder = PairDecoder.for_clip(TOKENIZER, 8, labelled_only)
  return PairReader(open_pairs(folder, 'train'), decoder)


@pytest.fixture
def reader(tmp_path) -> PairReader:
  """Of 22 pairs in row groups of 4, the last of 2."""
  return make_reader(tmp_path, [pair_files.row(number) for number in range(22)])


def steps(reader, number, **options):
  options = dict(batch_size=6, lanes=2, seed=0, start_step=0) | options
  return list(itertools.islice(reader.train_batches(**options), number))


def test_an_epoch_has_every_pair_once():
  for sizes, lanes in ((np.array([4, 4, 4, 2]), 1), (np.full(12, 5), 3)):
    seen = []
    for lane in make_lanes(sizes, lanes, seed=3):
      one = [lane.place(position) for position in range(len(lane))]
      two = [lane.place(position) for position in range(len(lane), 2 * len(lane))]
      assert len(set(one)) == len(one)
      assert set(one) == set(two)
      assert one != two
      seen += one
    assert len(seen) == len(set(seen)) == sizes.sum()


def test_lanes_have_about_equally_many_pairs():
  sizes = np.array([7, 1, 3, 3, 5, 2, 6, 0])
  lengths = [len(lane) for lane in make_lanes(sizes, 3, seed=0)]
  assert sum(lengths) == sizes.sum()
  assert max(lengths) - min(lengths) <= sizes.max()
  # No lane is empty, and none reads a row group without pairs.
  assert all(lane.sizes.all() for lane in make_lanes(sizes, 7, seed=0))
  with pytest.raises(InputError, match='lanes = 8, but the files have only 7'):
    make_lanes(sizes, 8, seed=0)


def test_batches_hold_the_pairs_of_their_index(reader):
  for batch in steps(reader, 4):
    for index, images, text in zip(batch.index, batch.images, batch.text, strict=True):
      row = pair_files.row(int(index))
      expected = reader.decoder(reader.split[int(index)])
      assert reader.split[int(index)].ranking_id == row['ranking_id']
      np.testing.assert_array_equal(images, expected.images)
      np.testing.assert_array_equal(text, expected.text)


def test_any_step_can_be_the_first(reader):
  whole = steps(reader, 12)
  for start in (1, 5, 11):
    resumed = steps(reader, 12 - start, start_step=start)
    for one, other in zip(whole[start:], resumed, strict=True):
      for values, again in zip(one, other, strict=True):
        np.testing.assert_array_equal(values, again)


def test_processes_read_their_own_rows(reader):
  whole = steps(reader, 5)
  for rows in ([0, 1, 2], [3, 4, 5], [1, 4]):
    for one, own in zip(whole, steps(reader, 5, rows=rows), strict=True):
      np.testing.assert_array_equal(one.index[rows], own.index)
      np.testing.assert_array_equal(one.images[rows], own.images)


def test_a_process_reads_the_row_groups_of_its_lanes_only(reader, monkeypatch):
  groups = {int(g) for g in make_lanes(np.diff(reader.split.starts), 2, 0)[1].groups}
  read = type(reader.split).read
  opened = set()

  def spy(split, start, stop):
    opened.add(int(np.searchsorted(split.starts, start)))
    return read(split, start, stop)

  monkeypatch.setattr(type(reader.split), 'read', spy)
  steps(reader, 8, rows=[3, 4, 5])
  assert opened <= groups
  assert opened


def test_another_seed_is_another_order(reader):
  one, other = (steps(reader, 1, seed=seed)[0].index for seed in (0, 1))
  assert not np.array_equal(one, other)


def test_evaluation_has_every_pair_once_and_pads(reader):
  batches = list(reader.eval_batches(batch_size=8))
  index = np.concatenate([batch.index for batch in batches])
  np.testing.assert_array_equal(index, [*range(22), -1, -1])
  assert not batches[-1].weight[-2:].any()
  own = list(reader.eval_batches(batch_size=8, rows=[6, 7]))
  np.testing.assert_array_equal(own[-1].index, [-1, -1])
  np.testing.assert_array_equal(own[0].images, batches[0].images[6:])


def test_weights_are_those_of_prompts(tmp_path):
  rows = [pair_files.row(n, num_example_per_prompt=c) for n, c in enumerate((4, 1))]
  rows.append(pair_files.row(2, num_example_per_prompt=None))
  reader = make_reader(tmp_path, rows)
  (batch,) = reader.eval_batches(batch_size=3)
  np.testing.assert_array_equal(batch.weight, np.float32([0.25, 1, 1]))


@pytest.mark.parametrize(
  ('change', 'reason'),
  [
    ({'jpg_1': b'no image'}, r'image 1 \(1-1\) cannot be read'),
    ({'jpg_0': None}, r'image 0 \(1-0\) cannot be read'),
    ({'best_image_uid': '1-1'}, 'best_image_uid contradicts its labels'),
    ({'label_1': 1.0}, 'its labels are 1 and 1'),
    ({'label_0': None}, 'its labels are nan and 0'),
  ],
)
def test_pairs_that_cannot_be_used_are_dropped(tmp_path, caplog, change, reason):
  rows = [pair_files.row(0), pair_files.row(1, **change), pair_files.row(2)]
  reader = make_reader(tmp_path, rows)
  (batch,) = reader.eval_batches(batch_size=3)
  np.testing.assert_array_equal(batch.weight > 0, [True, False, True])
  assert damaged(reader.tally.counts) == 1
  assert 'row group 0, row 1' in caplog.text
  assert re.search(reason, caplog.text)


def test_pairs_without_a_label_are_trained_on_but_can_be_left_out(tmp_path):
  rows = [pair_files.row(0, has_label=False, label_0=0.0, label_1=1.0)]
  everything = make_reader(tmp_path, rows)
  (batch,) = everything.eval_batches(batch_size=1)
  assert (batch.weight[0], batch.preference[0]) == (1, 0)
  labelled = make_reader(tmp_path, rows, labelled_only=True)
  (batch,) = labelled.eval_batches(batch_size=1)
  assert (batch.weight[0], batch.problem[0]) == (0, Problem.UNLABELLED)


def test_long_prompts_are_told(tmp_path):
  rows = [pair_files.row(0, caption='red circle ' * 40), pair_files.row(1)]
  (batch,) = make_reader(tmp_path, rows).eval_batches(batch_size=2)
  assert batch.problem.tolist() == [Problem.TRUNCATED, Problem.NONE]
  assert batch.text[0, -1] == TOKENIZER.end_id


def test_empty_images_are_no_pair(tmp_path):
  rows = [pair_files.row(number, jpg_0=b'') for number in range(4)]
  batches = steps(make_reader(tmp_path, rows, size=2), 1, batch_size=4)
  assert not batches[0].weight.any()
  assert math.isfinite(batches[0].preference.sum())


def test_each_damaged_pair_is_named_once_and_training_ends_with_their_number(
  tmp_path, caplog, capsys
):
  changes = [{}, {'jpg_0': b''}, {'label_1': 1.0}, {'caption': 'red circle ' * 40}]
  rows = [pair_files.row(number, **change) for number, change in enumerate(changes)]
  reader = make_reader(tmp_path, rows, size=2)
  steps(reader, 6, batch_size=4)  # Six epochs.
  for _ in range(2):
    list(reader.eval_batches(batch_size=3))
  assert caplog.text.count('Dropped pair') == 2
  assert capsys.readouterr().out == (
    'train: Pairs that were not used: 1 with invalid labels, 1 with an unreadable '
    'image.\n'
    'train: Pairs of whose prompt the model reads only the beginning: 1.\n'
  )
