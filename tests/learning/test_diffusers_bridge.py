"""Pipelines of diffusers as image generators, and `--mode=generate` with them.

Needs the extra `parity`.
"""

import copy
import csv

import numpy as np
import pytest
from PIL import Image

from rahf.errors import InputError
from rahf.generate import Job, generate
from rahf.inference.image_generator import InpaintRequest, Request
from rahf.learning.open_generator import open_generator
from rahf.runtime.preemption import Interruption

REASON = 'needs PyTorch and diffusers: pip install "rahf[parity]"'
torch = pytest.importorskip('torch', reason=REASON)
diffusers = pytest.importorskip('diffusers', reason=REASON)
transformers = pytest.importorskip('transformers', reason=REASON)

import tiny_pipelines  # noqa: E402
from rahf.learning.diffusers_bridge import (  # noqa: E402
  DiffusersGenerator,
  DiffusersInpainter,
  pool,
)
from rahf.learning.diffusers_emphasis import embeddings  # noqa: E402
from rahf.learning.diffusers_pipeline import for_inpainting, open_diffusers  # noqa: E402

PROMPTS = ['a red circle', 'two dogs']
STEPS = {'num_inference_steps': 2}
IMAGE = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)


@pytest.fixture(scope='module')
def stable_diffusion():
  return tiny_pipelines.stable_diffusion()


@pytest.fixture(scope='module', params=['stable_diffusion', 'amused'])
def pipeline(request, stable_diffusion):
  if request.param == 'amused':
    return tiny_pipelines.amused()
  return stable_diffusion


@pytest.fixture(scope='module')
def folder(stable_diffusion, tmp_path_factory):
  """The directory of a saved pipeline."""
  path = tmp_path_factory.mktemp('pipelines')
  stable_diffusion.save_pretrained(path)
  return path


def thin(**fields) -> InpaintRequest:
  """A mask between the pixels that scaling to the nearest one picks."""
  mask = np.zeros((32, 32), bool)
  mask[9, 3:] = True
  return InpaintRequest(PROMPTS[0], 5, 0, IMAGE, mask)._replace(**fields)


def test_images_are_those_of_the_pipeline_in_the_order_of_the_prompts(pipeline):
  """Several images of several prompts, against calls of the pipeline for each."""
  requests = [Request(prompt, seed) for prompt in PROMPTS for seed in (5, 6)]
  found = [*DiffusersGenerator(pipeline, settings=STEPS).draw(requests)]
  expected = []
  for prompt, seed, *_ in requests:
    random = torch.Generator().manual_seed(seed)
    expected += pipeline(prompt, generator=random, **STEPS).images
  expected = np.array([np.asarray(image) for image in expected])
  assert len({image.tobytes() for image in expected}) == 4
  # Calls of other numbers of rows may round otherwise.
  np.testing.assert_allclose(np.array(found), expected, atol=1)
  assert found[0].dtype == np.uint8


def test_an_image_does_not_depend_on_its_batch(pipeline):
  generator = DiffusersGenerator(pipeline, rows=3, settings=STEPS)
  requests = [
    Request(prompt, 7, number, negative)
    for prompt in PROMPTS
    for number in (0, 1)
    for negative in ('', 'dogs')
  ]
  together = [*generator.draw(requests)]
  assert len({image.tobytes() for image in together}) == 8
  for i in (0, 3, 6):
    (alone,) = generator.draw(requests[i : i + 1])
    np.testing.assert_array_equal(alone, together[i])


def test_inpainting(pipeline):
  inpainter = DiffusersInpainter(pipeline, rows=3, settings=STEPS)
  half = np.zeros((32, 32), bool)
  half[:, :16] = True
  requests = [
    thin(),
    thin(prompt=PROMPTS[1]),
    thin(mask=half, number=1),
    thin(mask=half, image=IMAGE[::-1]),
  ]
  together = [*inpainter.inpaint(requests)]
  for one, image in zip(requests, together, strict=True):
    np.testing.assert_array_equal(image[~one.mask], one.image[~one.mask])
    assert (image[one.mask] != one.image[one.mask]).mean() > 0.9
    (alone,) = inpainter.inpaint([one])
    np.testing.assert_array_equal(alone, image)


