"""Evaluation: every metric, every example once, whatever the batch and the devices."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from etils import epath
from PIL import Image

import tiny
from rahf.data import images, schema
from rahf.data.pipeline import batches
from rahf.errors import InputError
from rahf.evaluate import Evaluator, evaluate
from rahf.evaluation.score_example import constant_metrics
from rahf.runtime import sharding
from rahf.runtime.preemption import Interrupted, Interruption
from rahf.training import losses
from rahf.training.setup import set_up
from rahf.training.state import StateFactory

# No batch of 7 or 8 divides it.
EXAMPLES = 19
MAP_METRICS = ('mse', 'mse_empty', 'cc', 'kld', 'sim', 'nss', 'auc_judd')
CONTRACT = {
  *(f'{score}/{metric}' for score in schema.SCORES for metric in ('plcc', 'srcc')),
  *(f'{name}/{metric}' for name in schema.MAPS for metric in MAP_METRICS),
  *(
    f'{decoding}/{name}'
    for decoding in ('keywords', 'keywords_constrained')
    for name in ('precision', 'recall', 'f1', 'f1_per_sample')
  ),
  *(f'loss/{name}' for name in ('total', 'heatmap', 'score', 'sequence')),
}


@pytest.fixture(scope='module')
def config(data_dir):
  config = tiny.get_config(data_dir)
  # Both variants pass here; this one reads seven texts.
  config.model.variant = 'augmented_prompt'
  config.data.shapes.update(train=12, dev=EXAMPLES, test=0)
  return config


@pytest.fixture(scope='module')
def experiment(config):
  """On eight devices."""
  return set_up(config)


@pytest.fixture(scope='module')
def params(experiment):
  return jax.device_get(experiment.states.make(0).params)


@pytest.fixture(scope='module')
def alone(experiment):
  """The same on one device."""
  one = sharding.make_mesh({'data': 1, 'fsdp': 1, 'tensor': 1}, jax.devices()[:1])
  states = StateFactory(experiment.model, experiment.optimizer, one)
  return dataclasses.replace(experiment, mesh=one, states=states)


def run(config, experiment, params, batch_size, **arguments):
  config = config.copy_and_resolve_references()
  config.eval.batch_size = batch_size
  with jax.set_mesh(experiment.mesh):
    evaluator = Evaluator(config, experiment)
    return evaluator(params, experiment.split('dev'), **arguments)


@pytest.fixture(scope='module')
def reference(config, alone, params):
  """Batches of 8 on one device, the last of them padded."""
  return run(config, alone, params, 8)


def test_metrics_are_those_of_the_contract(reference):
  assert reference.metrics.keys() >= CONTRACT
  extra = {name.split('/')[0] for name in reference.metrics.keys() - CONTRACT}
  assert extra <= {
    *('keywords', 'keywords_constrained'),
    *schema.MAPS,
    *schema.SCORES,
  }
  defined = CONTRACT - {'keywords/precision'}  # An untrained model marks no word.
  assert all(np.isfinite(reference.metrics[name]) for name in defined)


@pytest.mark.parametrize(('devices', 'batch_size'), [(1, 1), (1, 7), (8, 8)])
def test_batch_size_and_devices_do_not_matter(
  config, experiment, alone, params, reference, devices, batch_size
):
  on = experiment if devices == 8 else alone
  found = run(config, on, params, batch_size).metrics
  assert found.keys() == reference.metrics.keys()
  for name, value in reference.metrics.items():
    assert found[name] == pytest.approx(value, 1e-6, 1e-6, nan_ok=True), name


def test_losses_are_those_of_all_examples_in_one_unpadded_batch(
  config, alone, params, reference
):
  split = alone.split('dev')
  (batch,) = batches.eval_batches(
    split, alone.tokenizer, alone.options, batch_size=len(split)
  )
  predict = Evaluator(config, alone).predict
  with jax.set_mesh(alone.mesh):
    found = predict(params, sharding.put_batch(batch, alone.mesh))
  assert found.counts.scores.tolist() == [EXAMPLES] * 4
  expected = losses.weighted_losses(found.errors, found.counts, config.loss)
  for name, value in expected._asdict().items():
    assert reference.metrics[f'loss/{name}'] == pytest.approx(float(value), rel=1e-6)


def test_evaluation_can_be_interrupted(config, experiment, params):
  interruption = Interruption()
  interruption.requested = True
  with pytest.raises(Interrupted):
    run(config, experiment, params, 8, check=interruption.check)


def test_eval_mode_says_what_the_loop_said(trained, data_dir, tmp_path, capsys):
  workdir = epath.Path(tmp_path / 'run')
  shutil.copytree(trained, workdir)
  expected = json.loads((workdir / 'eval/dev-4.json').read_text())
  shutil.rmtree(workdir / 'eval')
  settings = (workdir / 'config.json').read_text()
  config = tiny.get_config(data_dir)
  config.eval.update(split='dev', batch_size=16)
  evaluate(config, workdir, Interruption())
  found = json.loads((workdir / 'eval/dev-4.json').read_text())
  assert found.keys() == expected.keys()
  assert found == pytest.approx(expected, abs=1e-6)
  assert (workdir / 'eval/dev-4.md').read_text() in capsys.readouterr().out
  # What ran is training, not this.
  assert (workdir / 'config.json').read_text() == settings


def test_eval_mode_without_a_checkpoint(data_dir, tmp_path):
  workdir = epath.Path(tmp_path / 'nothing')
  with pytest.raises(InputError, match='nothing has no checkpoint to evaluate'):
    evaluate(tiny.get_config(data_dir), workdir, Interruption())
  assert not workdir.exists()


def make_record(level, scores, labels=(1, 0, 1), misaligned=True):
  """A record whose maps are 4 x 4 pixels, the upper half at this level of 255."""
  pixels = np.zeros((4, 4), np.uint8)
  pixels[:2] = level
  data = images.encode_png(pixels)
  picture = images.encode_png(np.asarray(Image.new('RGB', (4, 4))))
  return schema.Record(
    uid=str(level),
    image=picture,
    prompt='a red cat',
    tokens=('a', 'red', 'cat'),
    keyword_labels=labels,
    scores=scores,
    implausibility_map=data,
    misalignment_map=data if misaligned else b'',
  )


class Records(list):
  """A split of which none is damaged."""

  def undamaged(self):
    return enumerate(self)


def test_constant_predictor_by_hand():
  nan = float('nan')
  train = [
    make_record(255, (0.0, 0.5, 0.25, nan)),
    make_record(0, (1.0, 0.5, 0.5, nan), misaligned=False),
  ]
  # Training means: implausibility 1/2 above, 0 below; misalignment 1 above.
  split = [
    make_record(255, (0.25, 0.5, 0.5, 0.5)),
    make_record(0, (0.5, 0.75, 0.5, 0.5), labels=(1, 1, 1)),
  ]
  found = constant_metrics(Records(train), split)
  # Errors of 1/2 in half the pixels of both; of 0 and 1 in half the pixels.
  assert found['implausibility/mse'] == pytest.approx(1 / 8)
  assert found['implausibility/mse_empty'] == pytest.approx(1 / 8)
  assert found['implausibility/cc'] == pytest.approx(1)
  assert found['implausibility/kld'] == pytest.approx(0, abs=1e-6)
  assert found['implausibility/sim'] == pytest.approx(1)
  assert found['misalignment/mse'] == pytest.approx(1 / 4)
  assert found['misalignment/mse_empty'] == pytest.approx(1 / 2)
  # No mark is made, so none of the one marked word is found.
  assert np.isnan(found['keywords/precision'])
  assert found['keywords/recall'] == 0
  # A constant correlates with nothing.
  assert all(np.isnan(found[f'{name}/srcc']) for name in schema.SCORES)
