"""RAHF learns from labelled images and pairs in the same batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import runs
import tiny
from rahf.data.schema import SCORES, MixedBatch, PairBatch
from rahf.errors import InputError
from rahf.models.rahf import RAHF
from rahf.runtime import sharding
from rahf.tasks import make_task
from rahf.training.batch_spec import random_batch
from rahf.training.setup import set_up

PAIRS = 16


def small(data_dir, variant='multi_head'):
  config = tiny.get_config(data_dir)
  config.task = 'feedback_pairs'
  config.model.variant = variant
  config.model.dropout_rate = 0.0
  config.pairs.update(batch_size=PAIRS, lanes=2)
  config.pairs.shapes.update(train=40, validation_unique=13, test_unique=11)
  return config


def mixed_batch(config) -> MixedBatch:
  random = np.random.default_rng(0)
  labelled = random_batch(config, 16)
  pairs = PairBatch(
    np.arange(PAIRS, dtype=np.int32),
    random.integers(0, 256, (PAIRS, 2, 64, 64, 3), np.uint8),
    random.integers(2, 280, (PAIRS, *labelled.text.shape[1:]), np.int32),
    random.choice(np.float32([0, 0.5, 1]), PAIRS),
    random.choice(np.float32([0, 0.5, 1]), PAIRS),
    np.zeros(PAIRS, bool),
  )
  return jax.tree.map(jnp.asarray, MixedBatch(labelled, pairs))


def variables_of(task):
  return nn.unbox(task.init(jax.random.key(0)))


@pytest.mark.parametrize('variant', ['multi_head', 'augmented_prompt'])
def test_scores_alone_are_those_of_the_whole_model(data_dir, variant):
  task = make_task(small(data_dir, variant))
  batch, variables = mixed_batch(task.config).labelled, variables_of(task)
  whole = task.model.apply(
    variables, batch.image, batch.text, batch.target, train=False
  )
  alone = task.model.apply(
    variables, batch.image, batch.text, train=False, method=RAHF.score
  )
  np.testing.assert_allclose(alone, whole.scores, atol=1e-6)


def test_the_loss_of_pairs_by_its_definition(data_dir):
  config = small(data_dir)
  config.pairs.score_weights = (('overall', 0.75), ('alignment', 0.25))
  config.pairs.scale = 4.0
  config.loss.preference = 3.0
  task = make_task(config)
  batch, variables = mixed_batch(config), variables_of(task)
  losses, _ = task.loss(variables, batch, task.count_labels(batch), jax.random.key(0))
  pairs, sides = batch.pairs, []
  for side in (0, 1):
    image = jnp.asarray(pairs.images[:, side], jnp.float32) / 127.5 - 1
    scores = task.model.apply(
      variables, image, pairs.text, train=False, method=RAHF.score
    )
    columns = [np.asarray(scores[:, SCORES.index(n)]) for n in ('overall', 'alignment')]
    sides.append(0.75 * columns[0] + 0.25 * columns[1])
  p_first = 1 / (1 + np.exp(-4.0 * (sides[0] - sides[1])))
  label = pairs.preference
  nats = -label * np.log(p_first) - (1 - label) * np.log(1 - p_first)
  nats -= np.where(label == 0.5, np.log(2), 0)
  expected = np.average(nats, weights=pairs.weight)
  assert float(losses.preference) == pytest.approx(expected, rel=1e-4)
  alone = float(losses.total - 3.0 * losses.preference)
  plain = make_task(tiny_without_pairs(config))
  counts = plain.count_labels(batch.labelled)
  only, _ = plain.loss(variables, batch.labelled, counts, jax.random.key(0))
  assert alone == pytest.approx(float(only.total), rel=1e-5)


def tiny_without_pairs(config):
  other = config.copy_and_resolve_references()
  other.task = 'feedback'
  return other


def test_pairs_move_only_what_scores_depend_on(data_dir):
  """Heads of maps and the decoder see the labelled images alone."""
  config = small(data_dir)
  config.loss.update(heatmap=0.0, score=0.0, sequence=0.0)
  task = make_task(config)
  batch, variables = mixed_batch(config), variables_of(task)
  counts = task.count_labels(batch)

  def total(params):
    return task.loss({'params': params}, batch, counts, jax.random.key(0))[0].total

  grads = jax.grad(total)(variables['params'])
  size = {name: float(norm(tree)) for name, tree in grads.items()}
  assert size['score_head_overall'] > 0
  assert size['vit'] > 0
  assert size['heatmap_head_implausibility'] == 0
  assert size['score_head_plausibility'] == 0


def norm(tree):
  return jnp.sqrt(sum(jnp.sum(jnp.square(x)) for x in jax.tree.leaves(tree)))


@pytest.mark.parametrize('accumulate', [1, 2])
def test_one_device_is_eight(data_dir, accumulate):
  config, found = small(data_dir), []
  config.train.batch_size = 16
  batch = mixed_batch(config)
  for devices, parts in ((1, 1), (8, accumulate)):
    config.train.accumulate = parts
    setup = set_up(make_task(config), jax.devices()[:devices])
    step = jax.jit(setup.make_train_step(), **setup.jit_options)
    with jax.set_mesh(setup.mesh):
      on_devices = sharding.put_batch(batch, setup.mesh)
      _, metrics = step(setup.states.make(0), on_devices, jax.random.key(0))
    found.append(jax.device_get(metrics))
  for name in ('loss/total', 'loss/preference', 'gradient_norm'):
    np.testing.assert_allclose(found[0][name], found[1][name], rtol=1e-4)


def test_trains_logs_and_evaluates(data_dir, tmp_path):
  runs.run_training(small(data_dir), tmp_path)
  rows = runs.read_metrics_log(tmp_path)
  assert all(row['loss/preference'] >= 0 for row in rows if row['split'] == 'train')
  assert (tmp_path / 'eval' / 'test-4.json').exists()
  task = make_task(small(data_dir))
  setup = set_up(task, jax.devices()[:1])
  session = task.open(setup, tmp_path)
  assert '40, 16 of them in each batch' in session.describe(('train',))
  batch = next(session.train_batches(0))
  shapes = task.batch_shapes(8, train=True)
  jax.tree.map(
    lambda found, shape: np.testing.assert_equal(
      (found.shape, str(found.dtype)), (shape.shape, str(shape.dtype))
    ),
    batch,
    shapes,
  )


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'pairs.lanes': 3}, r'lanes = 3 does not divide config\.pairs\.batch_size = 16'),
    ({'pairs.batch_size': 12}, r'config\.pairs\.batch_size = 12 is not a positive mul'),
    ({'pairs.score_weights': (('style', 1.0),)}, r'score_weights = .*style'),
  ],
)
def test_settings_that_do_not_fit(data_dir, tmp_path, change, message):
  config = small(data_dir)
  config.update_from_flattened_dict(change)
  with pytest.raises(InputError, match=message):
    runs.run_training(config, tmp_path)
