"""The parameters of every config with a RAHF, as recorded in `tests/parameters`.

A change of the model shows as a difference. If it is intended, rewrite the tables:

  python -m tests.test_parameters
"""

import collections
import importlib
import inspect
import math
import pathlib
import re

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from rahf.config import model_config
from rahf.config.settings import RAHF_TASKS
from rahf.models.rahf import RAHF, VARIANTS
from rahf.models.t5 import T5, T5Config
from rahf.models.vit import ViT, ViTConfig

ROOT = pathlib.Path(__file__).parents[1]
FOLDER = ROOT / 'tests' / 'parameters'
FLOAT32 = jnp.dtype('float32')


def models() -> dict[str, tuple[str, ...]]:
  """Returns the name of each table, with its config and the config's arguments."""
  found = {}
  for path in sorted(ROOT.glob('configs/[!_]*.py')):
    module = importlib.import_module(f'configs.{path.stem}')
    # The model of captions is that of another config; see tests/tasks/test_captions.py.
    if module.get_config().task not in {*RAHF_TASKS} - {'captions'}:
      continue
    if inspect.signature(module.get_config).parameters:
      found |= {f'{path.stem}_{variant}': (path.stem, variant) for variant in VARIANTS}
    else:
      found[path.stem] = (path.stem,)
  return found


def table(name: str, *arguments: str) -> str:
  """Returns a line for each parameter with sizes and axes; equal layers share one."""
  module = importlib.import_module(f'configs.{name}')
  leaves = parameters(module.get_config(*arguments))
  assert {str(leaf.value.dtype) for leaf in leaves.values()} == {'float32'}
  groups = collections.defaultdict(dict)
  for path, leaf in leaves.items():
    group, _, inside = path.partition('/')
    groups[group][inside] = leaf
  alike = collections.defaultdict(list)
  for group, inside in groups.items():
    kind = re.sub('_head_.*', '_head', group)
    alike[kind, count(inside), '\n'.join(folded(inside))].append(group)
  parts = []
  for (_, number, lines), names in alike.items():
    each = ' each' if len(names) > 1 else ''
    parts.append(f'{", ".join(names)}: {number:,}{each}\n{lines}\n')
  return '\n'.join([f'{count(leaves):,} parameters, all float32\n', *parts])


def parameters(config) -> dict[str, nn.LogicallyPartitioned]:
  """Returns shapes and axes by path, without allocating arrays."""
  model = model_config(config)
  size = model.image_size
  boxed = jax.eval_shape(
    lambda: RAHF(model).init(
      jax.random.key(0),
      jnp.zeros((1, size, size, 3)),
      jnp.ones((1, model.texts, 1), jnp.int32),
      jnp.ones((1, 1), jnp.int32),
      train=False,
    )
  )
  flat = jax.tree_util.tree_leaves_with_path(
    boxed['params'], is_leaf=lambda leaf: isinstance(leaf, nn.LogicallyPartitioned)
  )
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): leaf for path, leaf in flat
  }


def count(leaves) -> int:
  return sum(math.prod(leaf.value.shape) for leaf in leaves.values())


def folded(leaves) -> list[str]:
  """Returns a line for each path, or for all equal layers of it."""
  numbers = collections.defaultdict(list)
  for path, leaf in leaves.items():
    sizes = [
      f'{size} {axis or "-"}'
      for size, axis in zip(leaf.value.shape, leaf.names, strict=True)
    ]
    layer = re.search(r'(?:encoderblock|layers)_(\d+)/', path)
    shown = path.replace(layer[0], layer[0].replace(layer[1], '*')) if layer else path
    numbers[shown, ', '.join(sizes)].append(int(layer[1]) if layer else 0)
  lines = []
  for (path, sizes), layers in sorted(numbers.items()):
    assert layers.sort() or layers == list(range(len(layers))), path
    lines.append(f'  {path.replace("*", f"{{0..{layers[-1]}}}")}: {sizes}')
  return lines


@pytest.mark.parametrize('name', models())
def test_every_config_has_the_parameters_of_its_table(name):
  found = table(*models()[name])
  assert found == (FOLDER / f'{name}.txt').read_text()


def test_every_table_belongs_to_a_config():
  assert sorted(path.stem for path in FOLDER.iterdir()) == sorted(models())


def test_the_variants_have_the_same_layers():
  one, other = (
    re.findall('^  .*', (FOLDER / f'{name}.txt').read_text(), re.MULTILINE)
    for name in VARIANTS
  )
  assert one == other


# Hugging Face and timm publish these (ViTs without classifier, at 224 px).
SMALL = dict(width=512, heads=8, mlp=2048, encoder_layers=6, decoder_layers=6)
SMALL_1_1 = dict(width=512, heads=6, mlp=1024, encoder_layers=8, decoder_layers=8)
LARGE = dict(width=1024, heads=16, mlp=4096, encoder_layers=24, decoder_layers=24)
V1_0 = dict(activations=('relu',), tied_logits=True)
PUBLISHED_T5 = {
  '1.0 small': (T5Config(**SMALL, **V1_0), 60_506_624),
  '1.0 base': (T5Config(mlp=3072, **V1_0), 222_903_552),
  '1.0 large': (T5Config(**LARGE, **V1_0), 737_668_096),
  '1.1 small': (T5Config(**SMALL_1_1), 76_961_152),
  '1.1 base': (T5Config(), 247_577_856),
  '1.1 large': (T5Config(**LARGE | dict(mlp=2816)), 783_150_080),
}
PUBLISHED_VIT = {
  'B/16': (ViTConfig(), 85_798_656),
  'L/16': (ViTConfig(width=1024, layers=24, heads=16, mlp=4096), 303_301_632),
}


def size(variables) -> int:
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables))


@pytest.mark.parametrize('name', PUBLISHED_T5)
def test_t5_has_as_many_parameters_as_published(name):
  config, expected = PUBLISHED_T5[name]

  def read(t5: T5) -> jax.Array:
    tokens, mask = jnp.ones((1, 1), jnp.int32), jnp.ones((1, 1), bool)
    fused = t5.encode(t5.embed(tokens), mask, train=False)
    return t5.decode(fused, mask, tokens, train=False)

  t5 = T5(config, 0.0, FLOAT32)
  shapes = jax.eval_shape(lambda: t5.init(jax.random.key(0), method=read))
  assert size(shapes) == expected


@pytest.mark.parametrize('name', PUBLISHED_VIT)
def test_vit_has_as_many_parameters_as_published(name):
  config, expected = PUBLISHED_VIT[name]
  vit, image = ViT(config, 0.0, FLOAT32), jnp.zeros((1, 224, 224, 3))
  shapes = jax.eval_shape(lambda: vit.init(jax.random.key(0), image, train=False))
  assert size(shapes) == expected


def main() -> None:
  FOLDER.mkdir(exist_ok=True)
  for path in FOLDER.iterdir():
    path.unlink()
  for name, call in models().items():
    (FOLDER / f'{name}.txt').write_text(table(*call))


if __name__ == '__main__':
  main()
