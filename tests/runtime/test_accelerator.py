"""The platform that JAX starts on, and the error if a GPU or TPU is missing.

These run the real JAX in fresh processes, with an empty plugin for NVIDIA GPUs.
"""

import os
import pathlib
import subprocess
import sys
import types

import jax
import pytest

import rahf
import tiny_directory
from rahf.errors import InputError
from rahf.runtime import accelerator
from rahf.runtime.accelerator import Wanted

ROOT = pathlib.Path(rahf.__file__).parents[1]
START = 'from rahf.runtime import accelerator as a; print(a.start(a.choose()))'


@pytest.fixture(scope='module')
def directory(tmp_path_factory):
  return tiny_directory.write(tmp_path_factory.mktemp('models'))


@pytest.fixture(scope='module')
def plugin(tmp_path_factory) -> str:
  """A folder for PYTHONPATH, with a GPU plugin that registers no GPU."""
  folder = tmp_path_factory.mktemp('plugin')
  about = folder / 'jax_cuda13_pjrt-0.1.dist-info'
  about.mkdir()
  (about / 'METADATA').write_text('Name: jax-cuda13-pjrt\nVersion: 0.1\n')
  (about / 'entry_points.txt').write_text(
    '[jax_plugins]\nxla_cuda13 = jax_plugins.xla_cuda13\n'
  )
  module = folder / 'jax_plugins' / 'xla_cuda13'
  module.mkdir(parents=True)
  (module / '__init__.py').write_text('def initialize():\n  pass\n')
  return str(folder)


def run(*arguments: str, path: str = '', **environment: str):
  """Runs Python from the project's root, without settings for JAX."""
  unset = ('JAX_PLATFORMS', 'XLA_FLAGS')
  kept = {name: value for name, value in os.environ.items() if name not in unset}
  kept['PYTHONPATH'] = os.pathsep.join(filter(None, (path, str(ROOT))))
  return subprocess.run(
    [sys.executable, *arguments],
    capture_output=True,
    text=True,
    env=kept | environment,
    cwd=ROOT,
  )


def main(*arguments: str, **more: str):
  given = ('--mode=infer', '--input=none', '--output=none', '--workdir=none')
  return run('-m', 'rahf.main', *given, *arguments, **more)


def assert_refused(found, *parts: str) -> None:
  assert found.returncode == 2, found
  assert found.stdout == ''
  lines = found.stderr.splitlines()
  assert lines[0].startswith('error: JAX finds no ')
  assert lines[1:] == ['(set RAHF_TRACEBACK=1 to see the traceback)']
  for part in parts:
    assert part in lines[0]


@pytest.mark.skipif(accelerator._may_have('tpu'), reason='there may be a TPU')
def test_libtpu_without_a_tpu_prints_nothing():
  assert accelerator._is_installed('libtpu')
  found = run('-c', START)
  assert (found.stdout, found.stderr) == ('1 CPU device\n', '')


def test_what_is_installed_for_gpus_does_not_compute_on_a_cpu(plugin):
  reason = "although JAX's plugin for NVIDIA GPUs is installed (the extra `cuda`)"
  assert_refused(main(path=plugin), 'JAX finds no GPU', reason, 'JAX_PLATFORMS=cpu in')


def test_an_installation_for_gpus_runs_on_a_cpu_if_asked(plugin):
  for result in (
    main(path=plugin, JAX_PLATFORMS='cpu'),
    main('--config=tests/tiny.py', '--config.platform=cpu', path=plugin),
  ):
    assert result.stdout.splitlines()[0] == 'Running on 1 CPU device'
    # It continues, and looks for the model.
    assert result.stderr.startswith('error: none has no exported model')


@pytest.mark.parametrize('platforms', ['cuda', 'cuda,cpu', 'gpu', 'tpu', 'tpu,cpu'])
def test_the_platform_that_jax_is_set_to_is_required(platforms):
  name = 'TPU' if 'tpu' in platforms else 'GPU'
  if accelerator._may_have(name.lower()):
    pytest.skip(f'there may be a {name}')
  found = main(JAX_PLATFORMS=platforms)
  assert_refused(
    found, f'JAX finds no {name} here, although JAX is set to use {platforms};'
  )


def test_the_platform_of_the_config_is_required():
  given = '--config=tests/tiny.py', '--config.platform=gpu'
  found = main(*given, JAX_PLATFORMS='cpu')
  reason = "config.platform = 'gpu' and JAX is set to use cpu"
  assert_refused(found, reason, 'instead, set --config.platform=cpu')


