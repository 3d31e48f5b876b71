"""Baselines from weights in public formats to rows of the paper's tables."""

import json
import math
import shutil

import jax
import numpy as np
import pytest
import safetensors.numpy
from etils import epath
from flax import linen as nn

import clip_directory
import hf_files
import runs
import tiny
from configs.baselines import (
  clip_gradient,
  clip_scores,
  clip_words,
  clip_zero_shot,
  pickscore_zero_shot,
  resnet50_scores,
  shapes,
)
from rahf.data.schema import MAPS, SCORES
from rahf.errors import InputError
from rahf.evaluate import evaluate
from rahf.evaluation import compare_command, samples
from rahf.runtime import sharding
from rahf.runtime.preemption import Interruption
from rahf.runtime.tree import by_path
from rahf.tasks import make_task
from rahf.training.batch_spec import random_batch
from rahf.training.setup import set_up


@pytest.fixture(scope='module')
def clip(tmp_path_factory):
  return clip_directory.write(tmp_path_factory.mktemp('weights') / 'clip')


def small(config, data_dir):
  """Returns a config with the data of `tiny`."""
  config.data.update(name='shapes', dir=str(data_dir), augment=True)
  config.data.shapes.update(train=12, dev=61, test=3)
  config.optimizer.update(warmup_steps=2, cooldown_steps=0)
  config.train.update(steps=4, batch_size=8, log_every=1, checkpoint_every=2)
  config.eval.update(every=2, batch_size=8, split='dev')
  config.review.update(examples=2, worst=1, page=5)
  return config


def resnet(kind, data_dir):
  config = tiny.get_config(data_dir)
  config.task = 'baseline'
  config.baseline.update(kind=kind, dense=(8,), deconvs=(8, 4))
  config.resnet.update(blocks=(1, 1, 1, 1), width=2)
  return config


def evaluated(config, workdir):
  evaluate(config, epath.Path(workdir), Interruption())
  return json.loads((workdir / 'eval' / 'dev-0.json').read_text())


def defined(metrics):
  """Returns the first parts of the names of all metrics that have a value."""
  return {name.split('/')[0] for name, value in metrics.items() if value is not None}


COUNTED = {'keywords'}  # The number of truncated prompts.


def test_the_cosine_is_a_score(clip, data_dir, tmp_path):
  config = small(clip_zero_shot.get_config(str(clip)), data_dir)
  metrics = evaluated(config, tmp_path)
  assert defined(metrics) == {'alignment'} | COUNTED
  assert -1 <= metrics['alignment/plcc'] <= 1
  assert metrics['loss/score'] is None  # Cosines are correlated, not squared.
  found = samples.read(epath.Path(tmp_path / 'eval' / 'dev-0.samples.jsonl'))
  assert len(found) == 61
  predicted = np.array([sample.predicted for sample in found])
  assert np.isnan(predicted[:, [0, 2, 3]]).all()
  assert np.all(np.abs(predicted[:, 1]) <= 1)
  assert all(np.isnan(samples.score_error(sample)) for sample in found)
  # A second evaluation in the same directory must be of the same model.
  config.baseline.scores = SCORES
  with pytest.raises(InputError, match=r'baseline\.scores'):
    evaluated(config, tmp_path)


def test_pickscore_stands_for_all_scores(clip):
  config = pickscore_zero_shot.get_config(str(clip))
  assert make_task(config).kind.scores == SCORES
  sizes = pickscore_zero_shot.get_config().clip
  assert (sizes.vision.width, sizes.vision.heads, sizes.projection) == (1280, 16, 1024)


def test_the_gradient_is_a_map(clip, data_dir, tmp_path):
  config = small(clip_gradient.get_config(str(clip)), data_dir)
  metrics = evaluated(config, tmp_path)
  assert defined(metrics) == {'misalignment'} | COUNTED
  assert 0 <= metrics['misalignment/auc_judd'] <= 1
  page = (tmp_path / 'eval' / 'dev-0.html').read_text()
  assert 'misalignment' in page


def test_words_without_training(clip, data_dir, tmp_path):
  config = small(clip_words.get_config(str(clip)), data_dir)
  metrics = evaluated(config, tmp_path)
  assert defined(metrics) == {'keywords'}
  found = samples.read(epath.Path(tmp_path / 'eval' / 'dev-0.samples.jsonl'))
  assert all(len(s.marked) == len(s.truth) > 0 for s in found)


