"""Guidance of Stable Diffusion by a score, and `improve guide` with it.

Needs the extra `parity`.
"""

import csv

import numpy as np
import pytest

import rahf
import tiny_directory
from rahf import improve
from rahf.errors import InputError
from rahf.inference.image_generator import Request
from rahf.learning.reward import Reward

REASON = 'needs PyTorch and diffusers: pip install "rahf[parity]"'
torch = pytest.importorskip('torch', reason=REASON)
diffusers = pytest.importorskip('diffusers', reason=REASON)
transformers = pytest.importorskip('transformers', reason=REASON)

import tiny_pipelines  # noqa: E402
from rahf.learning.diffusers_bridge import DiffusersGenerator  # noqa: E402
from rahf.learning.diffusers_guidance import (  # noqa: E402
  GuidanceOptions,
  GuidedDiffusion,
)

SETTINGS = {'num_inference_steps': 4, 'guidance_scale': 3.0}
REQUESTS = [Request('a red circle', 5), Request('two dogs', 6), Request('a cat', 5, 1)]


@pytest.fixture(scope='module')
def rahf_folder(tmp_path_factory):
  return tiny_directory.write(tmp_path_factory.mktemp('models'))


@pytest.fixture(scope='module')
def reward(rahf_folder):
  return Reward(rahf.load(rahf_folder, batch_size=4), {'plausibility': 1.0})


@pytest.fixture(scope='module', params=['epsilon', 'v_prediction'])
def generator(request):
  pipeline = tiny_pipelines.stable_diffusion()
  pipeline.scheduler = diffusers.DDIMScheduler(
    steps_offset=1, clip_sample=False, prediction_type=request.param
  )
  return DiffusersGenerator(pipeline, rows=2, settings=SETTINGS)


def test_without_strength_it_is_the_pipeline(generator, reward):
  found = [*GuidedDiffusion(generator, reward).draw(REQUESTS, 0.0)]
  expected = [*generator.draw(REQUESTS)]
  np.testing.assert_allclose(np.array(found), np.array(expected), atol=1)


@pytest.mark.parametrize(
  'options',
  [
    GuidanceOptions(),
    GuidanceOptions(backward=2, recurrence=2),
    GuidanceOptions(start=2),
  ],
)
def test_the_score_grows_with_the_strength(generator, reward, options):
  guided = GuidedDiffusion(generator, reward, options)

  def values(strength):
    images = [*guided.draw(REQUESTS, strength)]
    return reward(images, [one.prompt for one in REQUESTS])[0]

  assert values(1.0).mean() > values(0.0).mean() > values(-1.0).mean()


def test_an_image_does_not_depend_on_its_batch(generator, reward):
  guided = GuidedDiffusion(generator, reward, GuidanceOptions(recurrence=2))
  together = [*guided.draw(REQUESTS, 0.5)]
  alone = [image for one in REQUESTS for image in guided.draw([one], 0.5)]
  np.testing.assert_allclose(np.array(together), np.array(alone), atol=1)


def test_other_pipelines_are_refused(reward):
  amused = DiffusersGenerator(tiny_pipelines.amused(), settings={})
  with pytest.raises(InputError, match='AmusedPipeline cannot be guided'):
    GuidedDiffusion(amused, reward)


def test_the_command(rahf_folder, tmp_path):
  tiny_pipelines.stable_diffusion().save_pretrained(tmp_path / 'sd')
  (tmp_path / 'prompts.txt').write_text('a red circle\ntwo dogs\n')
  arguments = [
    *('guide', str(tmp_path / 'prompts.txt'), f'--generator={tmp_path}/sd'),
    *(f'--model={rahf_folder}', '--strengths', '1', '--steps=2', '--batch_size=2'),
    *('--recurrence=2', '--backward=1', f'--out={tmp_path}/out'),
  ]
  assert improve.main(arguments) == 0
  with (tmp_path / 'out/guided.csv').open(newline='') as file:
    rows = [*csv.DictReader(file)]
  assert [row['prompt'] for row in rows] == ['a red circle', 'two dogs']
  assert all(row['at 0'] != row['at 1'] for row in rows)