def test_thin_masks_do_not_vanish(pipeline):
  """Else the autoencoder alone would change the image, whatever the prompt.

  With more steps than one, aMUSEd masks tokens even if there are none to draw.
  """
  inpainter = DiffusersInpainter(pipeline, settings={'num_inference_steps': 1})
  one, two = inpainter.inpaint([thin(), thin(prompt=PROMPTS[1])])
  assert (one != two).any()


def test_inpainting_leaves_the_pipeline_as_it_was():
  amused = tiny_pipelines.amused()
  assert for_inpainting(amused).scheduler.config.masking_schedule == 'linear'
  assert amused.scheduler.config.masking_schedule == 'cosine'


def test_masks_are_pooled():
  mask = np.zeros((2, 8, 12), bool)
  mask[0, 3, 4] = mask[1, 7, :] = True
  found = pool(mask, 4).astype(int).tolist()
  assert found == [[[0, 1, 0], [0, 0, 0]], [[0, 0, 0], [1, 1, 1]]]


@pytest.mark.parametrize(
  ('request_', 'message'),
  [
    (thin(mask=np.zeros((32, 32), bool)), 'the mask is empty'),
    (thin(mask=np.ones((32, 32), bool)), 'covers the whole image'),
    (thin(mask=np.eye(16, dtype=bool)), r'bool \[16, 16\]; give bool \[32, 32\]'),
    (
      thin(image=IMAGE[:31], mask=np.eye(31, 32, dtype=bool)),
      '32 x 31 px, but StableDiffusionInpaintPipeline takes multiples of 2 px',
    ),
  ],
)
def test_masks_that_are_refused(stable_diffusion, request_, message):
  inpainter = DiffusersInpainter(stable_diffusion, settings=STEPS)
  with pytest.raises(InputError, match=message):
    next(inpainter.inpaint([request_]))


def test_pipelines_and_settings_that_are_refused(stable_diffusion):
  unconditional = diffusers.DDIMPipeline(
    stable_diffusion.unet, stable_diffusion.scheduler
  )
  for wrap in (DiffusersGenerator, DiffusersInpainter):
    with pytest.raises(InputError, match=r'DDIMPipeline (does not|cannot)'):
      wrap(unconditional)
  with pytest.raises(InputError, match='InpaintPipeline does not make images of p'):
    DiffusersGenerator(for_inpainting(stable_diffusion))
  for setting in ('steps', 'prompt'):
    with pytest.raises(InputError, match=f'has no setting {setting}; it has height'):
      DiffusersGenerator(stable_diffusion, settings={setting: 3})
  with pytest.raises(InputError, match='height and width together'):
    DiffusersGenerator(stable_diffusion, settings={'height': 24})
  sizes = {'height': 30, 'width': 32}
  generator = DiffusersGenerator(stable_diffusion, settings=sizes)
  with pytest.raises(InputError, match=r'refuses a request: .* have to be divisible'):
    next(generator.draw([Request(PROMPTS[0], 0)]))
  with pytest.raises(InputError, match='seed = -1'):
    next(generator.draw([Request(PROMPTS[0], -1)]))


def test_images_that_are_no_results(stable_diffusion):
  """Blackened by a real safety checker; NaN of a damaged decoder."""
  config = transformers.CLIPConfig(
    text_config={'hidden_size': 8, 'intermediate_size': 8, 'num_hidden_layers': 1},
    vision_config={
      **{'hidden_size': 8, 'intermediate_size': 8, 'num_hidden_layers': 1},
      **{'num_attention_heads': 1, 'image_size': 32, 'patch_size': 16},
    },
    projection_dim=8,
  )
  checker = diffusers.pipelines.stable_diffusion.StableDiffusionSafetyChecker(config)
  checker.concept_embeds_weights.data.fill_(-10)  # Thresholds below any cosine.
  checked = diffusers.StableDiffusionPipeline(
    **stable_diffusion.components
    | {
      'safety_checker': checker,
      'feature_extractor': transformers.CLIPImageProcessor(
        size={'shortest_edge': 32}, crop_size=32
      ),
    },
  )
  generator = DiffusersGenerator(checked, settings=STEPS)
  with pytest.raises(InputError, match=r"'two dogs', seed 3, number 1 was blackened"):
    next(generator.draw([Request('two dogs', 3, 1)]))

  parts = stable_diffusion.components | {'vae': copy.deepcopy(stable_diffusion.vae)}
  torch.nn.init.constant_(parts['vae'].decoder.conv_out.bias, torch.nan)
  damaged = diffusers.StableDiffusionPipeline(**parts, requires_safety_checker=False)
  with pytest.raises(InputError, match=r'not finite; .* dtype than torch\.float32'):
    next(DiffusersGenerator(damaged, settings=STEPS).draw([Request('a', 0)]))