def test_words_of_weights_that_are_not_finite(clip, data_dir, tmp_path):
  shutil.copytree(clip, tmp_path / 'nan')
  arrays = safetensors.numpy.load_file(clip / 'model.safetensors')
  arrays['visual_projection.weight'][:] = np.nan
  safetensors.numpy.save_file(arrays, tmp_path / 'nan' / 'model.safetensors')
  config = small(clip_words.get_config(str(tmp_path / 'nan')), data_dir)
  with pytest.raises(InputError, match=r'relevance of the words of .* is NaN'):
    evaluated(config, tmp_path / 'run')


@pytest.fixture(scope='module')
def resnet_run(data_dir, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('resnet_maps')
  runs.run_training(resnet('resnet_maps', data_dir), workdir)
  return workdir


def test_a_resnet_learns_maps(resnet_run):
  losses = [
    row['loss/total']
    for row in runs.read_metrics_log(resnet_run)
    if row['split'] == 'train'
  ]
  assert len(losses) == 4
  assert np.isfinite(losses).all()
  arrays = runs.read_checkpoint(resnet_run, 4)
  assert np.any(arrays['collections/batch_stats/deconv_0_norm/mean'] != 0)
  metrics = json.loads((resnet_run / 'eval' / 'dev-4.json').read_text())
  assert defined(metrics) == {*MAPS, 'loss'} | COUNTED
  assert metrics['loss/score'] is None
  assert metrics['loss/heatmap'] == pytest.approx(metrics['loss/total'])


def test_a_run_resumes_bit_for_bit(resnet_run, data_dir, tmp_path):
  workdir = tmp_path / 'run'
  shutil.copytree(resnet_run, workdir)
  shutil.rmtree(workdir / 'checkpoints' / '4')
  runs.run_training(resnet('resnet_maps', data_dir), workdir)
  runs.assert_same_run(resnet_run, workdir)


def test_clip_is_fine_tuned(clip, data_dir, tmp_path):
  config = small(clip_scores.get_config(str(clip)), data_dir)
  config.baseline.dense = (8,)
  runs.run_training(config, tmp_path)
  metrics = json.loads((tmp_path / 'eval' / 'dev-4.json').read_text())
  assert defined(metrics) == {*SCORES, 'loss'} | COUNTED
  card = (tmp_path / 'model_card.md').read_text()
  assert f'- Hugging Face CLIP, `{clip}`: ' in card
  assert 'Random at the start: 4 arrays' in card


@pytest.mark.parametrize(
  ('kind', 'change', 'field'),
  [
    ('resnet_maps', {'resnet.width': 6}, r'config\.resnet\.width'),
    ('resnet_maps', {'baseline.deconvs': (6, 8)}, r'a width in .*baseline\.deconvs'),
    (
      'resnet_scores',
      {'baseline.dense': (6,), 'resnet.width': 8},
      r'a width in config\.baseline\.dense',
    ),
  ],
)
def test_a_mesh_that_does_not_divide_names_the_setting(data_dir, kind, change, field):
  config = resnet(kind, data_dir)
  config.mesh.update(data=1, fsdp=1, tensor=4)
  config.update_from_flattened_dict(change)
  with pytest.raises(InputError, match=f'does not divide {field} = 6'):
    set_up(make_task(config), jax.devices()[:4])


def test_statistics_are_those_of_the_global_batch(data_dir):
  """Devices along all axes of the mesh see one batch, as one device does."""
  config = resnet('resnet_scores', data_dir)
  batch = random_batch(config, 8)
  found = []
  for devices, mesh in ((1, (1, 1, 1)), (8, (2, 2, 2))):
    config.mesh.update(dict(zip(('data', 'fsdp', 'tensor'), mesh, strict=True)))
    setup = set_up(make_task(config), jax.devices()[:devices])
    step = jax.jit(setup.make_train_step(), **setup.jit_options)
    with jax.set_mesh(setup.mesh):
      on_devices = sharding.put_batch(batch, setup.mesh)
      state, _ = step(setup.states.make(0), on_devices, jax.random.key(0))
    found.append(by_path(jax.device_get(state.collections)))
  one, eight = found
  assert any(np.any(array != 0) for path, array in one.items() if 'mean' in path)
  for path, array in one.items():
    np.testing.assert_allclose(eight[path], array, rtol=1e-4, atol=1e-5, err_msg=path)


def test_a_row_for_each_model(clip, data_dir, resnet_run, tmp_path, capsys):
  """A dash where nothing is predicted."""
  config = small(clip_zero_shot.get_config(str(clip)), data_dir)
  config.data.augment = False
  evaluated(config, tmp_path / 'clip')
  arguments = [*map(str, (resnet_run, tmp_path / 'clip')), '--split=dev']
  out = f'--out={tmp_path}/comparison'
  assert compare_command.main([*arguments, '--draws=100', out]) == 0
  rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith('|')]
  scores = [row for row in rows if row.count(' / ') == 4]
  (ours,) = [row for row in scores if row.startswith('| **clip**')]
  assert ours.count('– /     –') == 3
  (ours,) = [row for row in scores if row.startswith(f'| **{resnet_run.name}**')]
  assert ours.count('– /     –') == 4


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'init.clip': ''}, 'config.init.clip and config.tokenizer are empty'),
    ({'init.clip': 'clip-b32'}, 'clip-b32 does not exist; .* nothing is downloaded'),
    ({'model.image_size': 64}, r'config\.model\.image_size = 64, but .* must be 32'),
    ({'model.variant': 'augmented_prompt'}, "must be 'multi_head'"),
    ({'data.text_length': 20}, r'config\.data\.text_length = 20'),
    ({'clip.vocab_size': 600}, 'must be the end; set config.tokenizer'),
    ({'clip.vision.heads': 4}, r'--config\.clip\.vision\.heads=2'),
    ({'clip.vision.gelu': 'quick'}, r'--config\.clip\.vision\.gelu=exact'),
    ({'init.vit': 'none.npz'}, 'none.npz does not exist'),
  ],
)
def test_settings_that_do_not_fit(clip, data_dir, tmp_path, change, message):
  config = small(clip_zero_shot.get_config(str(clip)), data_dir)
  config.update_from_flattened_dict(change)
  with pytest.raises(InputError, match=message):
    evaluated(config, tmp_path)


