"""Our T5 and ViT against transformers in PyTorch, on random small models.

Needs the extra `parity`.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rahf.models.t5 import T5, T5Config
from rahf.models.vit import ViT, ViTConfig
from rahf.pretrained import hf_config, load, open_source

REASON = 'needs PyTorch and transformers: pip install "rahf[parity]"'
torch = pytest.importorskip('torch', reason=REASON)
transformers = pytest.importorskip('transformers', reason=REASON)

FLOAT32 = jnp.dtype('float32')


def sizes(source, part: str) -> dict:
  """Returns a source's settings as the fields of one part's config."""
  return {field.removeprefix(f'{part}.'): v for field, v in source.settings.items()}


@pytest.fixture(autouse=True)
def seed():
  torch.manual_seed(0)


def roughen(model) -> None:
  """Randomises biases and scales, so that every parameter matters."""
  with torch.no_grad():
    for parameter in model.parameters():
      parameter += 0.1 * torch.randn(parameter.shape)


@pytest.mark.parametrize('file', ['model.safetensors', 'pytorch_model.bin'])
@pytest.mark.parametrize('version', ['v1.0', 'v1.1'])
def test_t5(version, file, tmp_path):
  old = version == 'v1.0'
  config = transformers.T5Config(
    vocab_size=64,
    d_model=24,
    d_kv=8,
    num_heads=2,
    d_ff=40,
    num_layers=2,
    num_decoder_layers=3,
    feed_forward_proj='relu' if old else 'gated-gelu',
    tie_word_embeddings=old,
  )
  model = transformers.T5ForConditionalGeneration(config).eval()
  if not old:
    # New models are tied; the released ones are not.
    model.lm_head.weight = torch.nn.Parameter(torch.randn(64, 24))
  roughen(model)
  model.save_pretrained(tmp_path)
  if file == 'pytorch_model.bin':  # Has the embedding under all its names.
    (tmp_path / 'model.safetensors').unlink()
    torch.save(model.state_dict(), tmp_path / file)

  source = open_source(tmp_path)
  assert ('t5/decoder/logits_dense/kernel' in source.weights) != old
  rng = np.random.default_rng(0)
  # Longer than the exact relative position buckets.
  text, target = rng.integers(2, 64, (2, 40)), rng.integers(2, 64, (2, 36))
  text[1, 25:] = 0
  with torch.no_grad():
    expected = model(
      input_ids=torch.tensor(text),
      attention_mask=torch.tensor(text != 0),
      decoder_input_ids=torch.tensor(np.pad(target[:, :-1], ((0, 0), (1, 0)))),
    )

  ours = T5(T5Config(**sizes(source, 't5')), 0.0, FLOAT32)

  @jax.jit
  def run(params, text, target):
    def encode_and_decode(model):
      encoded = model.encode(model.embed(text), text != 0, train=False)
      return encoded, model.decode(encoded, text != 0, target, train=False)

    return ours.apply({'params': params}, method=encode_and_decode)

  encoded, logits = run(load(tmp_path)['t5'], text, target)
  real = text != 0
  theirs = expected.encoder_last_hidden_state.numpy()
  np.testing.assert_allclose(encoded[real], theirs[real], atol=1e-4)
  np.testing.assert_allclose(logits, expected.logits.numpy(), atol=1e-4)
  assert np.std(theirs) > 0.1
  assert np.std(logits) > 0.1


def test_defaults_are_those_of_transformers():
  for sizes, theirs in (
    (hf_config.T5_SIZES, transformers.T5Config()),
    (hf_config.VIT_SIZES, transformers.ViTConfig()),
  ):
    for field, default in sizes.values():
      assert getattr(theirs, field) == default, field
  vit = transformers.ViTConfig()
  assert (vit.patch_size, vit.image_size, vit.layer_norm_eps) == (16, 224, 1e-12)
  assert (vit.hidden_act, vit.num_channels, vit.qkv_bias) == ('gelu', 3, True)
  t5 = transformers.T5Config()
  assert t5.num_decoder_layers == t5.num_layers
  assert t5.scale_decoder_outputs
  assert (t5.feed_forward_proj, t5.layer_norm_epsilon) == ('relu', 1e-6)


@pytest.mark.parametrize('tied', [True, False])
@pytest.mark.parametrize(
  'name',
  [
    'shared.weight',
    'encoder.embed_tokens.weight',
    'decoder.embed_tokens.weight',
    'lm_head.weight',
  ],
)
def test_a_single_embedding_is_used_as_in_transformers(name, tied, tmp_path):
  from safetensors.torch import save_file

  config = transformers.T5Config(
    vocab_size=20, d_model=8, d_kv=2, num_heads=3, d_ff=12, num_layers=1
  )
  state = transformers.T5ForConditionalGeneration(config).state_dict()
  embedding = state['shared.weight'].clone()
  rest = {n: a for n, a in state.items() if not torch.equal(a, embedding)}
  fields = config.to_dict() | {'tie_word_embeddings': tied}
  fields['scale_decoder_outputs'] = tied
  (tmp_path / 'config.json').write_text(json.dumps(fields))
  save_file(rest | {name: embedding}, tmp_path / 'model.safetensors')
  theirs = transformers.T5ForConditionalGeneration.from_pretrained(tmp_path)
  ours = load(tmp_path)['t5']
  for part in (theirs.shared, theirs.encoder.embed_tokens, theirs.lm_head):
    torch.testing.assert_close(part.weight, embedding, rtol=0, atol=0)
  np.testing.assert_array_equal(ours['token_embedder']['embedding'], embedding)
  assert ('logits_dense' in ours['decoder']) != tied
  if not tied:
    logits = ours['decoder']['logits_dense']['kernel']
    np.testing.assert_array_equal(logits, embedding.T)


VIT = {
  'hidden_size': 24,
  'num_hidden_layers': 2,
  'num_attention_heads': 3,
  'intermediate_size': 40,
  'image_size': 32,
  'patch_size': 8,
}


def assert_same_tokens(folder, model) -> None:
  """Asserts that our ViT and that of transformers give the same tokens."""
  image = np.random.default_rng(0).uniform(-1, 1, (2, 32, 32, 3)).astype(np.float32)
  with torch.no_grad():
    vit = getattr(model, 'vit', model)
    expected = vit(torch.tensor(image).permute(0, 3, 1, 2)).last_hidden_state.numpy()
  source = open_source(folder)
  ours = ViT(ViTConfig(**sizes(source, 'vit')), 0.0, FLOAT32)
  apply = jax.jit(ours.apply, static_argnames='train')
  tokens = apply({'params': load(folder)['vit']}, image, train=False)
  np.testing.assert_allclose(tokens, expected, atol=1e-4)
  assert np.std(expected) > 0.1


@pytest.mark.parametrize('act', ['gelu', 'gelu_new'])
def test_vit_as_transformers_saves_it(act, tmp_path):
  model = transformers.ViTModel(transformers.ViTConfig(**VIT, hidden_act=act)).eval()
  roughen(model)
  model.save_pretrained(tmp_path)
  names = {weight.name for weight in open_source(tmp_path).weights.values()}
  assert 'encoder.layer.1.attention.attention.query.weight' in names
  assert_same_tokens(tmp_path, model)


@pytest.mark.parametrize('sides', [{'patch_size': [8, 8]}, {'image_size': [32, 32]}])
def test_vit_with_sides_as_lists(sides, tmp_path):
  model = transformers.ViTModel(transformers.ViTConfig(**(VIT | sides))).eval()
  roughen(model)
  model.save_pretrained(tmp_path)
  assert json.loads((tmp_path / 'config.json').read_text()).items() >= sides.items()
  assert_same_tokens(tmp_path, model)


def test_vit_with_the_newer_names_of_a_classifier(tmp_path):
  from safetensors.torch import save_file

  config = transformers.ViTConfig(**VIT, num_labels=3)
  model = transformers.ViTForImageClassification(config).eval()
  roughen(model)
  (tmp_path / 'config.json').write_text(json.dumps(config.to_dict()))
  state = {k: v.contiguous() for k, v in model.state_dict().items()}
  save_file(state, tmp_path / 'model.safetensors')
  source = open_source(tmp_path)
  names = {weight.name for weight in source.weights.values()}
  assert 'vit.layers.1.attention.q_proj.weight' in names
  assert sorted(source.ignored) == ['classifier.bias', 'classifier.weight']
  assert_same_tokens(tmp_path, model)
