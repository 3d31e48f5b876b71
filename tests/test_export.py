"""Exporting a work directory: complete, verified, atomic, replaceable."""

import json
import pathlib
import shutil

import numpy as np
import orbax.checkpoint as ocp
import pytest
import safetensors.numpy
from etils import epath

import rahf
import runs
import tiny
import tiny_model
from rahf import export, main
from rahf.data.storage.records import open_split
from rahf.data.tokenizer import tasks
from rahf.errors import InputError
from rahf.inference import model_directory, write_directory
from rahf.inference.model_directory import Description
from rahf.runtime.preemption import Interrupted, Interruption
from rahf.runtime.tree import by_path

FILES = {'README.md', 'model.json', 'model.safetensors', 'params', 'tokenizer.model'}


@pytest.fixture(scope='module')
def workdir(trained, tmp_path_factory) -> epath.Path:
  """A copy of a run of 4 steps, to export."""
  folder = epath.Path(tmp_path_factory.mktemp('runs') / 'run')
  shutil.copytree(trained, folder)
  return folder


@pytest.fixture(scope='module')
def config(data_dir):
  return tiny.get_config(data_dir)


@pytest.fixture(scope='module')
def exported(config, workdir) -> epath.Path:
  export.export(config, workdir, Interruption())
  return workdir / 'export'


@pytest.fixture
def copy(exported, tmp_path) -> pathlib.Path:
  """A copy of the model directory to damage."""
  return pathlib.Path(shutil.copytree(exported, tmp_path / 'copy'))


def change(folder: pathlib.Path, *keys: str, value) -> None:
  """Changes one field of model.json on purpose; a value of None removes it."""
  path = folder / 'model.json'
  settings = section = json.loads(path.read_text())
  settings.pop('sha256', None)
  for name in keys[:-1]:
    section = section[name]
  section[keys[-1]] = value
  if value is None:
    del section[keys[-1]]
  path.write_text(json.dumps(settings))


def test_parameters_are_those_of_the_newest_checkpoint(exported, workdir):
  stored = runs.read_checkpoint(workdir, 4)
  expected = {
    path.removeprefix('params/'): array
    for path, array in stored.items()
    if path.startswith('params/')
  }
  found = safetensors.numpy.load_file(exported / 'model.safetensors')
  with ocp.PyTreeCheckpointer() as checkpointer:
    by_orbax = by_path(checkpointer.restore(exported / 'params'))
  loaded = by_path(rahf.load(exported).params)
  assert found.keys() == expected.keys() == by_orbax.keys() == loaded.keys()
  for path, array in expected.items():
    for arrays in (found, by_orbax, loaded):
      np.testing.assert_array_equal(arrays[path], array)


def test_scores_are_those_of_the_evaluation(exported, workdir, config):
  """Compares with the samples file of training."""
  lines = (workdir / 'eval/dev-4.samples.jsonl').read_text().splitlines()
  expected = {sample['uid']: sample for sample in map(json.loads, lines)}
  settings = json.loads((workdir / 'config.json').read_text())
  (info,) = pathlib.Path(settings['data']['dir']).rglob(
    'shapes/*-12-61-3-*/*/dataset_info.json'
  )
  records = list(open_split(info.parent, 'dev'))
  assert len(records) == len(expected) == 61
  found = rahf.load(exported).score(
    [record.image for record in records], [record.prompt for record in records]
  )
  for record, one in zip(records, found, strict=True):
    sample = expected[record.uid]
    assert list(one.scores.values()) == pytest.approx(sample['predicted'], abs=1e-5)
    assert [word for word, _ in one.keywords] == list(record.tokens)
    p = [p for _, p in one.keywords]
    assert p == pytest.approx(sample['p_misaligned'], abs=1e-5)


def test_files_of_the_directory(exported, workdir):
  assert {path.name for path in exported.iterdir()} == FILES
  assert (exported / 'tokenizer.model').read_bytes() == (
    workdir / 'tokenizer.model'
  ).read_bytes()
  # Pickles of protocol 2 and above start with 0x80, those of torch and NumPy with PK.
  for path in pathlib.Path(exported).rglob('*'):
    if path.is_file():
      assert path.read_bytes()[:2] not in (b'\x80\x02', b'\x80\x04', b'\x80\x05', b'PK')
  settings = json.loads((exported / 'model.json').read_text())
  assert settings['format'] == model_directory.FORMAT
  assert settings['step'] == 4
  text = settings['preprocessing']['text']
  assert tuple(text['tasks']) == tasks('multi_head')
  assert settings['preprocessing']['image']['range'] == [-1, 1]
  metrics = json.loads((workdir / 'eval/dev-4.json').read_text())
  assert settings['metrics']['dev'] == metrics
  threshold = settings['outputs']['keywords']['threshold']
  assert threshold == metrics['keywords_constrained/threshold']
  assert rahf.load(exported).description.threshold == threshold