def test_a_missing_vocabulary(clip, data_dir, tmp_path):
  copy = tmp_path / 'copy'
  shutil.copytree(clip, copy)
  (copy / 'vocab.json').unlink()
  config = small(clip_zero_shot.get_config(str(copy)), data_dir)
  with pytest.raises(
    InputError, match=r'no vocabulary of CLIP.* Set config\.tokenizer'
  ):
    evaluated(config, tmp_path / 'run')
  config.tokenizer = str(clip)
  assert evaluated(config, tmp_path / 'run')


def test_weights_of_another_architecture(clip, data_dir, tmp_path):
  config = resnet('resnet_maps', data_dir)
  config.init.resnet = str(clip)
  with pytest.raises(InputError, match=r'a Hugging Face CLIP .*only for resnet/'):
    runs.run_training(config, tmp_path)
  t5 = tmp_path / 't5'
  hf_files.write(t5, hf_files.T5, hf_files.t5_arrays())
  with pytest.raises(InputError, match='a Hugging Face T5, not a CLIP'):
    clip_zero_shot.get_config(str(t5))


def test_an_activation_that_the_files_contradict(clip):
  with pytest.raises(InputError, match="states the activation 'exact', not 'quick'"):
    clip_zero_shot.get_config(f'{clip},quick')


def test_clip_on_shapes_needs_weights():
  with pytest.raises(InputError, match=r'give shapes\.py:clip_words,DIRECTORY'):
    shapes.get_config('clip_words')


def test_there_is_nothing_to_train(clip, data_dir, tmp_path):
  config = small(clip_zero_shot.get_config(str(clip)), data_dir)
  with pytest.raises(InputError, match=r'nothing to train; use --mode=eval'):
    runs.run_training(config, tmp_path)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'baseline.deconvs': (8,) * 6}, 'maps larger than the image; use at most 5'),
    ({'model.image_size': 48}, 'not a multiple of 32'),
    (
      {'resnet.blocks': (1, 1), 'baseline.deconvs': (8,) * 4},
      'larger than the image; use at most 3',
    ),
    ({'baseline.kind': 'resnet'}, "config.baseline.kind = 'resnet'"),
    ({'task': 'baselines'}, 'not one of feedback, feedback_pairs, captions'),
  ],
)
def test_resnets_that_do_not_fit(data_dir, change, message):
  config = resnet('resnet_maps', data_dir)
  config.update_from_flattened_dict(change)
  with pytest.raises(InputError, match=message):
    make_task(config)


@pytest.mark.parametrize(
  ('get_config', 'pretrained', 'head'),
  [
    # Without the classifier of torchvision's 25,557,032.
    (resnet50_scores.get_config, 23_508_032, 2048 * 1024 + 1024 * 512 + 512 * 4 + 1540),
    (clip_scores.get_config, 151_277_313, 1536 * 1024 + 1024 * 512 + 512 * 4 + 1540),
    (pickscore_zero_shot.get_config, 986_109_441, 0),
  ],
)
def test_published_sizes(get_config, pretrained, head):
  task = make_task(get_config())
  shapes = nn.unbox(jax.eval_shape(task.init, jax.random.key(0)))['params']
  leaves = by_path(shapes).values()
  assert sum(math.prod(leaf.shape) for leaf in leaves) == pretrained + head
