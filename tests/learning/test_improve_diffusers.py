"""`python -m rahf.improve` with a pipeline of diffusers. Needs the extra `parity`."""

import csv

import numpy as np
import pytest
from PIL import Image

import rahf
import tiny_directory
from rahf import improve

REASON = 'needs PyTorch and diffusers: pip install "rahf[parity]"'
pytest.importorskip('torch', reason=REASON)
pytest.importorskip('diffusers', reason=REASON)
pytest.importorskip('transformers', reason=REASON)

import tiny_pipelines  # noqa: E402

PROMPTS = ('a red circle', 'two dogs')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Models, and prompts."""
  folder = tmp_path_factory.mktemp('models')
  tiny_directory.write(folder)
  pipeline = tiny_pipelines.stable_diffusion()
  pipeline.save_pretrained(folder / 'sd')
  (folder / 'prompts.txt').write_text('\n'.join(PROMPTS))
  return folder


def run(folder, out, *arguments) -> int:
  models = f'--generator={folder}/sd', f'--model={folder}/model'
  return improve.main([*map(str, arguments), *models, f'--out={out}'])


def read(path):
  with path.open(newline='') as file:
    return [*csv.DictReader(file)]


def test_filter(folder, tmp_path):
  out = tmp_path / 'kept'
  arguments = '--by=plausibility', '--images_per_prompt=2', '--batch_size=2'
  assert run(folder, out, 'filter', folder / 'prompts.txt', *arguments) == 0
  kept = read(out / 'images' / 'metadata.csv')
  assert [row['prompt'] for row in kept] == [*PROMPTS]
  assert all((out / 'images' / row['file_name']).exists() for row in kept)


def test_inpaint(folder, tmp_path):
  images, out = tmp_path / 'images', tmp_path / 'repaired'
  images.mkdir()
  pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
  Image.fromarray(pixels).save(images / 'a.png')
  (images / 'a.txt').write_text(PROMPTS[0])
  (feedback,) = rahf.load(folder / 'model').score([pixels], PROMPTS[0])
  threshold = float(np.quantile(feedback.heatmaps['implausibility'], 0.9))
  arguments = f'--threshold={threshold}', '--widen=0', '--candidates=2'
  assert run(folder, out, 'inpaint', images, *arguments) == 0
  (row,) = read(out / 'repairs.csv')
  panel = np.asarray(Image.open(out / 'panels' / '0.png'))
  mask = panel[:, 64:96, 0] == 255
  np.testing.assert_array_equal(panel[:, 96:][~mask], pixels[~mask])
  assert float(row['after']) >= float(row['before'])


def test_reprompt(folder, tmp_path):
  out = tmp_path / 'again'
  arguments = '--weights', '2', '--words=all'
  assert run(folder, out, 'reprompt', folder / 'prompts.txt', *arguments) == 0
  rows = read(out / 'reprompted.csv')
  assert [row['prompt'] for row in rows] == [*PROMPTS]
  assert all(float(row['after']) >= float(row['before']) for row in rows)