def test_export_needs_no_accelerator(plugin):
  given = '--config=tests/tiny.py', '--mode=export', '--workdir=none'
  found = run('-m', 'rahf.main', *given, path=plugin)
  assert found.stdout == ''
  assert found.stderr.startswith('error: ')
  assert 'none has no checkpoint to export' in found.stderr


def test_models_and_rewards_in_python(directory, plugin):
  code = f"""
import jax, rahf
for make in (rahf.load, rahf.reward):
  try:
    make({str(directory)!r})
  except ValueError as error:
    print(error)
print(rahf.reward({str(directory)!r}, device='cpu').params.keys())
print(rahf.load({str(directory)!r}, devices=jax.devices()).buckets)
"""
  found = run('-c', code, path=plugin)
  load, reward, keys, buckets = found.stdout.splitlines()
  assert load.startswith('JAX finds no GPU here, although')
  assert reward.endswith("; or create the reward with device='cpu'")
  assert 'vit' in keys
  assert buckets == '(1, 4, 16, 64)'
  assert found.stderr == 'The reward is on the CPU\n'


@pytest.mark.parametrize(('there', 'kind'), [(True, 'OSError'), (False, 'InputError')])
def test_jax_that_does_not_start(tmp_path, there, kind):
  """If there is hardware, a retry may succeed, so it is not the user's mistake."""
  (tmp_path / 'accel0').touch()
  files = {'gpu': (), 'tpu': (str(tmp_path / 'accel*'),) if there else ()}
  code = f"""
from rahf.runtime import accelerator
accelerator._FILES = {files}
try:
  accelerator.start(accelerator.choose())
except Exception as error:
  print(type(error).__name__, error)
"""
  found = run('-c', code, JAX_PLATFORMS='metal')
  name, text = found.stdout.split(maxsplit=1)
  assert name == kind
  assert text.startswith("JAX cannot start on metal: Unable to initialize backend 'me")
  assert 'instead, set JAX_PLATFORMS=cpu' in text


@pytest.mark.parametrize(
  ('installed', 'plugins', 'platforms'),
  [
    ((), (), ()),
    (('libtpu',), (), ('tpu',)),
    # The extra `test`.
    (('libtpu', 'pytest'), (), ()),
    ((), ('xla_cuda12',), ('gpu',)),
    (('libtpu', 'pytest'), ('xla_cuda13',), ('gpu',)),
    # Either will do.
    (('libtpu',), ('xla_cuda13',), ('gpu', 'tpu')),
    ((), ('other',), ()),
  ],
)
def test_the_platform_that_jax_was_installed_for(
  monkeypatch, installed, plugins, platforms
):
  monkeypatch.setattr(accelerator, '_is_installed', lambda name: name in installed)
  found = [types.SimpleNamespace(name=name) for name in plugins]
  monkeypatch.setattr('importlib.metadata.entry_points', lambda group: found)
  before = jax.config.jax_platforms
  try:
    jax.config.update('jax_platforms', '')
    wanted = accelerator.choose()
    assert wanted.platforms == platforms
    assert accelerator.choose(required=False) == Wanted()
    # JAX has started, and has CPUs.
    if platforms:
      name = platforms[0].upper()
      with pytest.raises(InputError, match=f'finds no {name}.* although'):
        accelerator.start(wanted)
    else:
      assert accelerator.start(wanted) == '8 CPU devices'
  finally:
    jax.config.update('jax_platforms', before)


def test_devices_are_counted_by_kind():
  kinds = ['TPU v5 lite'] * 3 + ['NVIDIA H100']
  found = [types.SimpleNamespace(platform='gpu', device_kind=kind) for kind in kinds]
  assert accelerator.describe(found) == '3 TPU v5 lite devices and 1 NVIDIA H100 device'


def test_libtpu_is_loaded_if_there_may_be_a_tpu(monkeypatch, tmp_path):
  """A device file means that there may be one."""
  changed = []
  monkeypatch.setattr(accelerator, 'has_started', lambda: False)
  monkeypatch.setattr(jax.config, 'update', lambda *change: changed.append(change))
  monkeypatch.setattr(accelerator, '_has_cuda_plugin', lambda: False)
  file = tmp_path / 'accel0'
  monkeypatch.setitem(accelerator._FILES, 'tpu', (str(tmp_path / 'accel*'),))
  accelerator.choose()
  assert jax.config.jax_platforms == 'cpu'
  assert changed == []
  monkeypatch.setattr(type(jax.config), 'jax_platforms', None, raising=False)
  accelerator.choose()
  assert changed == [('jax_platforms', 'cpu')]
  file.touch()
  accelerator.choose()
  assert len(changed) == 1
