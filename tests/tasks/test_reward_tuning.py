"""A Muse that a RAHF rewards: it draws what is rewarded, and its run is like others."""

import shutil

import jax
import numpy as np
import pytest
from etils import epath
from ml_collections import ConfigDict

import rahf
import runs
import tiny_directory
import tiny_muse
from rahf import improve
from rahf.errors import InputError
from rahf.inference.image_generator import Request
from rahf.learning.reward_train_command import reward_config
from rahf.runtime import sharding
from rahf.tasks import make_task
from rahf.tasks.reward_tuning import RewardTuningTask
from rahf.tasks.reward_tuning_session import prompt_at
from rahf.train import fresh_state
from rahf.training.setup import set_up

CODE = 3
PROMPTS = 'a red circle\na blue cross\n'


@pytest.fixture(scope='module')
def models(tmp_path_factory):
  """A Muse, a RAHF and prompts in a folder."""
  folder = tmp_path_factory.mktemp('models')
  tiny_muse.write(folder / 'muse')
  tiny_directory.write(folder)
  (folder / 'prompts.txt').write_text(PROMPTS)
  (folder / 'new.txt').write_text('two red rings\n')
  return folder


def make_config(models, **reward) -> ConfigDict:
  config = reward_config(str(models / 'muse'), str(models / 'model'))
  config.reward.update(
    prompts=str(models / 'prompts.txt'), eval_prompts=str(models / 'new.txt'), **reward
  )
  config.sampling.update(steps=2, guidance=2.0)
  config.train.update(steps=20, batch_size=2, checkpoint_every=1, log_every=1)
  config.eval.update(every=2, batch_size=8)
  config.optimizer.update(learning_rate=2e-2, warmup_steps=0)
  return config


class KnownReward(RewardTuningTask):
  """Rewards the share of one code, which a tiny Muse can learn to use in seconds."""

  def _judge(self, variables, params, tokens, score_text):
    _, maps = super()._judge(variables, params, tokens, score_text)
    return {'plausibility': (tokens == CODE).mean(1)}, maps


def train(task, devices=1, steps=20):
  """Returns the metrics of each step."""
  setup = set_up(task, jax.devices()[:devices])
  session = setup.task.open(setup, epath.Path('unused'))
  step = jax.jit(setup.make_train_step(), **setup.jit_options)
  found = []
  with jax.set_mesh(setup.mesh):
    state = fresh_state(setup, session.plan_weights())
    for _, batch in zip(range(steps), session.train_batches(0), strict=False):
      batch = sharding.put_batch(batch, setup.mesh)
      state, metrics = step(state, batch, jax.random.key(0))
      found.append(jax.device_get(metrics))
  return found


def test_rewarded_images_become_more_probable(models):
  found = train(KnownReward.of(make_config(models)))
  assert found[-1]['loss/reward'] > 2 * found[0]['loss/reward']


def test_one_device_and_two(models):
  found = [
    train(RewardTuningTask.of(make_config(models, group=2, dense=9.0)), devices, 1)[0]
    for devices in (1, 2)
  ]
  for name in ('loss/reward', 'gradient_norm'):
    np.testing.assert_allclose(found[0][name], found[1][name], rtol=1e-3)


def test_the_command_trains_exports_and_resumes(models, tmp_path):
  """Prompts and noise follow from the step alone."""
  arguments = [
    *('reward-train', str(models / 'prompts.txt'), f'--eval_prompts={models}/new.txt'),
    *(f'--generator={models}/muse', f'--model={models}/model', '--dense=1'),
    *('--steps=4', '--batch_size=8', '--group=2', '--checkpoint_every=2'),
  ]
  whole, resumed = tmp_path / 'whole', tmp_path / 'resumed'
  assert improve.main([*arguments, f'--out={whole}']) == 0
  (image,) = rahf.load(whole / 'export').draw([Request('a red circle', 0)])
  assert image.shape == (64, 64, 3)
  assert (whole / 'eval' / 'test-4-samples-0.png').exists()

  shutil.copytree(whole, resumed)
  shutil.rmtree(resumed / 'checkpoints' / '4')
  assert improve.main([*arguments, f'--out={resumed}']) == 0
  runs.assert_same_run(whole, resumed)


def test_every_prompt_comes_once_in_an_epoch():
  for epoch in range(3):
    found = [prompt_at(epoch * 7 + place, 7, 0) for place in range(7)]
    assert sorted(found) == [*range(7)]
  assert prompt_at(8, 7, 0) == prompt_at(8, 7, 0)


def plan(config):
  setup = set_up(make_task(config), jax.devices()[:1])
  return setup.task.open(setup, epath.Path('unused')).plan_weights()


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'reward.model': ''}, 'config.reward.model is empty'),
    ({'reward.model': '{}/muse'}, 'muse'),
    ({'reward.by': 'beauty'}, "config.reward.by=beauty: 'beauty' is not one of"),
    ({'reward.prompts': ''}, 'config.reward.prompts is empty'),
    ({'init.muse': ''}, 'config.init.muse'),
    ({'optimizer.freeze': ()}, 'must contain'),
  ],
)
def test_mistakes(models, changes, message):
  config = make_config(models)
  for field, value in changes.items():
    section, name = field.split('.')
    config[section][name] = value.format(models) if isinstance(value, str) else value
  with pytest.raises(InputError, match=message):
    plan(config)
