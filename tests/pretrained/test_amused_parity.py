"""Our aMUSEd against diffusers in PyTorch, from directories that it wrote.

Needs the extra `parity`.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rahf
from rahf.data.clip_tokenizer import ClipTokenizer
from rahf.models import muse
from rahf.models.muse import generator
from rahf.models.muse.autoencoder import Autoencoder
from rahf.models.muse.sampling import Noise, SamplingConfig, masked_shares, one_step
from rahf.models.muse.transformer import Transformer
from rahf.pretrained import load

REASON = 'needs PyTorch, transformers and diffusers: pip install "rahf[parity]"'
torch = pytest.importorskip('torch', reason=REASON)
transformers = pytest.importorskip('transformers', reason=REASON)
diffusers = pytest.importorskip('diffusers', reason=REASON)

# After torch is known to be here.
from tiny_amused import CODES, GRID, MASK, OPTIONS, PROMPTS, pipeline  # noqa: E402

FLOAT32 = jnp.dtype('float32')


@pytest.fixture(scope='module', params=OPTIONS)
def both(request, tmp_path_factory):
  """A pipeline of diffusers; its directory; our sizes and parameters."""
  folder = tmp_path_factory.mktemp(request.param)
  pipe = pipeline(folder, **OPTIONS[request.param])
  config = rahf.load(folder).muse
  return pipe, folder, config, jax.tree.map(jnp.asarray, load(folder))


def close(found, expected, tolerance=1e-5):
  np.testing.assert_allclose(
    found, np.asarray(expected), atol=tolerance, rtol=tolerance
  )


def channels_last(tensor):
  return tensor.detach().permute(0, 2, 3, 1).numpy()


def images(count=2):
  return np.random.default_rng(0).random((count, 16, 16, 3), np.float32)


def prompt(folder):
  """Returns the prompts as our tokenizer reads them, which pads with the end."""
  tokenizer = ClipTokenizer(folder / 'tokenizer', 'huggingface')
  text, negative = (tokenizer.encode(texts).ids for texts in (PROMPTS, ['']))
  micro = muse.micro_conditions(len(PROMPTS), 16, 16)
  return muse.Prompt(jnp.asarray(text), jnp.asarray(negative), micro)


def test_autoencoder(both):
  pipe, _, config, params = both
  ours = Autoencoder(config.autoencoder, FLOAT32).bind(
    {'params': params['autoencoder']}
  )
  image = images()
  theirs = pipe.vqvae.encode(torch.tensor(image.transpose(0, 3, 1, 2))).latents
  found = ours.encode(jnp.asarray(image))
  close(found, channels_last(theirs))
  tokens = pipe.vqvae.quantize(theirs)[2][2].reshape(2, GRID, GRID)
  assert len(np.unique(tokens)) > 5
  np.testing.assert_array_equal(ours.tokens(jnp.asarray(image)), tokens)
  shape = (2, GRID, GRID, 6)
  with torch.no_grad():
    expected = pipe.vqvae.decode(tokens, force_not_quantize=True, shape=shape).sample
    through = pipe.vqvae(torch.tensor(image.transpose(0, 3, 1, 2))).sample
  close(ours.decode_tokens(jnp.asarray(tokens)), channels_last(expected))
  close(ours(jnp.asarray(image)).image, channels_last(through))


def test_text_and_transformer(both):
  pipe, folder, config, params = both
  ids = pipe.tokenizer(PROMPTS, padding='max_length', return_tensors='pt').input_ids
  text = pipe.text_encoder(ids, output_hidden_states=True)
  # Our tokenizer's padding becomes the model's own.
  features = generator.encode_text(config, params, prompt(folder).text)
  close(features.pooled, text.text_embeds.detach())
  close(features.hidden, text.hidden_states[-2].detach())

  tokens = np.random.default_rng(1).integers(0, CODES, (2, GRID, GRID))
  tokens[:, 1:3] = MASK
  micro = np.array([[16, 16, 0, 0, 6], [300, 200, 20, 3, 4.5]], np.float32)
  with torch.no_grad():
    expected = pipe.transformer(
      torch.tensor(tokens),
      text.hidden_states[-2],
      text.text_embeds,
      torch.tensor(micro),
    )
  logits = Transformer(config.transformer, FLOAT32).apply(
    {'params': params['transformer']},
    jnp.asarray(tokens),
    features.hidden,
    features.pooled,
    jnp.asarray(micro),
    train=False,
  )
  assert np.std(logits) > 0.5
  close(logits, channels_last(expected))


def torch_noise(random, images, steps, last=True):
  """Draws what diffusers draws in its steps: by `multinomial`, then for the order."""
  codes, order = [], []
  for step in range(steps):
    waits = torch.empty(images * GRID**2, CODES).exponential_(generator=random)
    codes.append(-waits.log().reshape(images, GRID**2, CODES))
    order.append(torch.zeros(images, GRID**2))
    if not (last and step == steps - 1):
      uniform = torch.empty(images, GRID**2).uniform_(generator=random)
      order[-1] = -torch.log(-torch.log(uniform.clamp(1e-20)))
  return Noise(*(jnp.asarray(torch.stack(x).numpy()) for x in (codes, order)))


@pytest.mark.parametrize('schedule', ['cosine', 'linear'])
def test_one_step(schedule):
  logits = np.random.default_rng(0).normal(0, 2, (3, GRID**2, CODES))
  logits = logits.astype(np.float32)
  tokens = np.random.default_rng(1).integers(0, CODES, (3, GRID**2))
  # Of the second image all tokens are masked; of the third a single one.
  tokens[0, 3:14], tokens[1], tokens[2, 5] = MASK, MASK, MASK
  scheduler = diffusers.AmusedScheduler(MASK, schedule)
  scheduler.set_timesteps(4)
  for step in range(4):
    expected = scheduler.step(
      torch.tensor(logits),
      3 - step,
      torch.tensor(tokens),
      generator=torch.Generator().manual_seed(step),
    )
    noise = torch_noise(torch.Generator().manual_seed(step), 3, 1, last=False)
    found = one_step(
      jnp.asarray(logits),
      jnp.asarray(tokens),
      jax.tree.map(lambda x: x[0], noise),
      jnp.full(3, masked_shares(schedule, 4)[step]),
      jnp.asarray(scheduler.temperatures[step].numpy()),
      MASK,
    )
    np.testing.assert_array_equal(found.guess, expected.pred_original_sample)
    np.testing.assert_array_equal(found.tokens, expected.prev_sample)


def test_numbers_of_masked_tokens():
  """Rounded as there, though a share such as cos(pi/3) is half only nearly."""
  for schedule in ('cosine', 'linear'):
    for steps in range(1, 31):
      ratio = torch.arange(1, steps + 1) / steps
      share = torch.cos(ratio * math.pi / 2) if schedule == 'cosine' else 1 - ratio
      for tokens in (16, 64, 256, 1024):
        ours = np.floor(np.float32(tokens) * masked_shares(schedule, steps))
        np.testing.assert_array_equal(ours[:-1], (tokens * share).floor()[:-1])
        assert ours[-1] == 0


def test_text_to_image(both):
  pipe, folder, config, params = both
  guidance = 1.0 if config.transformer.downsample else 3.0
  settings = {'num_inference_steps': 5, 'guidance_scale': guidance}
  expected = [
    pipe(
      PROMPTS,
      generator=torch.Generator().manual_seed(7),
      output_type=kind,
      **settings,
    ).images
    for kind in ('latent', 'np')
  ]
  found = muse.generate(
    config,
    params,
    prompt(folder),
    jax.random.split(jax.random.key(0), 2),
    sampling=SamplingConfig(steps=5, guidance=guidance),
    noise=torch_noise(torch.Generator().manual_seed(7), 2, 5),
  )
  np.testing.assert_array_equal(found.tokens, expected[0])
  close(found.image, expected[1])


def test_image_to_image(both):
  pipe, folder, config, params = both
  pipe = diffusers.AmusedImg2ImgPipeline(**pipe.components)
  pipe.set_progress_bar_config(disable=True)
  image = images()
  expected = pipe(
    PROMPTS,
    torch.tensor(image.transpose(0, 3, 1, 2)),
    num_inference_steps=6,
    generator=torch.Generator().manual_seed(7),
    output_type='latent',
  ).images
  random = torch.Generator().manual_seed(7)
  uniform = torch.rand((2, GRID, GRID), generator=random).numpy()
  tokens = generator.encode(config, params, jnp.asarray(image))
  start = jnp.where(uniform < masked_shares('cosine', 6)[2], MASK, tokens)
  assert 0 < (start == MASK).mean() < 1
  found = generator.complete(
    config,
    params,
    prompt(folder),
    start,
    jax.random.split(jax.random.key(0), 2),
    sampling=SamplingConfig(steps=6),
    first=3,
    noise=torch_noise(random, 2, 3),
  )
  np.testing.assert_array_equal(found.tokens, expected)


def test_inpainting(both):
  pipe, folder, config, params = both
  scheduler = diffusers.AmusedScheduler(MASK)
  pipe = diffusers.AmusedInpaintPipeline(**pipe.components | {'scheduler': scheduler})
  pipe.set_progress_bar_config(disable=True)
  image, mask = images(), np.zeros((2, 16, 16), bool)
  mask[0, 4:12], mask[1, :8] = True, True
  expected = [
    pipe(
      PROMPTS,
      torch.tensor(image.transpose(0, 3, 1, 2)),
      torch.tensor(mask[:, None], dtype=torch.float32),
      num_inference_steps=4,
      generator=torch.Generator().manual_seed(7),
      output_type=kind,
    ).images
    for kind in ('latent', 'np')
  ]
  found = muse.inpaint(
    config,
    params,
    prompt(folder),
    jnp.asarray(image),
    jnp.asarray(mask),
    jax.random.split(jax.random.key(0), 2),
    sampling=SamplingConfig(steps=4, schedule='linear'),
    noise=torch_noise(torch.Generator().manual_seed(7), 2, 4),
  )
  np.testing.assert_array_equal(found.tokens, expected[0])
  np.testing.assert_array_equal(np.asarray(found.image)[~mask], image[~mask])
  close(np.asarray(found.image)[mask], expected[1][mask])


def test_a_directory_as_a_generator(both):
  _, folder, config, _ = both
  model = rahf.load(folder, rows=1, sampling={'steps': 2})
  one, two = model.generate(PROMPTS[:2], seeds=3)
  assert one.size == (config.image_size, config.image_size)
  assert one.tobytes() != two.tobytes()
