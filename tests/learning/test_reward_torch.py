"""Rewards of PyTorch tensors, with gradients, and inside a diffusers pipeline.

Needs the extra `parity`.
"""

import concurrent.futures

import jax
import numpy as np
import pytest

import rahf
import tiny_directory
from rahf.data import schema
from rahf.errors import InputError
from rahf.learning import reward as rewards

REASON = 'needs PyTorch and diffusers: pip install "rahf[parity]"'
torch = pytest.importorskip('torch', reason=REASON)
pytest.importorskip('diffusers', reason=REASON)

PROMPTS = ['a red circle', 'a blue square, red', 'a cat']


@pytest.fixture(scope='module')
def directory(tmp_path_factory):
  return tiny_directory.write(tmp_path_factory.mktemp('models'))


@pytest.fixture(scope='module')
def reward(directory):
  model = rahf.load(directory, batch_size=2)
  return rewards.Reward(model, {'overall': 1, 'misalignment_mean': -1})


@pytest.fixture(scope='module')
def pixels():
  """uint8[3, 24, 40, 3]."""
  return np.random.default_rng(0).integers(0, 256, (3, 24, 40, 3), np.uint8)


@pytest.mark.parametrize(
  ('dtype', 'tolerance'),
  # bfloat16 has 8 bits of a value, float16 11.
  [('uint8', 0), ('float64', 0), ('float32', 0), ('float16', 0), ('bfloat16', 0.01)],
)
def test_tensors_of_any_dtype(reward, pixels, dtype, tolerance):
  tensor = torch.from_numpy(pixels).permute(0, 3, 1, 2)
  if dtype != 'uint8':
    tensor = (tensor / 255).to(getattr(torch, dtype))
  expected, _ = reward(pixels, PROMPTS)
  values, _ = reward(tensor.requires_grad_(dtype == 'float32'), PROMPTS)
  np.testing.assert_allclose(values, expected, rtol=0, atol=tolerance)
  assert torch.as_tensor(values, device='cpu').shape == (3,)


def test_a_tensor_with_nan(reward):
  images = torch.zeros(2, 3, 8, 8)
  images[1, 0, 0, 0] = torch.nan
  with pytest.raises(InputError, match=r'images\[1\]: .* NaN'):
    reward(images, 'a cat')


@pytest.mark.parametrize('last', [False, True])
def test_gradients_of_pytorch(reward, pixels, last):
  """Three images in batches of two, with different upstream gradients."""
  tensor = torch.from_numpy(pixels / 255).float()
  tensor = (tensor if last else tensor.permute(0, 3, 1, 2)).requires_grad_()
  values, info = reward.with_gradient(tensor, tuple(PROMPTS), [{}] * 3)
  expected, _ = reward(pixels, PROMPTS)
  assert info == {}
  # With a gradient, scaling does not round.
  np.testing.assert_allclose(values.detach(), expected, atol=0.01)
  (values * torch.tensor([1.0, -2.0, 3.0])).sum().backward()
  text, value = reward.encode(PROMPTS), jax.jit(reward.differentiable)
  gradient = tensor.grad if last else tensor.grad.permute(0, 2, 3, 1)
  for row, upstream in enumerate([1.0, -2.0, 3.0]):
    # A step along the gradient, evaluated by the JAX function.
    length = gradient[row].norm()
    step = (1e-4 / length * gradient[row] / length).numpy()
    image = pixels[row] / np.float32(255)
    change = [
      value(reward.params, moved[None], text[row : row + 1])[0]
      for moved in (image + step, image - step)
    ]
    assert (change[0] - change[1]) * upstream == pytest.approx(2e-4, rel=0.02)


@pytest.fixture(scope='module')
def expected(reward, pixels):
  """Float rewards of `pixels` with `PROMPTS`."""
  return reward(pixels, PROMPTS)[0].tolist()


@pytest.fixture(scope='module')
def tensor(pixels):
  """As from pipelines with output_type='pt': float32[3, 3, 24, 40] in [0, 1]."""
  return torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255


def test_called_like_ddpo_pytorch_and_trl_0_23(reward, tensor, expected):
  """Tuples of prompts and metadata, in a thread; values go to `torch.as_tensor`."""
  prompts, metadata = zip(*((prompt, {}) for prompt in PROMPTS), strict=True)
  with concurrent.futures.ThreadPoolExecutor(2) as executor:
    batches = [(tensor, prompts, metadata)] * 3
    found = list(executor.map(lambda batch: reward(*batch), batches))
  values, infos = zip(*found, strict=True)
  joined = torch.cat([torch.as_tensor(one, device='cpu') for one in values])
  assert joined.dtype == torch.float32
  np.testing.assert_allclose(joined, expected * 3, atol=1e-6)
  assert all(set(info['scores']) == set(schema.SCORES) for info in infos)


