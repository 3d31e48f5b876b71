"""Overfits eight real samples, from imported weights.

This shows that nothing is lost from data to metrics, or from files to parameters.
"""

import dataclasses
import itertools
import os

import jax
import numpy as np
import pytest

import pretrained_files
import tiny
from rahf.data.datasets.richhf18k.builder import prepare_richhf18k
from rahf.data.pipeline.batches import eval_batches, train_batches
from rahf.data.tokenizer import at_word_ends
from rahf.pretrained import loading
from rahf.runtime.tree import by_path
from rahf.tasks import make_task
from rahf.tasks.feedback_data import open_data
from rahf.tasks.feedback_session import FeedbackSession
from rahf.training.setup import set_up
from rahf.training.train_step import make_train_step

STEPS = 450


@pytest.fixture(scope='module')
def richhf(assets, tmp_path_factory):
  folder = tmp_path_factory.mktemp('richhf')
  sample = assets / 'richhf_sample'
  prepare_richhf18k(folder, labels=sample, images=sample / 'pickapic')
  return folder


def make_config(assets, data_dir, variant):
  config = tiny.get_config(data_dir)
  model = config.model
  model.variant = variant
  model.dropout_rate = 0.0
  model.vit.update(width=64, layers=2, heads=4, mlp=128)
  model.t5.update(
    vocab_size=32128,
    width=64,
    heads=4,
    head_dim=16,
    mlp=128,
    encoder_layers=2,
    decoder_layers=2,
  )
  model.heatmap_head.update(convs=(32,), deconvs=(32, 16, 16, 8), readout=8)
  model.score_head.update(convs=(32, 32), dense=(32,))
  config.tokenizer = os.fspath(assets / 'tokenizer/t5-base.spiece.model')
  config.data.update(name='richhf18k', augment=False)
  # Squared pixel errors are small next to nats; with less, maps stay empty longer.
  config.loss.heatmap = 1000.0
  config.optimizer.update(
    learning_rate=2e-3, warmup_steps=60, cooldown_steps=150, weight_decay=0.0
  )
  config.train.steps = STEPS
  config.keywords.decoder = 'sequential'
  return config


def shortest(split, tokenizer):
  """Returns the 8 annotated records with the shortest targets, and their length."""
  lengths = {}
  for position, record in enumerate(split):
    if record.keyword_labels:
      target = tokenizer.mark(tokenizer.encode(record.prompt), record.keyword_labels)
      lengths[position] = len(target) + 1
  chosen = sorted(lengths, key=lengths.get)[:8]
  arrays = {
    name: getattr(split, name)[chosen] for name in ('shard', 'offset', 'length')
  }
  return dataclasses.replace(split, **arrays), lengths[chosen[-1]]


def imported_state(states, model, folder):
  """Returns a state whose ViT and T5 come from files of other projects."""
  abstract = by_path(states.abstract.params)
  given = {path: np.asarray(x) for path, x in states.fresh_params(0, abstract).items()}

  def below(prefix: str) -> dict[str, np.ndarray]:
    return {
      path.removeprefix(prefix): x
      for path, x in given.items()
      if path.startswith(prefix)
    }

  init = {
    'vit': os.fspath(pretrained_files.write_vit(folder / 'vit.npz', below('vit/'))),
    't5': os.fspath(pretrained_files.write_t5x(folder / 't5x', below('t5/'))),
    'rahf': '',
  }
  plan = loading.plan(loading.open_sources(init), abstract, model.config)
  assert all(
    path.startswith(('image_projection', 'heatmap_head', 'score_head'))
    for path in plan.fresh
  )
  return states.from_params(states.fresh_params(0, plan.fresh) | plan.read())


@pytest.mark.parametrize('variant', ['multi_head', 'augmented_prompt'])
def test_eight_real_samples_are_overfitted(
  assets, richhf, variant, tmp_path, pytestconfig
):
  if variant == 'multi_head' and not pytestconfig.getoption('--long'):
    pytest.skip('takes minutes: pytest --long')
  config = make_config(assets, richhf, variant)
  task = make_task(config)
  setup = set_up(task, jax.devices()[:1])
  data = open_data(config)
  split, length = shortest(data.split('train'), data.tokenizer)
  options = dataclasses.replace(
    data.options,
    text_length=length + 8,  # Room for the task string.
    target_length=length,
  )
  data = dataclasses.replace(data, options=options)
  batches = train_batches(
    [split],
    data.tokenizer,
    data.options,
    batch_size=8,
    seed=0,
    start_step=0,
  )
  step = make_train_step(task, setup.optimizer)
  step = jax.jit(step, donate_argnums=0)
  with jax.set_mesh(setup.mesh):
    state = imported_state(setup.states, task.model, tmp_path)
    history = []
    for batch in itertools.islice(batches, STEPS):
      state, metrics = step(state, batch, jax.random.key(0))
      history.append(metrics)
    evaluator = FeedbackSession(setup, data).evaluator()
    found = evaluator.measure(state.variables, split).metrics
    (batch,) = eval_batches(split, data.tokenizer, data.options, batch_size=8)
    result = evaluator.eval_step(state.variables, batch)

  for name in ('total', 'heatmap', 'score', 'sequence'):
    first, last = (float(metrics[f'loss/{name}']) for metrics in history[:: STEPS - 1])
    assert last <= 0.1 * first, name
  assert not batch.truncated.any()
  np.testing.assert_array_equal(result.outputs.keywords, batch.target)
  assert found['keywords/f1'] == found['keywords_constrained/f1'] == 1
  # Where greedy decoding copies the prompt, word by word it chooses the same.
  for index, p in zip(result.index, result.outputs.p_misaligned, strict=True):
    record = split[int(index)]
    p_words = at_word_ends(np.asarray(p), data.tokenizer.encode(record.prompt))
    np.testing.assert_array_equal(p_words > 0.5, np.array(record.keyword_labels) == 0)
  assert found['plausibility/plcc'] > 0.99
  assert found['implausibility/cc'] > 0.8
