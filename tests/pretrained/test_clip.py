import copy
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

import clip_directory
import clip_files
from rahf.data.clip_tokenizer import ClipTokenizer
from rahf.data.images import clip_image
from rahf.errors import InputError
from rahf.models.clip import CLIP, SIZES, abstract_params, normalised
from rahf.pretrained import open_source
from rahf.pretrained.__main__ import main
from rahf.pretrained.clip import Hint, clip_config, open_clip
from rahf.runtime.tree import by_path
from torch_files import contiguous, write_state_dict

OPENCLIP = {
  'vision_cfg': {'width': 128, 'head_width': 32},
  'text_cfg': {'width': 128, 'heads': 2},
}
GIVEN = {'vision': Hint(2, 'quick'), 'text': Hint(2, 'quick')}


@pytest.fixture(scope='module')
def golden(assets):
  return json.loads((assets / 'preferences' / 'clip_tiny.json').read_text())


@pytest.fixture(scope='module')
def archive(golden, tmp_path_factory):
  path = tmp_path_factory.mktemp('clip') / 'tiny.pt'
  views = {name: contiguous(a) for name, a in clip_files.arrays(golden).items()}
  write_state_dict(path, views)
  return path


def read(source):
  arrays = {path.split('/', 1)[1]: w.read() for path, w in source.weights.items()}
  tree = {}
  for path, array in arrays.items():
    *parents, name = path.split('/')
    node = tree
    for parent in parents:
      node = node.setdefault(parent, {})
    node[name] = jnp.asarray(array)
  return tree


def test_features_logits_and_gradient_are_the_published_ones(golden, archive, assets):
  source = open_clip(archive, GIVEN)
  model, params = CLIP(clip_config(source)), {'params': read(source)}
  shape = (2, 3, 12, 12)
  images = np.cos(0.11 * np.arange(np.prod(shape))).reshape(shape).transpose(0, 2, 3, 1)
  images = jnp.asarray(images, jnp.float32)
  vocabulary = assets / 'tokenizer' / 'clip_bpe_simple_vocab_16e6.txt.gz'
  texts = jnp.asarray(ClipTokenizer(vocabulary, 'openai').encode(golden['texts']).ids)

  @jax.jit
  def run(images):
    image = model.apply(params, images, method=CLIP.image_features)
    text = model.apply(params, texts, method=CLIP.text_features)
    return image, text, (normalised(image) * normalised(text)).sum(-1)

  image, text, cosine = run(images)
  logits = model.apply(params, images, texts)
  gradient = jax.grad(lambda images: run(images)[2].sum())(images)
  for found, name in (
    (image, 'image_features'),
    (text, 'text_features'),
    (cosine, 'cosine'),
    (logits, 'logits_per_image'),
  ):
    np.testing.assert_allclose(found, golden[name], rtol=1e-4, atol=1e-4)
  expected = golden['gradient_map_max_abs_over_rgb']
  magnitude = np.abs(gradient).max(-1)
  np.testing.assert_allclose(magnitude.sum((1, 2)), expected['sum'], rtol=1e-3)
  np.testing.assert_allclose(magnitude.max((1, 2)), expected['max'], rtol=1e-3)
  row = expected['first_row_of_image_0']
  np.testing.assert_allclose(magnitude[0, 0, : len(row)], row, atol=1e-6)


@pytest.mark.parametrize(
  ('name', 'parameters'),
  [
    ('B/32', 151_277_313),
    ('B/16', 149_620_737),
    ('L/14', 427_616_513),
    ('L/14@336', 427_944_193),
    ('H/14', 986_109_441),
  ],
)
def test_the_published_models_have_the_published_parameters(name, parameters):
  leaves = by_path(abstract_params(SIZES[name])).values()
  assert sum(leaf.size for leaf in leaves) == parameters


def test_arrays_are_those_of_the_model(archive):
  source = open_clip(archive, GIVEN)
  found = {path.removeprefix('clip/'): w.shape for path, w in source.weights.items()}
  expected = by_path(abstract_params(clip_config(source)))
  assert found == {path: leaf.shape for path, leaf in expected.items()}


def test_what_no_array_shows_must_be_given(archive):
  with pytest.raises(
    InputError, match=r'width 128.*give --config\.clip\.\w+\.heads.* hints=.*heads='
  ):
    open_clip(archive)
  with pytest.raises(
    InputError, match=r'give --config\.init\.clip_gelu=quick .*gelu=.quick'
  ):
    open_clip(archive, {'vision': Hint(2), 'text': Hint(2)})