def test_called_like_flow_grpo(reward, tensor, pixels, expected):
  """It calls each row of its table, with the device if there is such an argument, and
  adds up the weighted values image by image.
  """
  table = {'rahf': lambda: reward, 'by_device': lambda device: reward}
  weights = {'rahf': 0.75, 'by_device': 0.25}
  for images in (tensor, pixels):
    totals = [0.0] * 3
    for name, weight in weights.items():
      make = table[name]
      takes_device = 'device' in make.__code__.co_varnames
      entry = make(torch.device('cpu')) if takes_device else make()
      scores, _ = entry(images, PROMPTS, [{}] * 3)
      totals = [t + weight * score for t, score in zip(totals, scores, strict=True)]
    found = torch.as_tensor(totals, device='cpu').float()
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_called_like_verl_omni(reward, tensor, pixels, expected):
  """One image at a time, of uint8 or floats, from several threads at once."""

  def compute_score(data_source, solution_image, ground_truth, extra_info, **_):
    (value,), info = reward(solution_image[None], ground_truth)
    alignment = float(info['scores']['alignment'][0])
    return {'score': float(value), 'alignment': alignment}

  bytes_first = torch.from_numpy(pixels).permute(0, 3, 1, 2)
  for images in (bytes_first, tensor):
    with concurrent.futures.ThreadPoolExecutor(3) as executor:
      futures = [
        executor.submit(
          compute_score,
          data_source='shapes',
          solution_image=image,
          ground_truth=prompt,
          extra_info={'num_turns': None},
        )
        for image, prompt in zip(images, PROMPTS, strict=True)
      ]
      scores = [future.result()['score'] for future in futures]
    # As in its reward manager.
    found = torch.tensor(scores, dtype=torch.float32).unsqueeze(-1)
    np.testing.assert_allclose(found[:, 0], expected, atol=1e-6)


def test_called_like_unirl(reward, tensor, expected):
  """Its loss is minus the mean reward of images from a decoder."""

  class Scorer:
    def compute_rewards_differentiable(self, media_tensor, prompts, records=None):
      return reward.with_gradient(media_tensor, prompts)[0]

  brightness = torch.tensor(1.0, requires_grad=True)
  images = (tensor * brightness).clamp(0, 1)
  rewards = Scorer().compute_rewards_differentiable(images, PROMPTS)
  assert rewards.shape == (3,)
  assert rewards.grad_fn is not None
  # With a gradient, scaling does not round.
  np.testing.assert_allclose(rewards.detach(), expected, atol=0.01)
  (-rewards.mean()).backward()
  assert torch.isfinite(brightness.grad)
  assert brightness.grad != 0


def test_gradients_need_images_and_prompts(reward):
  with pytest.raises(InputError, match='1 prompts for 2 images'):
    reward.with_gradient(torch.zeros(2, 3, 8, 8), ['a cat'])
  with pytest.raises(InputError, match=r'images of shape \[3, 8, 8\]; give'):
    reward.with_gradient(torch.zeros(3, 8, 8), 'a cat')
  with pytest.raises(InputError, match='not in'):
    reward.with_gradient(torch.full((1, 3, 8, 8), 2.0), ['a cat'])
  with pytest.raises(InputError, match='ndarray is not a PyTorch tensor'):
    reward.with_gradient(np.zeros((1, 3, 8, 8)), ['a cat'])
  with pytest.raises(InputError, match=r'a tensor of torch\.float32 cannot be read'):
    reward.with_gradient(torch.empty(1, 3, 8, 8, device='meta'), ['a cat'])


def test_a_lazy_negative_bit(reward, tensor, expected):
  """As of the imaginary part of a conjugate."""
  lazy = torch.complex(tensor, -tensor).conj().imag
  assert lazy.is_neg()
  np.testing.assert_allclose(reward(lazy, PROMPTS)[0], expected, atol=1e-6)
  values, _ = reward.with_gradient(lazy, PROMPTS)
  with_gradient, _ = reward.with_gradient(tensor, PROMPTS)
  np.testing.assert_allclose(values, with_gradient, atol=1e-6)


@pytest.fixture(scope='module')
def pipeline():
  import tiny_pipelines

  return tiny_pipelines.stable_diffusion()


def test_inside_a_diffusers_pipeline(pipeline, reward):
  """Accepts every output type of the pipeline."""
  prompts = (*PROMPTS, 'two dogs')

  def sample(output_type):
    return pipeline(
      list(prompts),
      num_inference_steps=2,
      output_type=output_type,
      generator=torch.Generator().manual_seed(0),
    ).images

  images = sample('pt')
  assert images.shape == (4, 3, 32, 32)
  values, info = reward(images, prompts, ({},) * 4)
  assert len(set(values)) == 4
  words = [[word for word, _ in keywords] for keywords in info['keywords']]
  assert words[1:] == [['a', 'blue', 'square', 'red'], ['a', 'cat'], ['two', 'dogs']]
  # The same images as NumPy floats, NHWC, and as PIL images.
  for output_type in ('np', 'pil'):
    others, _ = reward(sample(output_type), prompts)
    np.testing.assert_allclose(others, values, atol=1e-6)


def test_a_decoder_learns_from_the_gradient(pipeline, reward):
  """The gradient flows through images into weights, as in DRaFT and AlignProp."""
  latents = torch.randn(3, 4, 16, 16, generator=torch.Generator().manual_seed(0))
  weights = list(pipeline.vae.decoder.parameters())
  optimizer = torch.optim.SGD(weights, 0.01)

  def decode():
    images = pipeline.vae.decode(latents).sample
    return pipeline.image_processor.postprocess(images, 'pt', [True] * 3)

  before, _ = reward.with_gradient(decode(), PROMPTS)
  (-before.mean()).backward()
  optimizer.step()
  after, _ = reward.with_gradient(decode(), PROMPTS)
  assert after.mean() > before.mean()
