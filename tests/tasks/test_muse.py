"""A Muse: its autoencoder, then its transformer are trained, exported and used."""

import json
import math
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from safetensors.numpy import load_file

import clip_directory
import rahf
import runs
import tiny_muse
from rahf.data.schema import ImageBatch
from rahf.errors import InputError
from rahf.export import export
from rahf.inference.generator_directory import load_generator
from rahf.inference.image_generator import Request
from rahf.models.clip import CLIPConfig, TowerConfig
from rahf.pretrained import load
from rahf.runtime import sharding
from rahf.runtime.preemption import Interruption
from rahf.runtime.tree import by_path
from rahf.tasks import make_task
from rahf.tasks.generator import drop_texts, random_mask
from rahf.training.setup import set_up


@pytest.fixture(scope='module')
def autoencoder(data_dir, tmp_path_factory):
  """The work directory of a trained autoencoder with its export."""
  workdir = tmp_path_factory.mktemp('autoencoder')
  config = tiny_muse.get_config('autoencoder', data_dir)
  runs.run_training(config, workdir)
  export(config, epath.Path(workdir), Interruption())
  return workdir


@pytest.fixture(scope='module')
def generator(data_dir, autoencoder, tmp_path_factory):
  """The work directory of a trained generator with its export."""
  workdir = tmp_path_factory.mktemp('generator')
  config = configure(data_dir, autoencoder)
  runs.run_training(config, workdir)
  export(config, epath.Path(workdir), Interruption())
  return workdir


def configure(data_dir, autoencoder):
  config = tiny_muse.get_config('generator', data_dir)
  config.init.muse = str(autoencoder / 'export')
  return config


def random_images(config, rows: int) -> ImageBatch:
  random = np.random.default_rng(0)
  text = random.integers(0, 500, (rows, 24), np.int32)
  text[:, 6:] = 519
  image = random.uniform(-1, 1, (rows, 64, 64, 3)).astype(np.float32)
  return ImageBatch(np.arange(rows), image, text, np.zeros(rows, bool))


def test_masks_are_drawn_as_the_paper_says():
  masks = random_mask(jax.random.key(0), 4000, 16)
  number = masks.sum(1)
  assert number.min() == 1
  # P(share > s) = 2/pi acos(s); the median share is cos(pi/4).
  assert float(number.mean()) / 16 == pytest.approx(2 / math.pi, abs=0.02)
  above = float((number > 16 * math.cos(math.pi / 4)).mean())
  assert above == pytest.approx(0.5, abs=0.05)
  # No position is preferred.
  assert float(jnp.std(masks.mean(0))) < 0.02


def test_texts_are_dropped_the_right_way_round():
  text = jnp.tile(jnp.array([518, 7, 8, 519, 519]), (400, 1))
  empty = jnp.array([518, 519, 519, 519, 519])
  for rate in (0.0, 0.1, 1.0):
    found = drop_texts(jax.random.key(0), text, rate, 519)
    is_empty = (found == empty).all(1)
    assert float(is_empty.mean()) == pytest.approx(rate, abs=0.05 * (0 < rate < 1))
    np.testing.assert_array_equal(found[~is_empty], text[~is_empty])


def test_one_device_and_eight(data_dir):
  config = tiny_muse.get_config('generator', data_dir)
  batch = random_images(config, 8)
  found = []
  for devices in (1, 8):
    setup = set_up(make_task(config), jax.devices()[:devices])
    step = jax.jit(setup.make_train_step(), **setup.jit_options)
    with jax.set_mesh(setup.mesh):
      on_devices = sharding.put_batch(batch, setup.mesh)
      _, metrics = step(setup.states.make(0), on_devices, jax.random.key(0))
    found.append(jax.device_get(metrics))
  one, eight = found
  for name in ('loss/total', 'gradient_norm'):
    np.testing.assert_allclose(one[name], eight[name], rtol=1e-4)


