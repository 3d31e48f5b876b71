"""Imports point down: verbs, then what they share, then models, metrics and data."""

import ast
import pathlib
import subprocess
import sys

import pytest

import rahf

ROOT = pathlib.Path(rahf.__file__).parent
# From the top; a module may import modules of lower layers, and of its own.
LAYERS = [
  {'main'},
  {
    *('train', 'evaluate', 'infer', 'export', 'export_weights', 'precompile'),
    *('annotate', 'serve'),
  },
  {'report', 'crowd', 'rewards', 'service'},
  {'ceiling', 'gallery', 'page'},
  {'artifact', 'card', 'compare', 'experiment', 'feedback', 'scorecard'},
  {'comparison', 'model_directory', 'model_files', 'output'},
  {'samples'},
  {
    *('blueprint', 'checkpoint', 'checksums', 'config', 'contents', 'devices'),
    *('distributed', 'finite', 'inference', 'interruption', 'journal', 'legend'),
    *('losses', 'optimizer', 'pace', 'panels', 'pretrained', 'result'),
    *('review', 'sharding', 'state', 'step', 'synthetic', 'tables'),
    *('torch_gradient', 'typesetting', 'work_directory'),
  },
  {'models', 'metrics', 'data', 'costs', 'charts'},
  {'atomic', 'digests', 'locks', 'places', 'rules', 'strict_json', 'tree'},
  {'errors'},
]
RANKS = {room: rank for rank, layer in enumerate(LAYERS) for room in layer}
# What the lowest rooms may know of each other: data measures what its generated
# labels are worth, and draws what it holds.
NEIGHBOURS = {
  **{'models': set(), 'metrics': set(), 'costs': set(), 'charts': set()},
  'data': {'metrics', 'charts'},
}
TENSORFLOW = {'tensorflow', 'tensorflow_datasets', 'tensorboard'}


def imports(path: pathlib.Path, *, at_once: bool = False) -> set[str]:
  """Returns the full names of all that a file imports, inside functions too.

  Args:
    at_once: leave out what is imported inside functions.
  """
  names = set()
  tree = ast.parse(path.read_text())
  for node in tree.body if at_once else ast.walk(tree):
    if isinstance(node, ast.Import):
      names |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f'{path}: relative imports hide the layer'
      names |= {f'{node.module}.{alias.name}' for alias in node.names}
  return names


def room(path: pathlib.Path) -> str:
  return path.relative_to(ROOT).parts[0].removesuffix('.py')


FILES = sorted(ROOT.rglob('*.py'))


@pytest.mark.parametrize('path', FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path):
  here = room(path)
  if here == '__init__':
    assert not imports(path, at_once=path.parent == ROOT)
    return
  assert here in RANKS, f'{here} is in no layer: put it into LAYERS'
  for name in imports(path):
    if not name.startswith('rahf.'):
      continue
    there = name.split('.')[1]
    if there == here:
      continue
    if RANKS[there] == RANKS[here] and here in NEIGHBOURS:
      assert there in NEIGHBOURS[here], f'{path} imports {name}'
    else:
      assert RANKS[there] >= RANKS[here], f'{path} imports {name}'


@pytest.mark.parametrize('path', FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_tensorflow_is_for_data_and_review(path):
  if room(path) in ('data', 'review'):
    return
  found = {name for name in imports(path) if name.split('.')[0] in TENSORFLOW}
  assert not found, f'{path} imports {found}'


def test_the_checks_find_what_is_forbidden(tmp_path):
  file = tmp_path / 'x.py'
  file.write_text(
    'def f():\n  import tensorflow as tf\n  from rahf.data import images\n'
  )
  assert imports(file) == {'tensorflow', 'rahf.data.images'}


def test_the_model_needs_no_tensorflow():
  """In a fresh interpreter: scoring must not load it."""
  code = (
    'import sys, rahf, rahf.models.rahf, rahf.losses, rahf.step\n'
    "print([m for m in sys.modules if m.split('.')[0].startswith('tensorflow')])"
  )
  found = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT.parent
  )
  assert found.stdout.strip() == '[]', found.stderr