def test_model_card(exported, workdir):
  card = (exported / 'README.md').read_text()
  metrics = json.loads((workdir / 'eval/test-4.json').read_text())
  for part in (
    *('plausibility | 0 to 1 | higher is better', 'overall', 'misalignment | 0 to 1'),
    *('pip install .` in a checkout', 'rahf.load(', 'Trained for 4 steps'),
    *('shapes, 100%', 'Trained from scratch'),
    f'{metrics["implausibility/mse"]:.4g}',
    '64 x 64 px',
  ):
    assert part in card


def test_description_survives_json(tmp_path):
  description = Description(
    tiny_model.tiny('augmented_prompt'),
    step=3,
    text_length=5,
    target_length=6,
    decoder='parallel',
    threshold=0.3,
    data={'mine': {'weight': 2.0, 'terms': 'ours'}},
    weights='none',
    metrics={'dev': {'overall/plcc': 0.5, 'overall/srcc': None}},
  )
  folder = epath.Path(tmp_path)
  (folder / 'model.json').write_text(model_directory.to_json(description))
  assert model_directory.read_description(folder) == description


def test_a_given_step_and_folder(config, workdir, tmp_path, capsys):
  config = config.copy_and_resolve_references()
  config.export.update(step=2, dir=str(tmp_path / 'other'))
  export.export(config, workdir, Interruption())
  assert f"rahf.load('{tmp_path}/other')" in capsys.readouterr().out
  found = safetensors.numpy.load_file(tmp_path / 'other' / 'model.safetensors')
  expected = runs.read_checkpoint(workdir, 2)
  np.testing.assert_array_equal(found['vit/cls'], expected['params/vit/cls'])
  config.export.step = 3
  with pytest.raises(InputError, match=r'step = 3 has no checkpoint.*available: 2, 4'):
    export.export(config, workdir, Interruption())


def test_a_work_directory_without_its_tokenizer(config, workdir, exported, tmp_path):
  """As older versions wrote it: the tokenizer of the data is used."""
  older = epath.Path(shutil.copytree(workdir, tmp_path / 'older'))
  shutil.rmtree(older / 'export')
  expected = (older / 'tokenizer.model').read_bytes()
  (older / 'tokenizer.model').unlink()
  (older / 'model_card.md').unlink()
  export.export(config, older, Interruption())
  assert (older / 'export/tokenizer.model').read_bytes() == expected
  assert 'the work directory has no record' in (older / 'export/README.md').read_text()


def test_licences_of_initial_weights_are_passed_on(workdir, tmp_path):
  folder = epath.Path(tmp_path)
  section = '## Initial weights\n\n- a\n\n## Licence\n\nCC BY-NC 4.0'
  (folder / 'model_card.md').write_text(f'# RAHF model\n\n{section}\n')
  assert export.read_weights_section(folder) == section


def test_nothing_to_export(config, tmp_path):
  workdir = epath.Path(tmp_path / 'nothing')
  with pytest.raises(InputError, match='nothing has no checkpoint to export'):
    export.export(config, workdir, Interruption())
  assert not workdir.exists()


def test_other_folders_are_not_replaced(config, workdir, tmp_path):
  config = config.copy_and_resolve_references()
  config.export.dir = str(tmp_path)
  (tmp_path / 'thesis.tex').write_text('x')
  with pytest.raises(InputError, match='is not a model directory; choose another'):
    export.export(config, workdir, Interruption())
  assert (tmp_path / 'thesis.tex').read_text() == 'x'


@pytest.mark.parametrize('error', [Interrupted, OSError])
def test_a_killed_export_changes_nothing(config, workdir, exported, monkeypatch, error):
  before = {path.name: path.stat().mtime for path in exported.iterdir()}

  def fail(*arguments, **options):
    raise error

  monkeypatch.setattr(write_directory, 'model_card', fail)  # Written almost last.
  with pytest.raises(error):
    export.export(config, workdir, Interruption())
  assert {path.name: path.stat().mtime for path in exported.iterdir()} == before
  assert not [path for path in workdir.iterdir() if path.name.startswith('.export')]


def test_leftovers_of_a_kill_are_removed(config, workdir, exported):
  (workdir / '.export.partial/complete').mkdir(parents=True)
  (workdir / '.export.partial/replaced').mkdir()
  export.export(config, workdir, Interruption())
  assert {path.name for path in exported.iterdir()} == FILES
  assert not [path for path in workdir.iterdir() if path.name.startswith('.export')]


def test_a_kill_between_the_renames_loses_nothing(
  config, workdir, exported, monkeypatch
):
  (workdir / '.export.partial').mkdir()
  exported.rename(workdir / '.export.partial/replaced')
  monkeypatch.setattr(write_directory, 'model_card', lambda *_, **__: 1 / 0)
  with pytest.raises(ZeroDivisionError):
    export.export(config, workdir, Interruption())
  assert {path.name for path in exported.iterdir()} == FILES
  assert not [path for path in workdir.iterdir() if path.name.startswith('.export')]


