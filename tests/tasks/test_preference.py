"""PickScore: loss, training, evaluation; the goldens are of PickScore's own code."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from flax import linen as nn

import runs
import tiny_pickscore
from rahf.config import default_config
from rahf.data.schema import PairBatch
from rahf.errors import InputError
from rahf.evaluation.preference_accuracy import THRESHOLDS
from rahf.export import export
from rahf.pretrained.formats import clip_settings
from rahf.runtime import sharding
from rahf.runtime.preemption import Interruption
from rahf.tasks import make_task
from rahf.training.optimizer import make_optimizer, make_schedule
from rahf.training.preference_losses import (
  Features,
  in_batch_losses,
  pair_losses,
  scores_of,
)
from rahf.training.setup import set_up
from rahf.workdir.checkpoint import Checkpoints
from tiny_pickscore import SIZE, TEXT


@pytest.fixture(scope='module')
def trained_pickscore(data_dir, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('pickscore')
  runs.run_training(tiny_pickscore.get_config(data_dir), workdir)
  return workdir


def random_batch(size: int) -> PairBatch:
  random = np.random.default_rng(0)
  text = random.integers(0, SIZE - 2, (size, TEXT), np.int32)
  text[:, -1] = SIZE - 1
  return PairBatch(
    np.arange(size, dtype=np.int32),
    random.integers(0, 256, (size, 2, 64, 64, 3), np.uint8),
    text,
    random.choice(np.float32([0, 0.5, 1]), size),
    random.choice(np.float32([0.25, 0.5, 1]), size),
    np.zeros(size, np.int32),
  )


def golden_features(golden: dict, scale: float) -> Features:
  def features(phase: float):
    rows = np.sin(0.7 * np.arange(12).reshape(4, 3) + phase)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)

  assert 'B=4, D=3; f[i,j]=sin(0.7*(i*D+j)+phase)' in golden['features']
  text, first, second = map(features, (0.1, 1.3, 2.9))
  return Features(
    jnp.asarray(np.stack([first, second], 1)), jnp.asarray(text), jnp.asarray(scale)
  )


@pytest.mark.parametrize('kind', ['pairwise', 'in_batch_negatives'])
def test_losses_and_gradients_are_pickscores(assets, kind):
  golden = json.loads((assets / 'preferences' / 'pickscore_goldens.json').read_text())
  golden = golden['pickscore_loss']
  compared = 0
  with jax.enable_x64(True):
    preference = jnp.asarray(golden['label_0'], float)
    weight = 1 / jnp.asarray(golden['num_example_per_prompt'], float)

    def loss(text, first, second, scale):
      features = Features(jnp.stack([first, second], 1), text, scale)
      if kind == 'pairwise':
        losses = pair_losses(scores_of(features), preference)
      else:
        losses = in_batch_losses(features, preference, weight > 0)
      return jnp.sum(losses * weight) / jnp.sum(weight)

    for name, expected in golden['results'].items():
      if not name.startswith(kind):
        continue
      compared += 1
      images, text, scale = golden_features(golden, float(name.split()[-1]))
      value, grads = jax.value_and_grad(loss, (0, 1))(
        text, images[:, 0], images[:, 1], scale
      )
      found = [value, *map(jnp.linalg.norm, grads)]
      names = ('loss', 'grad_text_norm', 'grad_image0_norm')
      np.testing.assert_allclose(found, [expected[n] for n in names], rtol=1e-6)
  assert compared == 2


def test_a_tie_of_equal_images_costs_nothing():
  assert abs(pair_losses(jnp.full((1, 2), 3.0), jnp.array([0.5]))[0]) < 1e-7


def test_learning_rates_are_deepspeeds(assets):
  golden = json.loads((assets / 'preferences' / 'pickscore_goldens.json').read_text())
  options = default_config().optimizer
  options.update(learning_rate=3e-6, schedule='linear', warmup_steps=500)
  schedule = make_schedule(options, 4000)
  for step, rate in golden['pickscore_lr']['lr'].items():
    assert float(schedule(int(step))) == pytest.approx(rate, rel=1e-6, abs=1e-13)


def test_everything_decays():
  options = default_config().optimizer
  options.update(decay='all', weight_decay=0.3, learning_rate=0.1, warmup_steps=0)
  options.schedule = 'linear'
  params = {'norm': {'scale': jnp.array([2.0])}, 'logit_scale': jnp.array(3.0)}
  optimizer = make_optimizer(options, 10)
  zeros = jax.tree.map(jnp.zeros_like, params)
  updates, _ = optimizer.update(zeros, optimizer.init(params), params)
  assert float(updates['logit_scale']) == pytest.approx(-0.1 * 0.3 * 3)
  assert float(updates['norm']['scale'][0]) == pytest.approx(-0.1 * 0.3 * 2)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'cooldown_steps': 5}, r'cooldown_steps = 5, but with .* falls to 0 anyway'),
    ({'warmup_steps': 10}, r'warmup_steps = 10 must be below config\.train\.steps'),
  ],
)
def test_schedules_that_do_not_fit(changes, message):
  options = default_config().optimizer
  options.update({'schedule': 'linear', 'warmup_steps': 2} | changes)
  with pytest.raises(InputError, match=message):
    make_schedule(options, 10)


@pytest.mark.parametrize(
  ('negatives', 'accumulate'), [(False, 1), (False, 2), (True, 1)]
)
def test_one_device_is_eight(data_dir, negatives, accumulate):
  """Also with micro-batches, whose weights differ."""
  config = tiny_pickscore.get_config(data_dir)
  config.pairs.in_batch_negatives = negatives
  config.train.batch_size = 16
  batch, found = random_batch(16), []
  batch.weight[3] = 0  # A dropped pair.
  for devices, parts in ((1, 1), (8, accumulate)):
    config.train.accumulate = parts
    setup = set_up(make_task(config), jax.devices()[:devices])
    step = jax.jit(setup.make_train_step(), **setup.jit_options)
    with jax.set_mesh(setup.mesh):
      on_devices = sharding.put_batch(batch, setup.mesh)
      _, metrics = step(setup.states.make(0), on_devices, jax.random.key(0))
    found.append(jax.device_get(metrics))
  for name in ('loss/total', 'gradient_norm'):
    np.testing.assert_allclose(found[0][name], found[1][name], rtol=1e-4)


def test_dropped_pairs_are_no_negatives():
  """The loss of the others is that of a batch without the dropped pair."""
  random = np.random.default_rng(0)
  images, text = random.standard_normal((5, 2, 3)), random.standard_normal((5, 3))
  preference = np.array([1, 0.5, 0, 1, 0])
  used = np.array([True, True, False, True, True])
  whole = Features(jnp.asarray(images), jnp.asarray(text), jnp.asarray(2.0))
  rest = Features(images[used], text[used], whole.scale)
  found = in_batch_losses(whole, jnp.asarray(preference), jnp.asarray(used))
  expected = in_batch_losses(rest, jnp.asarray(preference[used]), jnp.ones(4, bool))
  np.testing.assert_allclose(found[used], expected, rtol=1e-5)


def test_a_batch_whose_pairs_are_all_dropped(data_dir):
  task = make_task(tiny_pickscore.get_config(data_dir))
  batch = jax.tree.map(jnp.asarray, random_batch(4))
  batch = batch._replace(weight=jnp.zeros(4))
  variables = nn.unbox(task.init(jax.random.key(0)))
  losses, _ = task.loss(variables, batch, task.count_labels(batch), None)
  assert float(losses.total) == 0


def test_a_run_that_crashed_is_the_same_run(data_dir, trained_pickscore, tmp_path):
  runs.crash(tiny_pickscore.get_config(data_dir), tmp_path, step=3)
  assert Checkpoints(tmp_path).latest_step() == 2
  runs.run_training(tiny_pickscore.get_config(data_dir), tmp_path)
  runs.assert_same_run(trained_pickscore, tmp_path)


def test_two_processes_train_as_one(data_dir, trained_pickscore, tmp_path):
  """Each reads its own lane; the first also learns the vocabulary."""
  for process in runs.start_two(data_dir, tmp_path, 'tiny_pickscore'):
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
  one, two = map(runs.read_untimed, (trained_pickscore, tmp_path))
  runs.assert_close(two, one)
  assert [row['loss/total'] for row in one]


def test_evaluation_and_export(data_dir, trained_pickscore, tmp_path):
  found = json.loads((trained_pickscore / 'eval' / 'test-4.json').read_text())
  chosen = json.loads((trained_pickscore / 'eval' / 'dev-4.json').read_text())
  assert found['accuracy/threshold'] == chosen['accuracy/threshold']
  assert chosen['accuracy/threshold'] in THRESHOLDS
  assert (found['pairs'], found['pairs/dropped']) == (11, 0)
  tables = (trained_pickscore / 'eval' / 'test-4.md').read_text()
  assert 'chosen on validation_unique' in tables
  assert '| best possible, % |' in tables
  assert '| gen-' in tables
  config = tiny_pickscore.get_config(data_dir)
  config.export.dir = str(tmp_path / 'export')
  export(config, epath.Path(trained_pickscore), Interruption())
  assert config.clip.to_dict() == clip_settings(tmp_path / 'export')


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'pairs.lanes': 3}, r'lanes = 3 does not divide config\.train\.batch_size = 8'),
    ({'pairs.lanes': 8}, r'lanes = 8, but the files have only 2 row groups'),
    (
      {'pairs.in_batch_negatives': True, 'train.accumulate': 2},
      r'accumulate = 2, but with config\.pairs\.in_batch_negatives',
    ),
    ({'pairs.dir': 'none'}, r'none: no \.parquet file below it'),
  ],
)
def test_settings_that_do_not_fit(data_dir, tmp_path, change, message):
  config = tiny_pickscore.get_config(data_dir)
  config.update_from_flattened_dict(change)
  with pytest.raises(InputError, match=message):
    runs.run_training(config, tmp_path)
