"""Losses against numbers worked out by hand."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rahf.data.schema import Batch
from rahf.models.rahf import Outputs
from rahf.training.losses import count_labels, sum_errors, weighted_losses

WEIGHTS = types.SimpleNamespace(heatmap=2.0, score=3.0, sequence=5.0)
VOCABULARY = 4


def example(rows: int = 3, **changes) -> Batch:
  """Three fully annotated rows, all labels 0, all targets one token and EOS."""
  fields = dict(
    index=np.arange(rows),
    image=np.zeros((rows, 2, 2, 3), np.float32),
    text=np.ones((rows, 1, 1), np.int32),
    word_end=np.zeros((rows, 1), bool),
    target=np.tile(np.array([3, 1, 0], np.int32), (rows, 1)),
    maps=np.zeros((rows, 2, 2, 2), np.float32),
    map_mask=np.ones((rows, 2), bool),
    scores=np.zeros((rows, 4), np.float32),
    score_mask=np.ones((rows, 4), bool),
    keyword_mask=np.ones(rows, bool),
    truncated=np.zeros(rows, bool),
  )
  return Batch(**fields | changes)


def outputs(rows: int = 3, maps=0.0, scores=0.0, logits=0.0) -> Outputs:
  return Outputs(
    jnp.broadcast_to(jnp.asarray(maps, jnp.float32), (rows, 2, 2, 2)),
    jnp.broadcast_to(jnp.asarray(scores, jnp.float32), (rows, 4)),
    jnp.broadcast_to(jnp.asarray(logits, jnp.float32), (rows, 3, VOCABULARY)),
  )


def losses_of(batch: Batch, found: Outputs):
  batch = Batch(*map(jnp.asarray, batch))
  return weighted_losses(sum_errors(found, batch), count_labels(batch), WEIGHTS)


def test_each_loss_is_a_sum_over_types_of_means():
  # Errors of the maps are .1 and .2, of the scores .1 to .4; logits say nothing.
  found = outputs(
    maps=np.array([0.1, 0.2]).reshape(1, 2, 1, 1), scores=[[0.1, 0.2, 0.3, 0.4]]
  )
  loss = losses_of(example(), found)
  assert float(loss.heatmap) == pytest.approx(0.01 + 0.04)
  assert float(loss.score) == pytest.approx(0.01 + 0.04 + 0.09 + 0.16)
  assert float(loss.sequence) == pytest.approx(np.log(VOCABULARY))
  total = 2 * 0.05 + 3 * 0.30 + 5 * np.log(VOCABULARY)
  assert float(loss.total) == pytest.approx(total)


def test_a_map_error_is_the_mean_of_its_pixels():
  maps = np.zeros((1, 2, 2, 2))
  maps[0, 0] = [[0.4, 0], [0, 0.2]]
  loss = losses_of(example(rows=1), outputs(1, maps=maps))
  assert float(loss.heatmap) == pytest.approx((0.16 + 0.04) / 4)


def test_the_sequence_counts_eos_but_no_padding():
  # Nats: ln 4 for the word, about 0 for EOS, and a certain error under the padding.
  logits = np.zeros((1, 3, VOCABULARY))
  logits[0, 1, 1] = 40
  logits[0, 2, 2] = 40
  loss = losses_of(example(), outputs(logits=logits))
  assert float(loss.sequence) == pytest.approx(np.log(4) / 2)


def test_labels_that_are_missing_do_not_count():
  batch = example(
    map_mask=np.array([[1, 0], [0, 0], [1, 1]], bool),
    score_mask=np.array([[1, 0, 1, 1], [0, 0, 1, 1], [0, 1, 1, 1]], bool),
    keyword_mask=np.array([False, True, False]),
  )
  maps = np.array([[1, 9], [9, 9], [2, 3]]).reshape(3, 2, 1, 1) / 10
  scores = np.array([[1, 9, 0, 0], [9, 9, 0, 0], [9, 2, 0, 3]]) / 10
  logits = np.full((3, 1, VOCABULARY), 0.0)
  logits[0, :, 2] = logits[2, :, 2] = 99
  loss = losses_of(batch, outputs(maps=maps, scores=scores, logits=logits))
  assert float(loss.heatmap) == pytest.approx((0.01 + 0.04) / 2 + 0.09)
  assert float(loss.score) == pytest.approx(0.01 + 0.04 + 0.09 / 3)
  assert float(loss.sequence) == pytest.approx(np.log(4))


def test_a_type_without_any_label_contributes_zero():
  nothing = example(
    map_mask=np.zeros((3, 2), bool),
    score_mask=np.zeros((3, 4), bool),
    keyword_mask=np.zeros(3, bool),
  )
  assert losses_of(nothing, outputs(maps=0.5, scores=0.5)) == (0, 0, 0, 0)
  some = nothing._replace(score_mask=np.eye(3, 4, dtype=bool))
  loss = losses_of(some, outputs(maps=0.5, scores=0.5))
  assert tuple(map(float, loss)) == pytest.approx((0, 0.75, 0, 2.25))


def test_padding_rows_change_nothing():
  found = outputs(1, maps=0.3, scores=0.3)
  unpadded = losses_of(example(rows=1), found)
  mask = np.array([True, False, False])
  padded = example(
    index=np.array([0, -1, -1]),
    target=np.array([[3, 1, 0], [0, 0, 0], [0, 0, 0]], np.int32),
    map_mask=np.tile(mask[:, None], (1, 2)),
    score_mask=np.tile(mask[:, None], (1, 4)),
    keyword_mask=mask,
  )
  noise = jax.tree.map(lambda x: np.full((2, *x.shape[1:]), 0.9, np.float32), found)
  more = jax.tree.map(lambda *rows: jnp.concatenate(rows), found, noise)
  np.testing.assert_allclose(losses_of(padded, more), unpadded, rtol=1e-6)


def test_counts_are_those_of_the_labels():
  counts = count_labels(Batch(*map(jnp.asarray, example())))
  np.testing.assert_array_equal(counts.maps, [3, 3])
  np.testing.assert_array_equal(counts.scores, [3, 3, 3, 3])
  assert float(counts.tokens) == 6
