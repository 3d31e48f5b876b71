"""Exporting the weights of the PyTorch RAHF: one command, the same outputs."""

import json
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import util
from etils import epath

import rahf
from configs import rahf_torch
from golden_torch import Golden, read_golden, tensors, texts
from rahf import export
from rahf.data.images import codec
from rahf.data.pipeline.decoding import encode_prompt
from rahf.data.tokenizer import EOS, Tokenizer
from rahf.errors import InputError
from rahf.inference import model_directory, public_weights, step
from rahf.inference.model import Model
from rahf.models.rahf import MAPS, RAHF, SCORES
from rahf.pretrained.rahf_torch import LICENCE, TASK_PREFIXES
from rahf.runtime.preemption import Interruption
from rahf.workdir import ownership
from torch_files import constant, write_state_dict

ROOT = pathlib.Path(__file__).parents[1]
# As in tests/pretrained/test_rahf_torch.py.
TOLERANCE = 2e-5
HEADS = ('--config.model.vit.width=40', '--config.model.vit.heads=4')


@pytest.fixture(scope='module')
def pieces(tmp_path_factory) -> pathlib.Path:
  return util.train_model(tmp_path_factory.mktemp('pieces') / 'spiece', '_0')


@pytest.fixture(scope='module', params=['multi', 'single'])
def golden(request, assets) -> Golden:
  return read_golden(assets, request.param)


