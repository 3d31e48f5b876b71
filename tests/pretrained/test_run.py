"""A run that starts from pretrained weights, from the config to the model card."""

import pathlib
import shutil

import numpy as np
import pytest
from ml_collections import ConfigDict

import runs
import tiny
from rahf.errors import InputError
from rahf.pretrained import load

QUERY = 't5/encoder/layers_0/attention/query/kernel'


def make_config(data_dir: pathlib.Path, vit, t5) -> ConfigDict:
  config = tiny.get_config(data_dir)
  config.model.image_size = 32
  config.model.vit.update(patch=8, width=24, layers=2, heads=3, mlp=40)
  config.model.t5.update(
    vocab_size=384,
    width=24,
    heads=3,
    head_dim=8,
    mlp=40,
    encoder_layers=2,
    decoder_layers=2,
  )
  config.init.update(vit=str(vit), t5=str(t5))
  config.train.update(steps=2, checkpoint_every=1)
  config.optimizer.learning_rate = 1e-6
  return config


def test_a_run_starts_from_its_sources_and_continues_without_them(
  t5x, assets, data_dir, tmp_path, capsys
):
  vit = tmp_path / 'vit.npz'
  shutil.copy(assets / 'golden' / 'vit_tiny_release_names.npz', vit)
  expected = load(t5x)['t5']
  config, workdir = make_config(data_dir, vit, t5x), tmp_path / 'run'

  # Mistakes are found before the work directory is created.
  config.init.vit = str(tmp_path / 'vti.npz')
  with pytest.raises(InputError, match=r'vti.npz does not exist'):
    runs.run_training(config, workdir)
  config.init.vit = str(vit)
  runs.run_training(config, workdir)
  assert 'init.vit: ViT release (.npz)' in capsys.readouterr().out

  # Two steps with a rate of one millionth hardly change the weights.
  kernel = expected['encoder']['layers_0']['attention']['query']['kernel']
  trained = runs.read_checkpoint(workdir, 2)[f'params/{QUERY}']
  np.testing.assert_allclose(trained, kernel, atol=1e-5)
  assert not np.array_equal(trained, kernel)

  card = (workdir / 'model_card.md').read_text()
  assert f'- ViT release (.npz), `{vit}`: 38 arrays, 14,072 values loaded' in card
  assert f'- T5X checkpoint, `{t5x}`: 52 arrays' in card
  assert '- Random at the start: ' in card
  assert 'from scratch' not in card

  vit.unlink()
  shutil.rmtree(t5x)
  shutil.rmtree(workdir / 'checkpoints' / '2')
  runs.run_training(config, workdir)
  assert 'at step 1' in capsys.readouterr().out
  assert (workdir / 'model_card.md').read_text() == card
  config.init.vit = ''
  with pytest.raises(InputError, match=r'config.init.vit: '):
    runs.run_training(config, workdir)


def test_the_card_of_a_run_from_scratch_says_so(trained):
  card = (trained / 'model_card.md').read_text()
  assert 'Trained from scratch.' in card
  assert 'multi_head, 64 px' in card
