"""Checkpoints: exact restores, damage, and directories of other runs."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from etils import epath
from jax.sharding import NamedSharding, PartitionSpec

from rahf.config import default_config
from rahf.errors import InputError
from rahf.runtime import sharding
from rahf.training.state import TrainState
from rahf.workdir.checkpoint import Checkpoints, DamagedCheckpointError, read_params
from rahf.workdir.ownership import check_workdir, claim_workdir, is_started

MESH = dict(data=2, fsdp=2, tensor=2)


def make_state(mesh: dict[str, int] = MESH, **changes) -> TrainState:
  """Returns values that rounding would change, sharded over the mesh."""
  place = NamedSharding(sharding.make_mesh(mesh), PartitionSpec('fsdp', 'tensor'))
  kernel = np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32)
  kernel[0] = [0.1, -0.0, 1e-40, np.nan, np.inf, -np.inf, 3e38, 1 / 3]
  params = {'vit': {'kernel': jax.device_put(kernel, place)}} | changes
  moments = (jnp.int32(7), {'mu': jax.tree.map(lambda x: x * 3, params)})
  return TrainState(jnp.int32(5), params, moments)


def describe(state: TrainState) -> TrainState:
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
  )


@pytest.fixture
def workdir(tmp_path):
  return epath.Path(tmp_path / 'run')


@pytest.fixture
def saved(workdir):
  """A work directory with a checkpoint of step 5."""
  checkpoints = Checkpoints(workdir)
  checkpoints.save(5, make_state())
  checkpoints.close()
  return workdir


@pytest.mark.parametrize('mesh', [MESH, dict(data=1, fsdp=8, tensor=1)])
def test_restores_every_bit_on_any_mesh(saved, mesh):
  state = make_state(mesh)
  restored = Checkpoints(saved).restore(5, describe(state))
  assert jax.tree.structure(restored) == jax.tree.structure(state)
  for one, other in zip(jax.tree.leaves(restored), jax.tree.leaves(state), strict=True):
    assert one.dtype == other.dtype
    assert np.asarray(one).tobytes() == np.asarray(other).tobytes()
    assert one.sharding == other.sharding


@pytest.mark.parametrize(
  ('kernel', 'message'),
  [
    (jnp.zeros((8, 4)), r'float32\[8, 8\], but the model has float32\[8, 4\]'),
    # Orbax would silently cast.
    (
      jnp.zeros((8, 8), jnp.bfloat16),
      r'float32\[8, 8\], but the model has bfloat16\[8, 8\]',
    ),
  ],
)
def test_refuses_another_shape_or_dtype(saved, kernel, message):
  other = make_state(vit={'kernel': kernel})
  with pytest.raises(InputError, match=f'vit/kernel is {message}'):
    Checkpoints(saved).restore(5, describe(other))


def test_refuses_other_names(saved):
  more = make_state(t5={'kernel': jnp.zeros(2)})
  message = r'checkpoints/5: .*t5/kernel is missing, but the model has float32\[2\]'
  with pytest.raises(InputError, match=message):
    Checkpoints(saved).restore(5, describe(more))
  fewer = make_state()
  fewer = fewer.replace(params={})
  with pytest.raises(InputError, match='but the model has no such array'):
    Checkpoints(saved).restore(5, describe(fewer))


def test_an_empty_directory_is_not_a_checkpoint(saved):
  (saved / 'checkpoints' / '9').mkdir()
  checkpoints = Checkpoints(saved)
  assert checkpoints.latest_step() == 5
  # A real checkpoint can replace it.
  checkpoints.save(9, make_state())
  checkpoints.close()
  assert Checkpoints(saved).latest_step() == 9


def test_a_run_is_started_once_a_checkpoint_is_complete(saved, workdir):
  assert is_started(saved)
  (saved / 'checkpoints' / '5').rename(saved / 'checkpoints' / '5.orbax-checkpoint-tmp')
  (saved / 'checkpoints' / '7').mkdir()
  assert not is_started(saved)
  assert not is_started(workdir / 'elsewhere')


def test_keeps_the_newest_checkpoints(workdir):
  checkpoints = Checkpoints(workdir, keep=2)
  assert checkpoints.latest_step() is None
  for step in (1, 2, 3):
    checkpoints.save(step, {'x': jnp.float32(step)})
  checkpoints.close()
  steps = {path.name for path in (workdir / 'checkpoints').iterdir()}
  assert {'2', '3'} <= steps
  assert '1' not in steps


def saved_steps(workdir):
  return sorted(int(path.name) for path in (workdir / 'checkpoints').iterdir())


def test_also_keeps_the_best(workdir):
  checkpoints = Checkpoints(workdir, keep=1)
  for step, best in ((1, None), (2, 1), (3, 1), (4, 3)):
    checkpoints.save(step, {'x': jnp.float32(step)}, best)
  checkpoints.close()
  assert saved_steps(workdir) == [3, 4]


def test_incomplete_checkpoints_do_not_count_as_kept(saved):
  for step in (8, 9):
    (saved / 'checkpoints' / str(step)).mkdir()
  checkpoints = Checkpoints(saved, keep=2)
  checkpoints.restore_newest(describe(make_state()))
  checkpoints.save(6, make_state())
  checkpoints.close()
  assert saved_steps(saved) == [5, 6, 8, 9]
  assert Checkpoints(saved).restore_newest(describe(make_state()))[0] == 6


def test_a_directory_with_another_config_is_refused_with_the_difference(workdir):
  config = default_config()
  check_workdir(workdir, config)
  with claim_workdir(workdir, config, started=False):
    pass
  check_workdir(workdir, config)
  other = default_config()
  other.seed = 3
  other.model.vit.width = 96
  with pytest.raises(InputError, match='holds a run with another config') as error:
    check_workdir(workdir, other)
  lines = [line.strip() for line in str(error.value).splitlines()]
  assert 'config.seed: 0 there, 3 here' in lines
  assert 'config.model.vit.width: 768 there, 96 here' in lines
  assert len(lines) == 4


def test_a_directory_from_before_a_setting_existed(workdir):
  with claim_workdir(workdir, default_config(), started=False):
    pass
  settings = json.loads((workdir / 'config.json').read_text())
  del settings['platform'], settings['train']['max_skipped']
  (workdir / 'config.json').write_text(json.dumps(settings))
  config = default_config()
  config.platform = 'tpu'
  check_workdir(workdir, config)


def test_settings_that_do_not_affect_training_may_change(workdir):
  with claim_workdir(workdir, default_config(), started=False):
    pass
  config = default_config()
  config.platform = 'cpu'
  config.mesh.update(data=2, fsdp=4)
  config.eval.update(every=7, split='test')
  config.data.dir = 'elsewhere'
  config.train.log_every = 1
  config.train.checkpoint_every = 10
  check_workdir(workdir, config)
  config.train.steps += 1
  with pytest.raises(InputError, match=r'config\.train\.steps'):
    check_workdir(workdir, config)


def test_a_missing_field_counts_as_its_default(workdir):
  config = default_config()
  with claim_workdir(workdir, config, started=False):
    pass
  path = workdir / 'config.json'
  older = json.loads(path.read_text())
  del older['data']['mixture'], older['review'], older['model']['vit']['gelu']
  path.write_text(json.dumps(older))
  check_workdir(workdir, config)
  config.model.vit.gelu = 'exact'
  with pytest.raises(InputError, match="gelu: 'tanh' there, 'exact' here"):
    check_workdir(workdir, config)


def test_in_a_bucket_the_last_file_marks_completion(saved, monkeypatch):
  """There, a checkpoint is written under its final name."""
  monkeypatch.setattr(ocp.utils, 'is_checkpoint_finalized', lambda path: False)
  assert not is_started(saved)
  assert Checkpoints(saved).latest_step() is None


def _largest(step):
  return max(
    (p for p in step.rglob('*') if p.is_file()), key=lambda p: p.stat().st_size
  )


def _flip(path):
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 1
  path.write_bytes(data)


def _cut(path):
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _without_metadata(path):
  next(path.parents[2].rglob('_METADATA')).unlink()


@pytest.mark.parametrize('spoil', [_flip, _cut, pathlib.Path.unlink, _without_metadata])
def test_a_damaged_checkpoint_is_skipped_and_moved_away(workdir, capsys, spoil):
  noise = np.random.default_rng(0).normal(size=(2, 64, 64)).astype(np.float32)
  states = {
    step: make_state(vit={'kernel': jnp.asarray(noise[step])}) for step in (0, 1)
  }
  checkpoints = Checkpoints(workdir)
  for step, state in states.items():
    checkpoints.save(step, state)
  checkpoints.close()
  newest = pathlib.Path(workdir / 'checkpoints/1')
  spoil(_largest(newest))
  with pytest.raises(DamagedCheckpointError, match=r'checkpoints/1.*which skips it'):
    Checkpoints(workdir).restore(1, describe(states[1]))
  # With keep=1, the damaged one could push out the intact one.
  checkpoints = Checkpoints(workdir, keep=1)
  step, state = checkpoints.restore_newest(describe(states[0]))
  assert step == 0
  np.testing.assert_array_equal(state.params['vit']['kernel'], noise[0])
  assert f'damaged checkpoint to {workdir}/damaged/1: ' in capsys.readouterr().out
  assert (workdir / 'damaged/1').exists()
  # The step can be saved again.
  checkpoints.save(1, states[1])
  checkpoints.close()
  assert Checkpoints(workdir).restore_newest(describe(states[1]))[0] == 1


@pytest.mark.parametrize('spoil', [_flip, _cut, pathlib.Path.unlink, _without_metadata])
def test_parameters_are_not_read_from_a_damaged_checkpoint(workdir, spoil):
  noise = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
  checkpoints = Checkpoints(workdir)
  checkpoints.save(5, {'params': {'kernel': jnp.array(noise)}, 'count': jnp.int32(5)})
  checkpoints.close()
  abstract = {'kernel': jax.ShapeDtypeStruct(noise.shape, noise.dtype)}
  np.testing.assert_array_equal(read_params(workdir, 5, abstract)['kernel'], noise)
  spoil(_largest(pathlib.Path(workdir / 'checkpoints/5')))
  with pytest.raises(DamagedCheckpointError, match=r'checkpoints/5.*copy it again'):
    read_params(workdir, 5, abstract)


def test_when_none_is_intact_the_error_says_what_to_do(saved):
  _cut(_largest(pathlib.Path(saved / 'checkpoints/5')))
  with pytest.raises(InputError, match=r'no checkpoint can be read.*start over'):
    Checkpoints(saved).restore_newest(describe(make_state()))
  # Kept, since the storage may only be unavailable for now.
  assert (saved / 'checkpoints/5').exists()
  with pytest.raises(InputError, match='no checkpoint can be read: there is none'):
    Checkpoints(saved / 'other').restore_newest(describe(make_state()))


def test_another_model_is_not_damage(saved):
  with pytest.raises(InputError, match='another config'):
    Checkpoints(saved).restore_newest(describe(make_state(t5={'k': jnp.zeros(2)})))
  assert not (saved / 'damaged').exists()


def _change_metadata(workdir, change):
  path = workdir / 'checkpoints/5/_CHECKPOINT_METADATA'
  metadata = json.loads(path.read_text())
  change(metadata)
  path.write_text(json.dumps(metadata))


def _drop_an_array(metadata):
  del metadata['custom_metadata']['arrays']['params/vit/kernel']


def _change_a_checksum(metadata):
  metadata['custom_metadata']['arrays']['params/vit/kernel'][1] += 1


def _spoil_the_rest(metadata):
  metadata['custom_metadata']['arrays'] = [1]


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (_drop_an_array, 'its arrays are not those that were saved'),
    (
      _change_a_checksum,
      'checksums of 1 arrays are wrong, .* params/vit/kernel;',
    ),
    (_spoil_the_rest, 'cannot be read'),
  ],
)
def test_mismatched_metadata_are_damage(saved, change, message):
  _change_metadata(saved, change)
  with pytest.raises(DamagedCheckpointError, match=message):
    Checkpoints(saved).restore(5, describe(make_state()))


@pytest.mark.parametrize('content', ['', '{"custom_metadata": {"form'])
def test_unreadable_metadata_are_damage(saved, content):
  (saved / 'checkpoints/5/_CHECKPOINT_METADATA').write_text(content)
  with pytest.raises(DamagedCheckpointError, match=r'checkpoints/5 cannot be read'):
    Checkpoints(saved).restore(5, describe(make_state()))


def test_metadata_of_a_newer_orbax_are_refused(saved):
  _change_metadata(saved, lambda metadata: metadata.update(from_the_future=1))
  with pytest.raises(InputError, match=r'unknown key from_the_future.*update yours'):
    Checkpoints(saved)


def test_a_checkpoint_of_a_newer_version_is_refused_and_kept(saved):
  def make_newer(metadata):
    metadata['custom_metadata'].update(format=2, rahf='9.9')

  _change_metadata(saved, make_newer)
  with pytest.raises(InputError, match=r'format 2, written by rahf 9\.9.*update it'):
    Checkpoints(saved).restore_newest(describe(make_state()))
  assert not (saved / 'damaged').exists()


def test_a_checkpoint_of_an_older_version_is_read_with_a_notice(saved, capsys):
  _change_metadata(saved, lambda metadata: metadata.pop('custom_metadata'))
  assert Checkpoints(saved).restore_newest(describe(make_state()))[0] == 5
  assert 'checkpoints/5 has no checksums' in capsys.readouterr().out