@pytest.mark.parametrize(
  ('keys', 'value', 'message'),
  [
    (['format'], 4, 'has format 4, .* update it, with pip install . in a newer'),
    (['format'], 0, 'has format 0, .* export the model again'),
    (['format'], None, "is damaged .*'format'"),
    (['step'], 'four', 'is damaged'),
    (['architecture', 'rotary'], True, 'architecture.rotary, .* update rahf'),
    (['architecture', 'vit', 'rotary'], True, 'architecture.vit.rotary'),
    (['architecture', 'vit'], 3, 'is damaged'),
    (['architecture', 'variant'], 'x', 'config.model.variant = .x. is not one of'),
    (['outputs', 'scores'], [{'name': 'beauty'}], r"has the scores \['beauty'\]"),
    (['preprocessing', 'text', 'tasks'], ['q: '], 'has the task strings'),
    (['outputs', 'keywords', 'decoder'], 'x', "has the decoder 'x'"),
    (['architecture', 't5', 'vocab_size'], 16, 'pieces, but the embedding table'),
    (['architecture', 't5', 'width'], 24, r'F32\[16.* the model has F32\[.*24'),
    (['architecture', 'keep_class_token'], 3.5, 'is damaged'),
  ],
)
def test_invalid_fields_of_model_json(copy, keys, value, message):
  change(copy, *keys, value=value)
  with pytest.raises(InputError, match=f'(?s){message}'):
    rahf.load(copy)


def test_a_field_missing_in_older_versions_has_its_default(copy, exported):
  change(copy, 'architecture', 'mask_padding', value=None)
  change(copy, 'architecture', 'vit', 'gelu', value=None)
  found = rahf.load(copy).description
  assert found.model == rahf.load(exported).description.model


def test_parameters_are_checked_by_name_shape_and_dtype(copy):
  """Also in a directory without checksums."""
  change(copy, 'files', value=None)
  path = copy / 'model.safetensors'
  arrays = safetensors.numpy.load_file(path)
  name = 'vit/cls'
  for changed, message in (
    ({k: v for k, v in arrays.items() if k != name}, f'{name} is missing'),
    (arrays | {'x': np.zeros(2, np.float32)}, r'x is F32\[2\], .* no such array'),
    (arrays | {name: arrays[name][..., :3]}, rf'{name} is F32\[1, 1, 3\]'),
    (arrays | {name: arrays[name].astype(np.float16)}, rf'{name} is F16\[1, 1, 16\]'),
  ):
    safetensors.numpy.save_file(
      {k: np.ascontiguousarray(v) for k, v in changed.items()}, path
    )
    with pytest.raises(
      InputError, match=f'does not fit the architecture.*\n.*{message}'
    ):
      rahf.load(copy)


@pytest.mark.parametrize('older', [False, True])
def test_damaged_files(copy, older):
  if older:  # Without checksums, as older versions wrote it.
    change(copy, 'files', value=None)
  path = copy / 'model.safetensors'
  path.write_bytes(path.read_bytes()[:-9])
  with pytest.raises(InputError, match=r'model\.safetensors is damaged'):
    rahf.load(copy)
  path.unlink()
  with pytest.raises(InputError, match=r'model\.safetensors does not exist'):
    rahf.load(copy)
  (copy / 'tokenizer.model').write_bytes(b'x')
  with pytest.raises(InputError, match=r'tokenizer\.model is missing or damaged'):
    rahf.load(copy)
  (copy / 'model.json').write_text('{"format": 1')
  with pytest.raises(InputError, match=r'model\.json is damaged'):
    rahf.load(copy)


def test_folders_that_are_not_model_directories(workdir, exported, tmp_path):
  for path, message in (
    (tmp_path, r'it has no model\.json'),
    (tmp_path / 'x', 'x does not exist; give a local directory'),
    (workdir, 'is a work directory, not a model directory; give .*export'),
    ('https://example.org/model', 'cannot be opened; give a local directory'),
  ):
    with pytest.raises(InputError, match=message):
      rahf.load(path)


def test_the_command(workdir, data_dir, tmp_path):
  run = epath.Path(shutil.copytree(workdir, tmp_path / 'run'))
  shutil.rmtree(run / 'export', ignore_errors=True)
  arguments = f'--workdir={run}', '--mode=export'
  printed, errors = runs.start_tiny(data_dir, *arguments).communicate(timeout=200)
  assert f"rahf.load('{run}/export')" in printed, errors
  assert {path.name for path in (run / 'export').iterdir()} == FILES
  help_text = main.flags.FLAGS['mode'].help
  assert 'plausibility' in help_text
  assert 'higher is better' in help_text