def test_what_an_autoencoder_reports(autoencoder):
  metrics = json.loads((autoencoder / 'eval' / 'test-4.json').read_text())
  assert metrics.keys() == {
    *('reconstruction/mse', 'reconstruction/psnr', 'codes/used', 'codes/perplexity')
  }
  # The mean over images of -10 log10(mse) is at least that of the mean.
  least = -10 * math.log10(metrics['reconstruction/mse'])
  assert metrics['reconstruction/psnr'] >= least
  assert 1 / 12 <= metrics['codes/used'] <= 1
  assert 1 <= metrics['codes/perplexity'] <= 12 * metrics['codes/used'] + 1e-6
  assert (autoencoder / 'eval' / 'test-4-reconstructions-0.png').exists()


def test_the_generator_keeps_the_autoencoder(autoencoder, generator):
  before, after = (runs.read_checkpoint(one, 4) for one in (autoencoder, generator))
  names = [name for name in before if name.startswith('params/autoencoder/')]
  assert names
  for name in names:
    np.testing.assert_array_equal(before[name], after[name], name)
  metrics = json.loads((generator / 'eval' / 'test-4.json').read_text())
  # An untrained model guesses one of 12 codes.
  assert 0 < metrics['tokens/cross_entropy'] < 2 * math.log(12)
  assert (generator / 'eval' / 'test-4-samples-0.png').exists()


def test_the_text_encoder_of_a_clip(data_dir, autoencoder, generator, tmp_path):
  config = configure(data_dir, autoencoder)
  sizes = config.muse.text.to_dict()
  tower = TowerConfig(**sizes.pop('text'))
  del sizes['pad']
  clip = CLIPConfig(image_size=32, patch=16, vision=tower, text=tower, **sizes)
  folder = clip_directory.write(tmp_path / 'clip', clip)
  config.init.clip = str(folder)
  config.optimizer.freeze = ('^(autoencoder|text)/',)
  config.train.steps = config.train.checkpoint_every = 1
  runs.run_training(config, tmp_path / 'run')
  export(config, epath.Path(tmp_path / 'run'), Interruption())
  weights = load_file(folder / 'model.safetensors')
  trained = by_path(load(tmp_path / 'run' / 'export'))
  np.testing.assert_array_equal(
    trained['text/embedding'], weights['text_model.embeddings.token_embedding.weight']
  )
  np.testing.assert_array_equal(
    trained['text/projection/kernel'].T, weights['text_projection.weight']
  )
  vocabulary = (tmp_path / 'run' / 'export' / 'tokenizer' / 'merges.txt').read_text()
  assert vocabulary == (folder / 'merges.txt').read_text()

  config.init.muse = str(generator / 'export')
  with pytest.raises(InputError, match='both have a text encoder'):
    runs.run_training(config, tmp_path / 'twice')
  config.init.muse = str(autoencoder / 'export')
  config.muse.text.text_length = 23
  with pytest.raises(InputError, match=r'--config\.muse\.text\.text_length=24'):
    runs.run_training(config, tmp_path / 'longer')


def test_a_run_resumes_bit_for_bit(data_dir, autoencoder, generator, tmp_path):
  """Masks, dropped texts and samples follow from the step alone."""
  workdir = tmp_path / 'run'
  shutil.copytree(generator, workdir)
  shutil.rmtree(workdir / 'checkpoints' / '4')
  runs.run_training(configure(data_dir, autoencoder), workdir)
  runs.assert_same_run(generator, workdir)


def test_low_rank_adaptation(data_dir, generator, tmp_path):
  """The model itself stays; its export is the model plus the changes."""
  config = tiny_muse.get_config('generator', data_dir)
  config.init.muse = str(generator / 'export')
  config.generator.update(lora_rank=2, lora_scale=0.5)
  config.train.steps = config.train.checkpoint_every = 2
  config.review.examples = 0
  with pytest.raises(InputError, match=r"must contain '\^transformer/'"):
    make_task(config)
  config.optimizer.freeze = ('^(autoencoder|transformer|text)/',)
  runs.run_training(config, tmp_path)
  export(config, epath.Path(tmp_path), Interruption())
  trained = runs.read_checkpoint(tmp_path, 2)
  before, after = (load(folder / 'export') for folder in (generator, tmp_path))
  before, after = by_path(before), by_path(after)
  layer = 'transformer/block_0/self_attention/query'
  a, b = (trained[f'params/lora/{layer}/{name}'] for name in 'ab')
  assert np.any(b)
  change = 0.5 * np.einsum('fr,rhk->fhk', a, b)
  name = f'{layer}/kernel'
  np.testing.assert_array_equal(trained[f'params/{name}'], before[name])
  np.testing.assert_allclose(after[name], before[name] + change, atol=1e-6)
  for name in ('transformer/logits/kernel', 'text/embedding'):
    np.testing.assert_array_equal(after[name], before[name])