def test_prompts_whose_end_is_not_read(pipeline):
  length = pipeline.tokenizer.model_max_length
  fits, long = 'a ' * (length - 2), 'a ' * (length - 1)
  assert DiffusersGenerator(pipeline).truncated([fits, long]) == [long]


def test_generate(folder, stable_diffusion, tmp_path, capsys):
  prompts, output = tmp_path / 'prompts.txt', tmp_path / 'out'
  prompts.write_text('\n'.join(PROMPTS))
  job = Job(str(folder), str(prompts), str(output), 2, 5, '', 3, steps=2, guidance=3.0)
  generate(job, Interruption())
  said = capsys.readouterr().out
  assert f'Model: {folder}, StableDiffusionPipeline of diffusers, in PyTorch' in said
  rows = [*csv.DictReader((output / 'images.csv').open())]
  assert [row['prompt'] for row in rows] == [PROMPTS[0]] * 2 + [PROMPTS[1]] * 2
  settings = STEPS | {'guidance_scale': 3.0}
  expected = DiffusersGenerator(stable_diffusion, rows=3, settings=settings)
  requests = [Request(row['prompt'], 5, int(row['number'])) for row in rows]
  for row, pixels in zip(rows, expected.draw(requests), strict=True):
    found = np.asarray(Image.open(output / row['file_name']))
    np.testing.assert_array_equal(found, pixels)


def test_amused_is_opened_in_jax(tmp_path):
  pipeline = tiny_pipelines.amused()
  pipeline.save_pretrained(tmp_path)
  generator = open_generator(tmp_path, rows=2, steps=3)
  assert generator.summary == 'aMUSEd, 32 px, in JAX'
  assert generator.settings['steps'] == 3


def test_directories_that_are_refused(folder, tmp_path):
  with pytest.raises(InputError, match='not a local directory with model_index'):
    open_diffusers(tmp_path)
  with pytest.raises(InputError, match="'half' is not one of float32"):
    open_diffusers(folder, dtype='half')
  index = tmp_path / 'model_index.json'
  index.write_text('{"_class_name": ["pipeline", "Mine"]}')
  with pytest.raises(InputError, match=r"has no class \['pipeline', 'Mine'\]"):
    open_generator(tmp_path, rows=1)
  for path in folder.rglob('*'):
    if path.is_file():
      copied = tmp_path / path.relative_to(folder)
      copied.parent.mkdir(exist_ok=True)
      copied.write_bytes(path.read_bytes())
  # Pickled weights, which can run code, are not read.
  weights = tmp_path / 'unet' / 'diffusion_pytorch_model.safetensors'
  torch.save(
    diffusers.UNet2DConditionModel.from_pretrained(folder / 'unet').state_dict(),
    weights.with_suffix('.bin'),
  )
  weights.unlink()
  with pytest.raises(InputError, match='cannot be loaded as StableDiffusionPipeline'):
    open_generator(tmp_path, rows=1)


def test_emphasis_moves_the_embeddings_of_words(stable_diffusion):
  generator = DiffusersGenerator(stable_diffusion, settings=STEPS)
  plain = Request(PROMPTS[0], 5)
  one, without, strong = (
    plain._replace(emphasis=((2, 5, weight),)) for weight in (1.0, 0.0, 8.0)
  )
  images = [*generator.draw([plain, one, without, strong])]
  np.testing.assert_allclose(images[0], images[1], atol=1)
  assert (images[0] != images[3]).any()
  # Only the tokens of the word move: one for each letter, after the start and 'a'.
  found = embeddings(stable_diffusion, [without])['prompt_embeds'][0]
  empty, same = (
    stable_diffusion.encode_prompt(text, 'cpu', 1, False)[0][0]
    for text in ('', PROMPTS[0])
  )
  expected = same.clone()
  expected[2:5] = empty[2:5]
  torch.testing.assert_close(found, expected)


def test_emphasis_is_refused_where_it_has_no_effect():
  generator = DiffusersGenerator(tiny_pipelines.amused(), settings=STEPS)
  with pytest.raises(InputError, match='takes no emphasis'):
    next(generator.draw([Request('a red circle', 5, emphasis=((2, 5, 2.0),))]))