@pytest.fixture(scope='module')
def command(golden, pieces, tmp_path_factory) -> tuple[pathlib.Path, str]:
  """The folder in which the command was run on an archive, and what it printed."""
  folder = tmp_path_factory.mktemp('command')
  write_state_dict(folder / 'rahf_model.pt', tensors(golden.shapes))
  (folder / 'spiece.model').write_bytes(pieces.read_bytes())
  done = subprocess.run(
    [
      *(sys.executable, '-m', 'rahf.main', f'--config={ROOT}/configs/rahf_torch.py'),
      *('--config.init.rahf=rahf_model.pt', *HEADS),
      *('--mode=export', '--config.export.dir=model'),
    ],
    cwd=folder,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  (folder / 'rahf_model.pt').unlink()
  return folder, done.stdout


@pytest.fixture(scope='module')
def model(command) -> Model:
  return rahf.load(command[0] / 'model', batch_size=2)


def test_the_command_writes_only_the_model(command, golden):
  folder, printed = command
  assert {path.name for path in folder.iterdir()} == {'spiece.model', 'model'}
  assert "rahf.load('" in printed
  assert LICENCE in printed
  assert 'config.model.t5.vocab_size: 300 there, 32128 here' in printed
  assert 'fresh: 0 arrays' in printed


def test_card_and_description(command, golden):
  folder = command[0] / 'model'
  card = (folder / 'README.md').read_text()
  for part in (
    *('PyTorch RAHF checkpoint, `rahf_model.pt`', LICENCE, 'not trained further'),
    *('weights of another project', 'without punctuation', 'Not evaluated'),
    'checkpoint, `rahf_model.pt`, under its terms:\n',
  ):
    assert part in card
  assert 'Trained' not in card
  settings = json.loads((folder / 'model.json').read_text())
  assert LICENCE in settings['weights']
  architecture = settings['architecture']
  assert architecture['dtype'] == 'float32'
  assert architecture['mask_padding']
  assert architecture['keep_class_token']
  assert not architecture['decoder_sees_image']
  assert settings['format'] == 2  # Older versions would treat punctuation otherwise.


def test_scores_and_maps_equal_the_original(model, golden):
  """Runs the scoring step, with texts padded to its length.

  The original has no mask, so its texts were not padded.
  """
  expected, description = golden.expected, model.description
  rows = texts(expected, description.model.variant)
  room = description.text_length - rows.shape[-1]
  padded = np.pad(rows, ((0, 0), (0, 0), (0, room))).astype(np.int32)
  assert padded.shape == (2, description.model.texts, 128)
  found = jax.jit(model.infer)(
    model.params,
    expected['image_nchw'].transpose(0, 2, 3, 1),
    padded,
    np.zeros((2, 128), bool),
  )
  for kind, names, values in (
    ('heatmap', MAPS, found.maps),
    ('score', SCORES, found.scores),
  ):
    for i, name in enumerate(names):
      np.testing.assert_allclose(
        values[:, i], expected[f'{kind}/{name}'], rtol=0, atol=TOLERANCE
      )


def test_generated_texts_equal_the_original(model, golden):
  expected, module = golden.expected, RAHF(model.description.model)
  rows = texts(expected, model.description.model.variant)
  padded = np.pad(rows, ((0, 0), (0, 0), (0, 30))).astype(np.int32)

  def generate(params, image, text):
    variables = {'params': params}
    fused = module.apply(variables, image, text, train=False, method=RAHF.encode)
    return module.apply(variables, fused, 12, method=RAHF.decode_greedily)

  image = expected['image_nchw'].transpose(0, 2, 3, 1)
  found = jax.jit(generate)(model.params, image, padded)
  np.testing.assert_array_equal(found, expected['generated'][:, 1:-1])


def test_scoring_an_image_equals_the_network(model):
  """From pixels and a prompt; the network is called directly with unpadded texts."""
  image = util.make_pixels(1, 32, 32)
  (found,) = model.score(image, 'a red, circle!')
  ids, module = model.tokenizer.ids, RAHF(model.description.model)
  signed = jnp.asarray(codec.to_signed(image[None].astype(np.float32) / 255))

  @jax.jit
  def outputs(params, text):
    return step.encode_and_score(module, params, signed, text)[1]

  texts = model.description.model.texts
  for task in (TASK_PREFIXES[0], TASK_PREFIXES[len(MAPS)]) if texts > 1 else ('',):
    # Separate passes, as in the original.
    row = jnp.array([*ids(task), *ids('a red circle'), EOS])
    seen = outputs(model.params, jnp.broadcast_to(row, (1, texts, len(row))))
    if task != TASK_PREFIXES[len(MAPS)]:
      np.testing.assert_allclose(
        found.heatmaps[MAPS[0]], seen.maps[0, 0], rtol=0, atol=TOLERANCE
      )
    if task != TASK_PREFIXES[0]:
      expected = float(seen.scores[0, 0])
      assert found.scores[SCORES[0]] == pytest.approx(expected, abs=TOLERANCE)
  assert [word for word, _ in found.keywords] == ['a', 'red', 'circle']
  (plain,) = model.score(image, 'a red circle')
  assert found.scores == plain.scores
  assert found.keywords == plain.keywords


def test_task_strings_are_pieces_of_one_text(assets):
  """The original tokenizes its text at once, we do it in two parts."""
  t5 = Tokenizer(assets / 'tokenizer/t5-base.spiece.model')
  assert t5.mark_ids == public_weights.T5_MARK
  row = encode_prompt('a red circle', t5, 'augmented_prompt', 40, tasks=TASK_PREFIXES)
  for ids, task in zip(row.text, TASK_PREFIXES, strict=True):
    whole = [*t5.ids(f'{task}a red circle'), EOS]
    np.testing.assert_array_equal(ids, np.pad(whole, (0, 40 - len(whole))))
  assert TASK_PREFIXES[:3:2] == (
    '<output> HEATMAP: implausibility </output> ',
    '<output> SCORE: plausibility </output> ',
  )
  public_weights.check_tokenizer(t5, 32128)


# Refused before any array is read


@pytest.fixture
def config(pieces, tmp_path):
  config = rahf_torch.get_config()
  config.init.rahf = str(tmp_path / 'rahf_model.pt')
  config.tokenizer = str(pieces)
  config.export.dir = str(tmp_path / 'model')
  config.model.vit.update(width=40, heads=4)
  return config


def refuse(config, message: str) -> None:
  workdir = epath.Path(config.export.dir or '.').parent / 'run'
  with pytest.raises(InputError, match=message):
    public_weights.export_weights(config, workdir, Interruption())
  if config.export.dir:
    assert not pathlib.Path(config.export.dir).exists()


def write_shapes(assets, path: str | pathlib.Path, **changes) -> None:
  """Writes an archive of ones, with other shapes for some."""
  shapes = read_golden(assets, 'single').shapes | changes
  write_state_dict(path, {name: constant(shape) for name, shape in shapes.items()})


def test_attention_heads_must_fit_the_vit_of_the_file(assets, config):
  write_shapes(assets, config.init.rahf)
  flags = '--config.model.vit.width=40 and --config.model.vit.heads=…'
  config.model.vit.update(width=1024, heads=16)  # Of another ViT.
  refuse(config, f'has a ViT of width 40, .*give {flags}')
  config.model.vit.update(width=40, heads=20)
  config.tokenizer = config.init.rahf
  refuse(config, 'cannot be read as a SentencePiece model')


def test_t5_s_vocabulary_needs_t5_s_tokenizer(assets, config, pieces):
  rows = dict.fromkeys(
    (
      't5.shared.weight',
      *(f't5.{side}.embed_tokens.weight' for side in ('encoder', 'decoder')),
      't5.lm_head.weight',
    ),
    (32128, 256),
  )
  write_shapes(assets, config.init.rahf, **rows)
  refuse(config, 'not that of T5, .*--config.tokenizer=spiece.model')


def test_without_a_tokenizer(assets, config, monkeypatch):
  def fail(path):
    raise RuntimeError('no route')

  write_shapes(assets, config.init.rahf)
  monkeypatch.setattr(public_weights, 'Tokenizer', fail)
  for setting in ('', rahf_torch.get_config().tokenizer):
    config.tokenizer = setting
    refuse(config, r'give T5.s with --config.tokenizer=spiece.*gs://t5-data.*no route')


def test_a_part_is_not_a_whole_model(assets, config):
  config.init.rahf = str(assets / 'golden/vit_tiny_release_names.npz')
  refuse(config, r'is a ViT release \(.npz\), which has no heads for scores and maps')


def test_the_output_folder_must_be_given(config, monkeypatch):
  config.export.dir = ''
  refuse(
    config,
    'config.export.dir is empty; set where to write the model .*rahf_model.pt',
  )
  monkeypatch.setattr(ownership, 'is_started', lambda workdir: True)
  refuse(config, '--workdir=run exports the checkpoint there')


def test_directories_of_rahf_itself_are_refused(config, tmp_path, command):
  config.init.rahf = str(command[0] / 'model')
  refuse(config, 'is already a model directory: use it with rahf.load')
  (tmp_path / 'run/checkpoints').mkdir(parents=True)
  config.init.rahf = str(tmp_path / 'run')
  refuse(config, 'is a work directory; to export its checkpoint, give --workdir=')


def test_a_named_work_directory_must_have_a_checkpoint(config, tmp_path):
  workdir = epath.Path(tmp_path / 'run')
  with pytest.raises(
    InputError, match=r'to export .*rahf_model.pt as it is, remove --wo'
  ):
    export.export(config, workdir, Interruption())
  config.init.update(rahf='', vit='vit.npz', t5='t5')
  with pytest.raises(
    InputError, match=r'have no heads for scores .*\(config.init.rahf\)'
  ):
    export.export(config, workdir, Interruption())


def test_sizes_of_the_file_must_be_valid(assets, config):
  positions = 'vit.embeddings.position_embeddings'
  write_shapes(assets, config.init.rahf, **{positions: (1, 1 + 200**2, 40)})
  refuse(config, r'has invalid sizes: config.model.image_size = 3200 .*give 200 x 200')


def test_other_task_strings_are_refused(command):
  folder = epath.Path(command[0] / 'model')
  path = folder / 'model.json'
  before = path.read_text()
  settings = json.loads(before)
  settings['preprocessing']['text']['tasks'] = ['q: ']
  path.write_text(json.dumps(settings))
  try:
    with pytest.raises(InputError, match='has the task strings'):
      model_directory.read_description(folder)
  finally:
    path.write_text(before)
