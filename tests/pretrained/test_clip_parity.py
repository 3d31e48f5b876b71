"""Our CLIP, its tokenizer and preprocessing against transformers in PyTorch.

Needs the extra `parity`.
"""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from flax import traverse_util
from PIL import Image

import clip_directory
import clip_files
import rahf
from rahf.data.clip_tokenizer import END, START, ClipTokenizer, write_vocabulary
from rahf.data.images.clip_image import MEAN, STD, crop
from rahf.models.clip import CLIP, normalised
from rahf.pretrained import load, open_source
from rahf.pretrained.clip import Hint, clip_config, open_clip

REASON = 'needs PyTorch and transformers: pip install "rahf[parity]"'
torch = pytest.importorskip('torch', reason=REASON)
transformers = pytest.importorskip('transformers', reason=REASON)


@pytest.fixture(autouse=True)
def seed():
  torch.manual_seed(0)


def make(folder, act='quick_gelu', sharded=False, text=(), **vision):
  """Writes a small model of transformers, every parameter of which matters."""
  config = transformers.CLIPConfig(
    text_config={
      'vocab_size': 40,
      'hidden_size': 24,
      'intermediate_size': 40,
      'num_hidden_layers': 2,
      'num_attention_heads': 3,
      'max_position_embeddings': 12,
      'hidden_act': act,
      'eos_token_id': 39,
      'bos_token_id': 38,
      'pad_token_id': 39,
      **dict(text),
    },
    vision_config={
      'hidden_size': 32,
      'intermediate_size': 48,
      'num_hidden_layers': 3,
      'num_attention_heads': 2,
      'image_size': 24,
      'patch_size': 8,
      'hidden_act': act,
      **vision,
    },
    projection_dim=16,
  )
  model = transformers.CLIPModel(config).eval()
  with torch.no_grad():
    for parameter in model.parameters():
      parameter += 0.1 * torch.randn(parameter.shape)
  model.save_pretrained(folder, max_shard_size='20KB' if sharded else '1GB')
  return model


def inputs():
  rng = np.random.default_rng(0)
  images = rng.normal(size=(3, 24, 24, 3)).astype(np.float32)
  text = rng.integers(1, 38, (3, 12))
  text[0, 5:], text[1, 9], text[2, 11] = 39, 39, 39
  return images, text


@pytest.mark.parametrize(
  'options',
  [
    {},
    {'act': 'gelu'},
    {'act': 'gelu_pytorch_tanh'},
    {'sharded': True},
    {'num_attention_heads': 4, 'layer_norm_eps': 1e-3},
  ],
  ids=str,
)
def test_models_of_transformers(tmp_path, options):
  theirs = make(tmp_path, **options)
  source = open_source(tmp_path)
  params = {'params': load(tmp_path)['clip']}
  ours = CLIP(clip_config(source))
  images, text = inputs()

  pixels = torch.tensor(images.transpose(0, 3, 1, 2), requires_grad=True)
  expected = theirs(pixel_values=pixels, input_ids=torch.tensor(text))
  torch.nn.functional.cosine_similarity(
    expected.image_embeds, expected.text_embeds
  ).sum().backward()

  def cosine(images):
    image = ours.apply(params, images, method=CLIP.image_features)
    words = ours.apply(params, jnp.asarray(text), method=CLIP.text_features)
    image, words = normalised(image), normalised(words)
    return (image * words).sum(), (image, words)

  gradient, (image, words) = jax.grad(cosine, has_aux=True)(jnp.asarray(images))
  logits = ours.apply(params, jnp.asarray(images), jnp.asarray(text))
  for found, wanted in (
    (image, expected.image_embeds),
    (words, expected.text_embeds),
    (logits, expected.logits_per_image),
    (gradient, pixels.grad.permute(0, 2, 3, 1)),
  ):
    np.testing.assert_allclose(found, wanted.detach(), atol=1e-5, rtol=1e-5)


def test_a_torchscript_file_as_openai_wrote_them(assets, tmp_path):
  """Its modules are nested, its weights halves, and it holds numbers besides."""
  golden = json.loads((assets / 'preferences' / 'clip_tiny.json').read_text())
  arrays = clip_files.arrays(golden)
  modules = torch.nn.Module()
  for name, array in arrays.items():
    *parents, last = name.split('.')
    node = modules
    for parent in parents:
      if not hasattr(node, parent):
        node.add_module(parent, torch.nn.Module())
      node = getattr(node, parent)
    node.register_parameter(last, torch.nn.Parameter(torch.tensor(array).half()))
  modules.register_buffer('input_resolution', torch.tensor(12))
  torch.jit.script(modules).save(str(tmp_path / 'tiny.pt'))

  given = {'vision': Hint(2), 'text': Hint(2)}
  source = open_clip(tmp_path / 'tiny.pt', given)
  assert source.kind == 'OpenAI CLIP'
  assert clip_config(source).vision.gelu == 'quick'
  assert list(source.ignored) == ['input_resolution']
  found = traverse_util.flatten_dict(
    {path: w.read() for path, w in source.weights.items()}
  )
  (query,) = (
    a
    for (p,), a in found.items()
    if p.endswith('vision/block_1/MultiHeadDotProductAttention_0/query/kernel')
  )
  weight = arrays['visual.transformer.resblocks.1.attn.in_proj_weight'][:128]
  np.testing.assert_array_equal(query.reshape(128, 128), weight.astype(np.float16).T)


