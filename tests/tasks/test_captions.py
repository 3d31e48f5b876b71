"""RAHF learns captions, alone and beside labelled images."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from flax import linen as nn

import runs
import tiny
from configs import augmented_prompt, pretrain_captions, quickstart
from rahf.data.datasets.shapes.builder import train_tokenizer
from rahf.errors import InputError
from rahf.export import export
from rahf.inference import open_model
from rahf.runtime import sharding
from rahf.runtime.preemption import Interruption
from rahf.runtime.tree import by_path
from rahf.tasks import make_task
from rahf.tasks.captions_session import word_f1
from rahf.tasks.feedback_data import open_data
from rahf.training.batch_spec import random_batch
from rahf.training.setup import set_up
from rahf.workdir.checkpoint import Checkpoints

MIXTURE = (('shapes', 1.0), ('shapes_captions', 2.0))


def alone(data_dir, variant='multi_head'):
  config = tiny.get_config(data_dir)
  config.task = 'captions'
  config.data.name = 'shapes_captions'
  config.model.variant = variant
  config.model.dropout_rate = 0.0
  return config


def mixed(data_dir):
  config = tiny.get_config(data_dir)
  config.data.mixture = MIXTURE
  config.data.captions = ('shapes_captions',)
  return config


@pytest.fixture(scope='module')
def pretrained(data_dir, tmp_path_factory):
  """A work directory of captions, with its export."""
  workdir = epath.Path(tmp_path_factory.mktemp('captions'))
  runs.run_training(alone(data_dir), workdir)
  export(alone(data_dir), workdir, Interruption())
  return workdir


def test_the_loss_is_that_of_the_last_text_alone(data_dir):
  variant = 'augmented_prompt'
  task, feedback = make_task(alone(data_dir, variant)), tiny.get_config(data_dir)
  feedback.model.update(variant=variant, dropout_rate=0.0)
  feedback = make_task(feedback)
  batch = jax.tree.map(jnp.asarray, random_batch(task.config, 8))
  key = jax.random.key(1)

  @jax.jit
  @jax.value_and_grad
  def total(params):
    counts = task.count_labels(batch)
    return task.loss({'params': params}, batch, counts, key)[0].total

  @jax.jit
  def sequence(variables):
    counts = feedback.count_labels(batch)
    return feedback.loss(variables, batch, counts, key)[0].sequence

  variables = nn.unbox(jax.jit(task.init)(jax.random.key(0)))
  found, grads = total(variables['params'])
  assert float(found) == pytest.approx(float(sequence(variables)), rel=1e-5)
  moved = {
    name for name, tree in grads.items() if any(map(np.any, jax.tree.leaves(tree)))
  }
  assert moved == {'vit', 't5', 'image_projection'}


def test_one_device_is_eight(data_dir):
  config, found = alone(data_dir), []
  batch = random_batch(config, 8)
  for count in (1, 8):
    setup = set_up(make_task(config), jax.devices()[:count])
    step = jax.jit(setup.make_train_step(), **setup.jit_options)
    with jax.set_mesh(setup.mesh):
      on_devices = sharding.put_batch(batch, setup.mesh)
      _, metrics = step(setup.states.make(0), on_devices, jax.random.key(0))
    found.append(jax.device_get(metrics))
  for name in ('loss/sequence', 'gradient_norm'):
    np.testing.assert_allclose(found[0][name], found[1][name], rtol=1e-4)


def test_what_is_evaluated(pretrained):
  folder = pretrained / 'eval'
  metrics = json.loads((folder / 'test-4.json').read_text())
  # An untrained model of 288 pieces: about log(288) = 5.7 nats.
  assert 4 < metrics['loss/sequence'] < 7
  assert metrics['captions/exact'] == 0
  assert metrics['captions/truncated'] == 0
  lines = (folder / 'test-4-captions.jsonl').read_text().splitlines()
  found = [json.loads(line) for line in lines]
  assert {one['uid'] for one in found} == {f'test-{i:08d}' for i in range(3)}
  assert all(
    ' at the ' in one['caption']
    or ' on the ' in one['caption']
    or ' in the ' in one['caption']
    for one in found
  )
  assert (folder / 'test-4-captions-0.png').exists()


def test_the_config_has_the_models_that_feedback_continues():
  paper = pretrain_captions.get_config()
  assert paper.model == augmented_prompt.get_config().model
  small, quick = pretrain_captions.get_config('shapes'), quickstart.get_config()
  assert not quick.model.decoder_sees_image
  quick.model.decoder_sees_image = True
  assert small.model == quick.model
  with pytest.raises(ValueError, match='use paper or shapes'):
    pretrain_captions.get_config('big')


def test_word_f1_by_hand():
  assert word_f1(['a', 'red', 'ring'], ['a', 'ring']) == pytest.approx(0.8)
  assert word_f1([], ['a']) == 0
  assert word_f1(['ring', 'a'], ['a', 'ring']) == 1


def test_feedback_starts_from_captions(pretrained, data_dir, tmp_path):
  config = tiny.get_config(data_dir)
  config.init.rahf = str(pretrained / 'export')
  setup = set_up(make_task(config), jax.devices()[:1])
  plan = setup.task.open(setup, epath.Path(tmp_path)).plan_weights()
  assert plan.fresh == ()
  trained = runs.read_checkpoint(pretrained, 4)
  for path, array in by_path(plan.read()).items():
    np.testing.assert_array_equal(array, trained[f'params/{path}'], path)


def test_a_model_of_captions_alone_does_not_score(pretrained):
  with pytest.raises(
    InputError, match=r'captions alone.*--config\.init\.rahf='
  ) as error:
    open_model.load(pretrained / 'export')
  assert str(pretrained / 'export') in str(error.value)
  card = (pretrained / 'export/README.md').read_text()
  assert 'captions alone' in card
  assert 'rahf.load' not in card.split('## Files')[0]


def test_another_tokenizer_is_refused(pretrained, data_dir, tmp_path):
  model = tmp_path / 'other.model'
  model.write_bytes(train_tokenizer(7))
  config = tiny.get_config(data_dir)
  config.init.rahf = str(pretrained / 'export')
  config.tokenizer = str(model)
  config.model.t5.vocab_size = 288
  with pytest.raises(InputError, match=r'another tokenizer.*--config\.tokenizer='):
    runs.run_training(config, tmp_path / 'run')


def test_a_changed_export_is_not_trained_on(pretrained, data_dir, tmp_path):
  copy = tmp_path / 'export'
  shutil.copytree(pretrained / 'export', copy)
  weights = copy / 'model.safetensors'
  data = bytearray(weights.read_bytes())
  data[-1] ^= 1
  weights.write_bytes(data)
  config = tiny.get_config(data_dir)
  config.init.rahf = str(copy)
  with pytest.raises(InputError, match=r'model\.safetensors is damaged: its SHA-256'):
    runs.run_training(config, tmp_path / 'run')


def test_a_data_set_stands_once_in_a_mixture(data_dir):
  config = tiny.get_config(data_dir)
  config.data.mixture = (('shapes', 1.0), ('shapes', 2.0))
  with pytest.raises(InputError, match=r"mixture names 'shapes' twice"):
    open_data(config)


def test_a_mixture_that_crashed_is_the_same_run(data_dir, tmp_path):
  runs.run_training(mixed(data_dir), tmp_path / 'whole')
  rows = runs.read_metrics_log(tmp_path / 'whole')
  assert all(np.isfinite(row['loss/sequence']) for row in rows)
  runs.crash(mixed(data_dir), tmp_path / 'crashed', step=3)
  assert Checkpoints(tmp_path / 'crashed').latest_step() == 2
  runs.run_training(mixed(data_dir), tmp_path / 'crashed')
  runs.assert_same_run(tmp_path / 'whole', tmp_path / 'crashed')


def test_the_session_says_what_are_captions(data_dir, tmp_path):
  config = mixed(data_dir)
  config.data.limit = 5
  setup = set_up(make_task(config), jax.devices()[:1])
  text = setup.task.open(setup, epath.Path(tmp_path)).describe(('train',))
  assert 'Limit: 5 examples of each data set, but all captions' in text
  assert '66.7% of 12 captions from ' in text


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'data.captions': ('cc12m',)}, r"names 'cc12m', which is not trained on; add it"),
    ({'data.captions': ('shapes',)}, r"config\.data\.name = 'shapes' is evaluated and"),
    (
      {
        'data.mixture': MIXTURE,
        'data.captions': MIXTURE[1][:1],
        'data.caption_prompt': 'a red circle ' * 30,
      },
      r'caption_prompt = .* has more than config\.data\.text_length = 32 tokens',
    ),
    ({'data.captions': ('a', 3)}, r'config\.data\.captions = .* has 3, which must'),
    (
      {'task': 'baseline', 'data.mixture': MIXTURE, 'data.captions': MIXTURE[1][:1]},
      r'only a RAHF predicts captions, not config\.task = .baseline',
    ),
  ],
)
def test_settings_that_do_not_fit(data_dir, tmp_path, change, message):
  config = tiny.get_config(data_dir)
  config.update_from_flattened_dict(change)
  with pytest.raises(InputError, match=message):
    runs.run_training(config, tmp_path)