def write_openclip(folder, golden):
  """Writes a directory of OpenCLIP; returns the file that describes the model."""
  arrays = clip_files.arrays(golden)
  # The newer files name the text tower.
  arrays = {
    name if name.startswith(('visual.', 'logit_scale')) else f'text.{name}': a
    for name, a in arrays.items()
  }
  safetensors.numpy.save_file(arrays, folder / 'open_clip_model.safetensors')
  described = folder / 'open_clip_config.json'
  described.write_text(json.dumps({'model_cfg': OPENCLIP}))
  return described


def test_a_text_without_an_end_has_no_features(archive, golden):
  source = open_clip(archive, GIVEN)
  model, params = CLIP(clip_config(source)), {'params': read(source)}
  text = jnp.asarray([[49406, 320, 49407], [49406, 320, 320]])
  found = model.apply(params, text, method=CLIP.text_features)
  assert jnp.isfinite(found[0]).all()
  assert jnp.isnan(found[1]).all()


def test_openclip_says_heads_and_activation_beside_its_file(golden, tmp_path):
  described = write_openclip(tmp_path, golden)
  config = clip_config(open_source(tmp_path))
  assert (config.vision.heads, config.text.heads) == (4, 2)
  assert config.vision.gelu == config.text.gelu == 'exact'
  described.write_text(json.dumps({'model_cfg': OPENCLIP | {'quick_gelu': True}}))
  assert clip_config(open_source(tmp_path)).text.gelu == 'quick'


@pytest.mark.parametrize(
  ('section', 'field', 'value', 'message'),
  [
    ('text_cfg', 'no_causal_mask', True, 'no_causal_mask is True; only False'),
    ('vision_cfg', 'pool_type', 'avg', "pool_type is 'avg'; only 'tok'"),
    ('vision_cfg', 'norm_kwargs', {'eps': 1e-6}, 'norm_kwargs is .*eps'),
    ('vision_cfg', 'width', 256, 'width is 256, but the weights have 128'),
    ('vision_cfg', 'layers', 99, 'layers is 99, but the weights have'),
    ('preprocess_cfg', 'mean', [0.5] * 3, "only OpenAI's normalisation"),
    ('preprocess_cfg', 'resize_mode', 'squash', "only 'shortest'"),
  ],
)
def test_openclip_says_what_we_cannot_compute(
  golden, tmp_path, section, field, value, message
):
  described = write_openclip(tmp_path, golden)
  config = {'model_cfg': copy.deepcopy(OPENCLIP)}
  where = config if section == 'preprocess_cfg' else config['model_cfg']
  where.setdefault(section, {})[field] = value
  described.write_text(json.dumps(config))
  with pytest.raises(InputError, match=message):
    open_source(tmp_path)


def test_preprocessing_beside_hugging_face_weights(tmp_path):
  folder = clip_directory.write(tmp_path / 'clip')
  prepared = folder / 'preprocessor_config.json'
  public = {'image_mean': clip_image.MEAN.tolist(), 'resample': 3, 'do_resize': True}
  prepared.write_text(json.dumps(public))
  assert open_source(folder)
  for change, message in (
    ({'image_std': [0.5, 0.5, 0.5]}, "image_std .* only OpenAI's"),
    ({'resample': 2}, 'resample is 2; only 3'),
    ({'do_center_crop': False}, 'do_center_crop is False; only True'),
  ):
    prepared.write_text(json.dumps(public | change))
    with pytest.raises(InputError, match=message):
      open_source(folder)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (lambda a: a.pop('visual.proj'), 'lacks clip/vision/projection/kernel'),
    (lambda a: a.update(extra=a['visual.proj']), 'extra .* has no place'),
    (
      lambda a: a.update({'visual.positional_embedding': a['visual.proj'][:7]}),
      'positions of 6 patches',
    ),
    (
      lambda a: a.update(
        {'transformer.resblocks.0.attn.in_proj_bias': np.ones(7, np.float32)}
      ),
      'is not query, key and value',
    ),
  ],
)
def test_other_architectures_are_refused_by_name(golden, tmp_path, change, message):
  arrays = clip_files.arrays(golden)
  change(arrays)
  write_state_dict(tmp_path / 'x.pt', {n: contiguous(a) for n, a in arrays.items()})
  with pytest.raises(InputError, match=message):
    open_clip(tmp_path / 'x.pt', GIVEN)


def test_the_command_says_how_to_use_it(golden, tmp_path, capsys):
  write_openclip(tmp_path, golden)
  assert main([str(tmp_path)]) == 0
  printed = capsys.readouterr().out
  assert 'OpenCLIP' in printed
  assert 'clip.vision.heads = 4' in printed
  assert 'in Python: rahf.pretrained.load' in printed
  assert 'config.init' not in printed