def test_training_further_may_save_memory(data_dir, generator, tmp_path):
  """The settings that weights do not determine are free, as `configs/muse.py` needs."""
  config = tiny_muse.get_config('generator', data_dir)
  config.init.muse = str(generator / 'export')
  config.muse.transformer.update(remat=True, dropout_rate=0.1)
  config.train.steps = config.train.checkpoint_every = 1
  config.review.examples = 0
  runs.run_training(config, tmp_path)
  assert (tmp_path / 'checkpoints' / '1').exists()


def test_images_depend_on_prompt_seed_and_number_alone(generator):
  folder = generator / 'export'
  requests = [
    Request(prompt, seed, number)
    for prompt in tiny_muse.PROMPTS
    for seed in (0, 7)
    for number in (0, 1)
  ]
  model = load_generator(folder, rows=4)
  found = [*model.draw(requests)]
  # Prompts hardly matter yet, but the noise does.
  assert len({image.tobytes() for image in found[:4]}) == 4
  for i in (0, 5, 11):
    (alone,) = model.draw([requests[i]])
    np.testing.assert_array_equal(alone, found[i])
  spread = load_generator(folder, rows=4, devices=jax.devices()[:8])
  np.testing.assert_array_equal([*spread.draw(requests)], found)


def test_python_interface(generator):
  model = rahf.load(generator / 'export', rows=2)
  images = model.generate(tiny_muse.PROMPTS, seeds=[3, 4, 5])
  (again,) = model.generate(tiny_muse.PROMPTS[1], 4)
  assert [image.size for image in images] == [(64, 64)] * 3
  assert again.tobytes() == images[1].tobytes()
  for seed in (-1, 1.5, True, '1', None):
    with pytest.raises(InputError, match=f'seed = {seed!r}, but must be a whole'):
      model.generate('a', seed)
  with pytest.raises(InputError, match='the negative prompt is 5'):
    model.generate('a', negative=5)
  with pytest.raises(InputError, match="'a' is not a request"):
    next(model.draw(Request('a', 1)))
  with pytest.raises(InputError, match='2 prompts and 3 seeds'):
    model.generate(['a', 'b'], [1, 2, 3])


def test_mistakes(data_dir, autoencoder, tmp_path):
  config = tiny_muse.get_config('generator', data_dir)
  with pytest.raises(InputError, match=r'config\.init\.muse must be a model with'):
    runs.run_training(config, tmp_path)
  config.optimizer.freeze = ()
  with pytest.raises(InputError, match=r"must contain '\^autoencoder/'"):
    make_task(config)
  config = configure(data_dir, autoencoder)
  config.muse.autoencoder.levels = (4, 4)
  with pytest.raises(InputError, match=r'muse\.transformer\.codebook_size is 12'):
    make_task(config)
  config.muse.transformer.update(codebook_size=16, vocab_size=17)
  with pytest.raises(InputError, match=r'--config\.muse\.autoencoder\.levels='):
    runs.run_training(config, tmp_path)
  with pytest.raises(InputError, match='is an autoencoder only and cannot make images'):
    rahf.load(autoencoder / 'export')
  damaged = tmp_path / 'damaged'
  damaged.mkdir()
  for path in (autoencoder / 'export').iterdir():
    if path.is_file():
      (damaged / path.name).write_bytes(path.read_bytes())
  weights = damaged / 'model.safetensors'
  weights.write_bytes(weights.read_bytes()[:-1] + b'\0')
  with pytest.raises(InputError, match='SHA-256'):
    rahf.load(damaged)
