"""Evaluation: every metric, every example once, for any batch size and devices."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from etils import epath
from PIL import Image

import tiny
from rahf.data import schema
from rahf.data.images import codec
from rahf.data.pipeline import batches
from rahf.errors import InputError
from rahf.evaluate import evaluate
from rahf.evaluation.score_example import constant_metrics
from rahf.runtime import sharding
from rahf.runtime.distributed import StopSignal
from rahf.runtime.preemption import Interrupted, Interruption
from rahf.tasks import make_task
from rahf.training import losses
from rahf.training.setup import set_up

# Not a multiple of the batch sizes 7 and 8.
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
  # Both variants pass; this one reads seven texts.
  config.model.variant = 'augmented_prompt'
  config.data.shapes.update(train=12, dev=EXAMPLES, test=0)
  return config


@pytest.fixture(scope='module')
def session(config):
  """A session on eight devices."""
  task = make_task(config)
  return task.open(set_up(task), epath.Path())


@pytest.fixture(scope='module')
def params(session):
  return jax.device_get(session.setup.states.make(0).params)


@pytest.fixture(scope='module')
def single_device(session):
  """The same session on one device."""
  setup = set_up(session.setup.task, jax.devices()[:1])
  return dataclasses.replace(session, setup=setup)


def run(session, params, batch_size, **arguments):
  config = session.setup.config.copy_and_resolve_references()
  config.eval.batch_size = batch_size
  setup = dataclasses.replace(session.setup, config=config)
  evaluator = dataclasses.replace(session, setup=setup).evaluator()
  with jax.set_mesh(setup.mesh):
    variables = {'params': params}
    return evaluator.measure(variables, session.data.split('dev'), **arguments)


@pytest.fixture(scope='module')
def reference(single_device, params):
  """Evaluation in batches of 8 on one device; the last batch is padded."""
  return run(single_device, params, 8)


def test_metrics_are_those_of_the_contract(reference):
  assert reference.metrics.keys() >= CONTRACT
  extra = {name.split('/')[0] for name in reference.metrics.keys() - CONTRACT}
  assert extra <= {
    *('keywords', 'keywords_constrained'),
    *schema.MAPS,
    *schema.SCORES,
  }
  defined = CONTRACT - {'keywords/precision'}  # An untrained model marks no words.
  assert all(np.isfinite(reference.metrics[name]) for name in defined)


@pytest.mark.parametrize(('devices', 'batch_size'), [(1, 1), (1, 7), (8, 8)])
def test_batch_size_and_devices_do_not_matter(
  session, single_device, params, reference, devices, batch_size
):
  found = run(session if devices == 8 else single_device, params, batch_size).metrics
  assert found.keys() == reference.metrics.keys()
  for name, value in reference.metrics.items():
    assert found[name] == pytest.approx(value, 1e-6, 1e-6, nan_ok=True), name


def test_losses_are_those_of_all_examples_in_one_unpadded_batch(
  config, single_device, params, reference
):
  data, mesh = single_device.data, single_device.setup.mesh
  split = data.split('dev')
  (batch,) = batches.eval_batches(
    split, data.tokenizer, data.options, batch_size=len(split)
  )
  with jax.set_mesh(mesh):
    found = single_device.evaluator().eval_step(
      {'params': params}, sharding.put_batch(batch, mesh)
    )
  assert found.counts.scores.tolist() == [EXAMPLES] * 4
  expected = losses.weighted_losses(found.errors, found.counts, config.loss)
  for name, value in expected._asdict().items():
    assert reference.metrics[f'loss/{name}'] == pytest.approx(float(value), rel=1e-6)


def test_evaluation_can_be_interrupted(session, params):
  interruption = Interruption()
  interruption.requested = True
  stop = StopSignal(interruption, session.setup.mesh)
  with pytest.raises(Interrupted):
    run(session, params, 8, stop=stop)


def test_eval_mode_reproduces_the_metrics_of_training(
  trained, data_dir, tmp_path, capsys
):
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
  # The saved config stays that of training.
  assert (workdir / 'config.json').read_text() == settings


def test_eval_mode_without_a_checkpoint(data_dir, tmp_path):
  workdir = epath.Path(tmp_path / 'nothing')
  with pytest.raises(InputError, match='nothing has no checkpoint to evaluate'):
    evaluate(tiny.get_config(data_dir), workdir, Interruption())
  assert not workdir.exists()


def make_record(level, scores, labels=(1, 0, 1), misaligned=True):
  """Returns a record with 4 x 4 maps, whose upper half has this level of 255."""
  pixels = np.zeros((4, 4), np.uint8)
  pixels[:2] = level
  data = codec.encode_png(pixels)
  picture = codec.encode_png(np.asarray(Image.new('RGB', (4, 4))))
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
  """A split without damaged records."""

  def undamaged(self):
    return enumerate(self)


def test_constant_predictor_by_hand():
  nan = float('nan')
  train = [
    make_record(255, (0.0, 0.5, 0.25, nan)),
    make_record(0, (1.0, 0.5, 0.5, nan), misaligned=False),
  ]
  # Training means: implausibility 1/2 in the upper half, 0 below; misalignment 1, 0.
  split = [
    make_record(255, (0.25, 0.5, 0.5, 0.5)),
    make_record(0, (0.5, 0.75, 0.5, 0.5), labels=(1, 1, 1)),
  ]
  found = constant_metrics(Records(train), split)
  # Implausibility errs by 1/2 in half the pixels of both; misalignment by 0 and 1.
  assert found['implausibility/mse'] == pytest.approx(1 / 8)
  assert found['implausibility/mse_empty'] == pytest.approx(1 / 8)
  assert found['implausibility/cc'] == pytest.approx(1)
  assert found['implausibility/kld'] == pytest.approx(0, abs=1e-6)
  assert found['implausibility/sim'] == pytest.approx(1)
  assert found['misalignment/mse'] == pytest.approx(1 / 4)
  assert found['misalignment/mse_empty'] == pytest.approx(1 / 2)
  # It marks no word, so the one marked word is not found.
  assert np.isnan(found['keywords/precision'])
  assert found['keywords/recall'] == 0
  # A constant correlates with nothing.
  assert all(np.isnan(found[f'{name}/srcc']) for name in schema.SCORES)
