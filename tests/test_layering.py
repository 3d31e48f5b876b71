"""Imports between folders point downwards, and are never circular."""

import ast
import graphlib
import pathlib
import subprocess
import sys

import pytest

import rahf

ROOT = pathlib.Path(rahf.__file__).parent
FILES = sorted(ROOT.rglob('*.py'))
# Folders and root files, from top to bottom. Each imports only from lines below,
# not from its own.
LAYERS = [
  {'__init__', 'main', 'improve'},
  {
    'train',
    'evaluate',
    'compare',
    'infer',
    'generate',
    'export',
    'precompile',
    'annotate',
    'best',
    'rank',
    'judge',
    'serve',
  },
  {'tasks', 'annotation'},
  {'training', 'learning', 'service'},
  {'reports', 'inference'},
  {'evaluation', 'workdir'},
  {'config'},
  {'data'},
  {'runtime', 'pretrained', 'drawing'},
  {'models', 'metrics', 'costs'},
  {'fileio'},
  {'errors', 'version'},
]
RANKS = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
TENSORFLOW = {'tensorflow', 'tensorflow_datasets', 'tensorboard'}
OPTIONAL = TENSORFLOW | {
  *('alembic', 'fastapi', 'matplotlib', 'pyarrow', 'sqlalchemy', 'tokenizers', 'torch')
}
USES_TENSORFLOW = ('data', 'reports/tensorboard.py')


def imports(path: pathlib.Path) -> set[str]:
  """Returns the full names of all imports of a file, including those in functions."""
  names = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      names |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f'{path}: relative imports hide the folder'
      names |= {f'{node.module}.{alias.name}' for alias in node.names}
  return names


def folder(path: pathlib.Path) -> str:
  return path.relative_to(ROOT).parts[0].removesuffix('.py')


def module(path: pathlib.Path) -> str:
  parts = path.relative_to(ROOT.parent).with_suffix('').parts
  return '.'.join(parts).removesuffix('.__init__')


def test_every_folder_is_listed():
  assert {folder(path) for path in FILES} == RANKS.keys()
  assert len([*ROOT.iterdir()]) <= 35 + (ROOT / '__pycache__').exists()


@pytest.mark.parametrize('path', FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path: pathlib.Path):
  here = folder(path)
  # The command of a folder, which nothing imports.
  rank = RANKS['train'] if path.name == '__main__.py' else RANKS[here]
  for name in imports(path):
    if name.startswith('rahf.'):
      there = name.split('.')[1]
      assert there == here or RANKS[there] > rank, f'{path} imports {name}'


def test_no_circles():
  known = {module(path) for path in FILES}
  graph = {
    module(path): {
      name if name in known else name.rpartition('.')[0]
      for name in imports(path)
      if name.startswith('rahf.')
    }
    for path in FILES
    # `rahf/__init__.py` imports inside functions, after everything else.
    if module(path) != 'rahf'
  }
  graphlib.TopologicalSorter(graph).prepare()


@pytest.mark.parametrize('path', FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_tensorflow_is_for_data_and_tensorboard(path: pathlib.Path):
  if str(path.relative_to(ROOT)).startswith(USES_TENSORFLOW):
    return
  found = {name for name in imports(path) if name.split('.')[0] in TENSORFLOW}
  assert not found, f'{path} imports {found}'


def test_the_checks_find_forbidden_imports(tmp_path: pathlib.Path):
  file = tmp_path / 'x.py'
  file.write_text(
    'def f():\n  import tensorflow as tf\n  from rahf.data import images\n'
  )
  assert imports(file) == {'tensorflow', 'rahf.data.images'}


def test_scoring_and_exporting_need_only_the_core_packages():
  """In a fresh interpreter, as in an environment with none of the extras."""
  code = (
    'import sys, rahf, rahf.main, rahf.models.rahf, rahf.tasks, rahf.training.setup\n'
    'from rahf import annotate, best, evaluate, generate, improve, judge, rank, serve\n'
    f"print({OPTIONAL} & {{name.split('.')[0] for name in sys.modules}})"
  )
  found = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT.parent
  )
  assert found.stdout.strip() == 'set()', found.stderr