@pytest.fixture(scope='module')
def vocabulary(assets, tmp_path_factory):
  """A directory as Hugging Face's, made of OpenAI's merges."""
  folder = tmp_path_factory.mktemp('vocabulary')
  openai = ClipTokenizer(
    assets / 'tokenizer/clip_bpe_simple_vocab_16e6.txt.gz', 'openai'
  )
  write_vocabulary(epath.Path(folder), openai.vocabulary)
  return folder


def test_tokens_of_public_prompts(vocabulary, assets):
  theirs = transformers.CLIPTokenizer.from_pretrained(str(vocabulary))
  ours = ClipTokenizer(vocabulary, 'huggingface')
  parti = (assets / 'prompts/PartiPrompts.tsv').read_text('utf-8').splitlines()[1:]
  quirks = (assets / 'prompts/pickapic_quirks.jsonl').read_text('utf-8').splitlines()
  prompts = [line.split('\t')[0] for line in parti]
  prompts += [json.loads(line)['prompt'] for line in quirks]
  prompts += [f'a {END} b', f'{START}x', '', ' \n\t', '\u00e9 e\u0301', 'x' * 500]
  for prompt in prompts:
    assert ours.ids(prompt) == theirs(prompt)['input_ids'], prompt


def test_transformers_reads_our_directory(tmp_path):
  """Of a CLIP that we trained: features, and the tokens of a vocabulary of its own."""
  folder = clip_directory.write(tmp_path / 'clip')
  theirs = transformers.CLIPModel.from_pretrained(folder).eval()
  config, params = clip_directory.CONFIG, {'params': load(folder)['clip']}
  prompts = [*clip_directory.PROMPTS, 'Ünheard of']
  tokens = ClipTokenizer(folder, 'huggingface').encode(prompts).ids
  expected = transformers.CLIPTokenizer.from_pretrained(folder)(
    prompts, padding='max_length', max_length=77
  )['input_ids']
  assert tokens.tolist() == expected
  pixels = np.random.default_rng(0).standard_normal((3, 32, 32, 3)).astype(np.float32)
  with torch.no_grad():
    logits = theirs(
      input_ids=torch.tensor(expected),
      pixel_values=torch.tensor(pixels.transpose(0, 3, 1, 2)),
    ).logits_per_image
  found = CLIP(config).apply(params, jnp.asarray(pixels), jnp.asarray(tokens))
  np.testing.assert_allclose(found, logits, atol=1e-5)


@pytest.mark.parametrize(
  'size', [(37, 50), (50, 37), (24, 24), (24, 27), (100, 31), (7, 9)]
)
def test_preprocessing(size):
  pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
  processor = transformers.CLIPImageProcessorPil(
    size={'shortest_edge': 24}, crop_size={'height': 24, 'width': 24}
  )
  expected = processor(Image.fromarray(pixels), return_tensors='np')['pixel_values'][0]
  expected = expected.transpose(1, 2, 0) * STD + MEAN
  found = crop(pixels, 24, 'huggingface') / 255
  np.testing.assert_allclose(found, expected, atol=1.01 / 255)


@pytest.mark.parametrize('sharded', [False, True])
def test_scores_of_a_directory(tmp_path, sharded):
  """`rahf.load` from files and prompts to logits, against transformers' own steps."""
  folder, size = tmp_path / 'clip', clip_directory.VOCABULARY
  ids = {'bos_token_id': size - 2, 'eos_token_id': size - 1, 'pad_token_id': size - 1}
  sizes = {'vocab_size': size, 'max_position_embeddings': 77}
  theirs = make(folder, 'gelu', sharded, text=ids | sizes)
  vocabulary = clip_directory.write(tmp_path / 'vocabulary')
  for name in ('vocab.json', 'merges.txt'):
    shutil.copy(vocabulary / name, folder / name)
  processor = transformers.CLIPImageProcessorPil(
    size={'shortest_edge': 24}, crop_size={'height': 24, 'width': 24}
  )
  processor.save_pretrained(folder)
  rng = np.random.default_rng(0)
  images = [rng.integers(0, 256, (*size, 3), np.uint8) for size in ((24, 30), (51, 37))]
  prompts = [*clip_directory.PROMPTS, 'Ünheard  of, ' * 30]
  tokens = transformers.CLIPTokenizer.from_pretrained(folder)(
    prompts,
    padding='max_length',
    truncation=True,
    max_length=77,
    return_tensors='pt',
  )
  pixels = processor([*map(Image.fromarray, images)], return_tensors='pt')
  with torch.no_grad():
    expected = theirs(**pixels, **tokens).logits_per_image.numpy()
  model = rahf.load(folder)
  for column, prompt in enumerate(prompts):
    found = model.score(images, prompt)
    similarity = [one.scores['similarity'] for one in found]
    np.testing.assert_allclose(similarity, expected[:, column], atol=2e-5)
    assert [one.truncated for one in found] == [column == 2] * 2
    np.testing.assert_allclose(
      model.preferences(images, prompt),
      torch.softmax(torch.tensor(expected[:, column]), 0),
      atol=2e-5,
    )
