import json
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from flax import linen as nn
from flax import traverse_util

from golden_noise import noise
from rahf.errors import InputError
from rahf.models.resnet import ResNet, ResNetConfig, init_variables
from rahf.pretrained import load, open_source
from torch_files import contiguous, write_state_dict

GOLDEN = pathlib.Path(__file__).parents[1] / 'goldens' / 'resnet50.json'


@pytest.fixture(scope='module')
def golden():
  return json.loads(GOLDEN.read_text())


def torchvision_shapes(config: ResNetConfig):
  """Yields the names and shapes of torchvision's state dict."""

  def norm(name, channels):
    for part in ('weight', 'bias', 'running_mean', 'running_var'):
      yield f'{name}.{part}', (channels,)
    yield f'{name}.num_batches_tracked', ()

  yield 'conv1.weight', (config.width, 3, 7, 7)
  yield from norm('bn1', config.width)
  inputs = config.width
  for stage, blocks in enumerate(config.blocks):
    width = config.width * 2**stage
    for i in range(blocks):
      block = f'layer{stage + 1}.{i}.'
      units = ((width, inputs, 1), (width, width, 3), (4 * width, width, 1))
      for number, (outputs, channels, size) in enumerate(units, 1):
        yield f'{block}conv{number}.weight', (outputs, channels, size, size)
        yield from norm(f'{block}bn{number}', outputs)
      if not i:
        yield f'{block}downsample.0.weight', (4 * width, inputs, 1, 1)
        yield from norm(f'{block}downsample.1', 4 * width)
      inputs = 4 * width
  yield from (('fc.weight', (1000, inputs)), ('fc.bias', (1000,)))


def values(number, name, shape):
  """Returns an array of the golden model, by its formula."""
  wave = noise(number, shape)
  if name.endswith('num_batches_tracked'):
    return np.zeros(shape, np.int64)
  if name.endswith('running_var'):
    wave = 1.5 + wave / 2
  elif len(shape) == 4:
    wave = wave * math.sqrt(6 / math.prod(shape[1:]))
  elif len(shape) == 1 and name.endswith('weight'):
    wave = 0.6 + wave / 10
  else:
    wave = wave / 10 if len(shape) == 1 else wave / 50
  return wave.astype(np.float32)


def arrays(config):
  shapes = dict(torchvision_shapes(config))
  return {n: values(k, n, shapes[n]) for k, n in enumerate(sorted(shapes))}


def write(path, state):
  write_state_dict(path, {name: contiguous(array) for name, array in state.items()})
  return open_source(path)


@pytest.fixture(scope='module')
def source(tmp_path_factory):
  return write(
    tmp_path_factory.mktemp('resnet') / 'resnet50.pth', arrays(ResNetConfig())
  )


@pytest.mark.parametrize('mode', ['inference', 'training'])
def test_torchvision(golden, source, mode):
  """Also timm's: its outputs of these parameters are torchvision's to the bit."""
  found = {f'params/{path}': w.read() for path, w in source.weights.items()}
  found |= {path: w.read() for path, w in source.collections.items()}
  tree = traverse_util.unflatten_dict(found, sep='/')
  variables = jax.tree.map(jnp.asarray, {n: t['resnet'] for n, t in tree.items()})
  images = noise(0, (4, 3, 64, 96)).transpose(0, 2, 3, 1)
  images = jnp.asarray(images, jnp.float32)
  outputs, changed = ResNet(ResNetConfig(), jnp.dtype('float32')).apply(
    variables, images, train=mode == 'training', mutable=['batch_stats']
  )
  expected = golden[mode]
  tolerance = 1e-4 if mode == 'training' else 1e-5
  np.testing.assert_allclose(
    outputs.mean(-1), expected['mean_by_position'], rtol=tolerance
  )
  np.testing.assert_allclose(
    outputs[0, 0, 0, :8],
    expected['first_channels'],
    rtol=0,
    atol=1e-3 if mode == 'training' else 1e-5,
  )
  if mode == 'inference':
    return
  statistics = changed['batch_stats']
  for name, module in (
    ('bn1', statistics['bn1']),
    ('layer2.0.downsample.1', statistics['stage1_0']['downsample_bn']),
    ('layer4.2.bn3', statistics['stage3_2']['bn3']),
  ):
    for theirs, ours in (('running_mean', 'mean'), ('running_var', 'var')):
      if wanted := expected['statistics'].get(f'{name}.{theirs}'):
        np.testing.assert_allclose(module[ours].sum(), wanted['sum'], rtol=1e-5)
        np.testing.assert_allclose(
          module[ours][:4], wanted['first'], rtol=1e-5, atol=1e-5
        )


def test_parameters_are_counted_as_published(source):
  variables = jax.eval_shape(lambda: init_variables(ResNetConfig(), jax.random.key(0)))
  assert sum(a.size for a in jax.tree.leaves(nn.unbox(variables)['params'])) == (
    23_508_032
  )
  used = len(source.weights) + len(source.collections) + len(source.ignored)
  assert used == 320


SMALL = ResNetConfig((1, 1, 1, 1), 4)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (lambda a: a.pop('layer3.0.conv2.weight'), 'lacks resnet/stage2_0/conv2/kernel'),
    (
      lambda a: a.pop('bn1.running_var'),
      'lacks batch_stats/resnet/bn1/var',
    ),
    (lambda a: a.update({'layer5.0.conv1.weight': a['conv1.weight']}), 'has no place'),
    (
      lambda a: [a.pop(n) for n in list(a) if n.startswith('layer4')],
      'not a whole ResNet',
    ),
  ],
)
def test_other_architectures_are_refused_by_name(tmp_path, change, message):
  state = arrays(SMALL)
  change(state)
  with pytest.raises(InputError, match=message):
    write(tmp_path / 'x.pth', state)


def test_statistics_are_loaded_too(source):
  found = load(source.path)
  assert found.keys() == {'resnet', 'batch_stats'}
  assert found['batch_stats']['resnet']['bn1']['var'].shape == (64,)


def test_version_1_is_refused(tmp_path):
  fields = {'model_type': 'resnet', 'downsample_in_bottleneck': True}
  (tmp_path / 'config.json').write_text(json.dumps(fields))
  arrays = {'resnet.x': np.zeros(1, np.float32)}
  safetensors.numpy.save_file(arrays, tmp_path / 'model.safetensors')
  with pytest.raises(InputError, match='downsample_in_bottleneck is True'):
    open_source(tmp_path)
