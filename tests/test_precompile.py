"""Costs of steps compiled for the attached devices, and for a TPU."""

import importlib
import math
import re

import jax
import pytest

import runs
import tiny
from rahf import precompile
from rahf.costs.program import Costs
from rahf.errors import InputError

GIB = 2**30


def small(topology: str = ''):
  config = tiny.get_config()
  config.precompile.topology = topology
  config.train.accumulate = 2 if topology else 1
  return config


def test_steps_for_the_attached_devices():
  config = small()
  setup = precompile.set_up_for_topology(config)
  training, inference = precompile.compile_steps(setup)
  assert setup.mesh.size == 8
  # Forward and backward of one image per device; forward and 40 decoder steps.
  assert training.flops > 0
  assert inference.flops > 0
  assert training.resharding == inference.resharding == 0
  # All-reduce of the gradients of 41,446 parameters; those of the position biases are
  # reduced before they are gathered into buckets, which is more.
  (reduced,) = training.collectives
  assert reduced.kind == 'all-reduce'
  assert 4 * 41_446 <= reduced.bytes < 1.5 * 4 * 41_446
  # Outputs are gathered at the end, and the condition of the decoder's loop.
  assert inference.exchanged < 1.1 * 8 * 4 * (2 * 64 * 64 + 32 + 40 + 8)
  for costs in (training, inference):
    assert costs.peak == costs.arguments + costs.temporaries + costs.outputs
    assert costs.bytes_moved > costs.arguments
    assert costs.fits
  text = precompile.report(setup, training, inference)
  assert '8 x cpu (data 8 x fsdp 1 x tensor 1)' in text
  assert 'Training step: compiles; the memory of this device is unknown' in text


def test_steps_for_a_tpu_that_is_not_attached():
  started = runs.start(
    '--config=tests/tiny.py',
    '--mode=precompile',
    '--config.precompile.topology=v5e:2x2',
    '--config.train.accumulate=2',
    '--config.model.dtype=bfloat16',
    '--config.model.remat=blocks',
  )
  printed, errors = started.communicate(timeout=400)
  assert started.returncode == 0, errors
  assert "bfloat16, remat 'blocks', on 4 x TPU v5 lite (data 4" in printed
  assert '| chip memory' in printed
  assert 'Training step: fits, 15.' in printed
  assert 'Inference step: fits, 1' in printed


@pytest.mark.parametrize('name', ['augmented_prompt', 'multi_head', 'muse'])
def test_full_sizes_lower_for_a_tpu(name):
  """Kernels for TPUs are translated, which fails for shapes that they do not take."""
  config = importlib.import_module(f'configs.{name}').get_config()
  config.precompile.topology = 'v5e:2x4'
  setup = precompile.set_up_for_topology(config)
  for step, arguments in (
    precompile.training_step(setup),
    precompile.inference_step(setup),
  ):
    with jax.set_mesh(setup.mesh):
      lowered = step.trace(*arguments).lower(lowering_platforms=('tpu',))
    assert 'tpu_custom_call' in lowered.as_text()


@pytest.mark.parametrize(
  ('topology', 'message'),
  [('v5e:3x9', 'not divisible'), ('nonsense', 'invalid .*such as v5e:2x4')],
)
def test_topologies_that_do_not_exist(topology, message):
  with pytest.raises(InputError, match=rf"topology = '{topology}': .*{message}"):
    precompile.find_devices(topology)


def test_missing_libtpu_is_named(monkeypatch):
  monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
  with pytest.raises(InputError, match=r"'v5e:2x4' needs .*pip install \"rahf\[tpu\]"):
    precompile.find_devices('v5e:2x4')
  assert precompile.find_devices('') == jax.devices()


def test_an_indivisible_batch_is_refused():
  config = small()
  config.train.batch_size = 12
  with pytest.raises(InputError, match=r'config\.train\.batch_size = 12 is not'):
    precompile.set_up_for_topology(config)


@pytest.mark.parametrize(
  ('changes', 'advice'),
  [
    ({}, r"remat = 'blocks'"),
    ({'model.remat': 'blocks'}, r'config\.train\.accumulate = 4'),
    ({'model.remat': 'blocks', 'train.batch_size': 4, 'mesh.data': 4}, 'fsdp = -1'),
    (
      {'model.remat': 'blocks', 'train.batch_size': 4, 'mesh.fsdp': 4, 'mesh.data': 1},
      'chips with more memory',
    ),
  ],
)
def test_advice_when_it_does_not_fit(changes, advice):
  config = small()
  config.train.update(batch_size=32, accumulate=2)
  config.mesh.update(data=4, fsdp=1, tensor=2)
  if 'train.batch_size' in changes:
    config.train.accumulate = 1
  config.update_from_flattened_dict(changes)
  setup = precompile.set_up_for_topology(config)
  costs = Costs(peak=20 * GIB, limit=15.75 * GIB, flops=1e12, resharding=0, seconds=1.0)
  text = precompile.report(setup, costs, costs)
  assert 'Training step: DOES NOT FIT: needs 20.00 of 15.75 GiB; ' in text
  assert re.search(advice, text)
  assert 'Inference step: DOES NOT FIT' in text
  assert 'lower config.eval.batch_size' in text
  assert math.isnan(costs.bytes_moved)
