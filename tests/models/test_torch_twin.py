"""The PyTorch twin of the benchmarks computes what our model computes.

Needs the extra `parity`.
"""

from collections.abc import Iterator

import jax
import numpy as np
import pytest

import tiny_model
from rahf.models.rahf import MAPS, RAHF, SCORES
from rahf.pretrained import load

REASON = 'needs PyTorch and transformers: pip install "rahf[parity]"'
torch = pytest.importorskip('torch', reason=REASON)
pytest.importorskip('transformers', reason=REASON)


def kernel(layer) -> np.ndarray:
  weight = layer.weight.detach().numpy()
  if isinstance(layer, torch.nn.ConvTranspose2d):
    return weight[:, :, ::-1, ::-1].transpose(2, 3, 0, 1)
  return weight.transpose(2, 3, 1, 0) if weight.ndim == 4 else weight.T


def named(head) -> Iterator[str]:
  """Names the layers of a head in the order in which the twin has them."""
  for i in range(len(head.config.convs)):
    yield from (f'conv_{i}', f'conv_{i}_norm')
  if hasattr(head.config, 'deconvs'):
    for i in range(len(head.config.deconvs)):
      for name in ('deconv', 'deconv_norm'):
        yield f'stage_{i}/{name}'
      for j in range(2):
        yield from (f'stage_{i}/conv_{j}', f'stage_{i}/conv_{j}_norm')
    yield from ('readout_0', 'readout_1')
  else:
    yield from (f'dense_{i}' for i in range(len(head.config.dense)))
    yield 'score'


def head_params(head) -> dict:
  """Returns a head of the twin as parameters of ours."""
  params = {}
  layers = [part for part in head.modules() if hasattr(part, 'weight')]
  for path, layer in zip(named(head), layers, strict=True):
    *folders, name = path.split('/')
    place = params
    for folder in folders:
      place = place.setdefault(folder, {})
    if name.endswith('_norm'):
      place[name] = {'scale': layer.weight.detach().numpy()}
    else:
      place[name] = {'kernel': kernel(layer), 'bias': layer.bias.detach().numpy()}
  return params


def all_params(twin, folder) -> dict:
  """Returns the twin as parameters of ours."""
  params = {}
  for part in ('vit', 't5'):
    getattr(twin, part).save_pretrained(folder / part)
    params |= load(folder / part)
  projection = twin.image_projection
  params['image_projection'] = {
    'kernel': kernel(projection),
    'bias': projection.bias.detach().numpy(),
  }
  for kind, heads, names in (
    ('heatmap_head', twin.heatmap_heads, MAPS),
    ('score_head', twin.score_heads, SCORES),
  ):
    keys = [kind] if len(heads) == 1 else [f'{kind}_{name}' for name in names]
    params |= {key: head_params(head) for key, head in zip(keys, heads, strict=True)}
  return params


@pytest.mark.parametrize('sees_image', [True, False])
@pytest.mark.parametrize('variant', tiny_model.VARIANTS)
def test_outputs(variant, sees_image, tmp_path):
  from benchmarks.torch_twin import Twin

  torch.manual_seed(0)
  config = tiny_model.tiny(variant, decoder_sees_image=sees_image)
  twin = Twin(config).eval()
  with torch.no_grad():
    for parameter in twin.parameters():  # Fresh ones have biases of 0, scales of 1.
      parameter += 0.1 * torch.randn(parameter.shape)
  batch = tiny_model.make_batch(config, rows=3)
  with torch.no_grad():
    expected = twin(
      torch.tensor(batch.image).permute(0, 3, 1, 2),
      torch.tensor(batch.text).long(),
      torch.tensor(batch.target).long(),
    )
  found = jax.jit(RAHF(config).apply, static_argnames='train')(
    {'params': all_params(twin, tmp_path)},
    batch.image,
    batch.text,
    batch.target,
    train=False,
  )
  for name, theirs in expected._asdict().items():
    ours = getattr(found, name)
    np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-4)
    assert np.std(ours) > 0.005
