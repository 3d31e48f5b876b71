"""A CLIP trained by contrast, exported and read back."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

import clip_directory
import runs
import tiny
from rahf.data.clip_tokenizer import (
  ClipTokenizer,
  Vocabulary,
  read_vocabulary,
  train_vocabulary,
  write_vocabulary,
)
from rahf.data.storage.records import open_split
from rahf.errors import InputError
from rahf.export import export
from rahf.pretrained import load
from rahf.pretrained.formats import clip_settings
from rahf.runtime import sharding
from rahf.runtime.preemption import Interruption
from rahf.runtime.tree import by_path
from rahf.tasks import make_task
from rahf.tasks.contrastive import contrastive_losses
from rahf.tasks.contrastive_session import retrieval
from rahf.training.batch_spec import random_batch
from rahf.training.setup import set_up

TEXT = 40
SIZE = 530


def small(data_dir):
  config = tiny.get_config(data_dir)
  config.task = 'contrastive'
  tower = dict(width=16, layers=1, heads=2, mlp=32, gelu='exact')
  config.clip.update(image_size=64, patch=16, vision=tower, text=tower, projection=8)
  config.clip.update(text_length=TEXT, vocab_size=SIZE)
  config.data.update(text_length=TEXT, target_length=1, aligned_only=True)
  config.data.shapes.update(train=40)
  return config


def test_losses_by_definition():
  logits = jnp.asarray(np.random.default_rng(0).standard_normal((3, 3)), jnp.float32)
  text = jnp.asarray([[1, 2], [3, 2], [1, 2]])  # The first and last are the same.
  found = contrastive_losses(logits, text)
  log_p = np.log(np.exp(logits) / np.exp(logits).sum(1, keepdims=True))
  expected = -(
    (log_p[0, 0] + log_p[0, 2] + log_p[2, 0] + log_p[2, 2]) / 2 + log_p[1, 1]
  )
  np.testing.assert_allclose(found.image_to_text, expected / 3, rtol=1e-5)
  transposed = contrastive_losses(logits.T, text)
  np.testing.assert_allclose(found.text_to_image, transposed.image_to_text, rtol=1e-6)
  np.testing.assert_allclose(found.total, sum(found[:2]) / 2, rtol=1e-6)


def test_retrieval_counts_any_image_of_the_prompt():
  features = np.eye(3, dtype=np.float32)
  prompts = np.array(['a', 'b', 'a'])
  swapped = features[[2, 1, 0]]
  assert retrieval(features, swapped, prompts) == {
    'retrieval/image_to_text': 1.0,
    'retrieval/text_to_image': 1.0,
    'retrieval/chance': pytest.approx(5 / 9),
  }
  shifted = features[[1, 2, 0]]
  found = retrieval(features, shifted, np.array(['a', 'b', 'c']))
  assert found['retrieval/image_to_text'] == 0


def test_negatives_are_those_of_all_devices(data_dir):
  config = small(data_dir)
  batch = random_batch(config, 8)
  batch.text[:] = np.random.default_rng(0).integers(0, SIZE - 2, batch.text.shape)
  batch.text[:, :, -1] = SIZE - 1
  found = []
  for devices in (1, 8):
    setup = set_up(make_task(config), jax.devices()[:devices])
    step = jax.jit(setup.make_train_step(), **setup.jit_options)
    with jax.set_mesh(setup.mesh):
      on_devices = sharding.put_batch(batch, setup.mesh)
      _, metrics = step(setup.states.make(0), on_devices, jax.random.key(0))
    found.append(jax.device_get(metrics))
  one, eight = found
  for name in ('loss/total', 'gradient_norm'):
    np.testing.assert_allclose(one[name], eight[name], rtol=1e-4)


def test_trained_exported_and_read_back(data_dir, tmp_path):
  config = small(data_dir)
  runs.run_training(config, tmp_path)
  metrics = json.loads((tmp_path / 'eval' / 'test-4.json').read_text())
  assert metrics.keys() == {
    f'retrieval/{name}' for name in ('image_to_text', 'text_to_image', 'chance')
  }
  export(config, epath.Path(tmp_path), Interruption())
  folder = tmp_path / 'export'
  assert config.clip.to_dict() == clip_settings(folder)
  stored = runs.read_checkpoint(tmp_path, 4)
  params = load(folder)['clip']
  for path, array in by_path(params).items():
    np.testing.assert_array_equal(array, stored[f'params/clip/{path}'], path)
  tokenizer = ClipTokenizer(folder, 'huggingface', TEXT)
  assert (tokenizer.size, tokenizer.end_id) == (SIZE, SIZE - 1)
  # A second export replaces the first, but nothing else.
  export(config, epath.Path(tmp_path), Interruption())
  (tmp_path / 'note').touch()
  kept = {path.name for path in tmp_path.iterdir()}
  # Through a link, it is the folder that is replaced.
  (tmp_path / 'link').symlink_to(folder)
  config.export.dir = str(tmp_path / 'link')
  export(config, epath.Path(tmp_path), Interruption())
  assert (tmp_path / 'link').is_symlink()
  # Neither a folder of reports, nor a work directory, which has a config.json too, nor
  # someone else's CLIP, nor one to which something was added.
  for name in ('other', 'more'):
    shutil.copytree(folder, tmp_path / name)
  fields = json.loads((folder / 'config.json').read_text())
  del fields['exported_by']
  (tmp_path / 'other' / 'config.json').write_text(json.dumps(fields))
  (tmp_path / 'more' / 'notes.txt').touch()
  kept |= {'other', 'more', 'link'}
  for place in (*(tmp_path / name for name in ('eval', 'note', *kept)), tmp_path):
    if place.resolve() == folder:
      continue
    config.export.dir = str(place)
    with pytest.raises(InputError, match='exists and is not an exported CLIP'):
      export(config, epath.Path(tmp_path), Interruption())
  assert {path.name for path in tmp_path.iterdir()} == kept


def test_a_run_keeps_its_vocabulary(data_dir, tmp_path):
  """Even if the data has other prompts than when it began."""
  config = small(data_dir)
  runs.run_training(config, tmp_path)
  setup = set_up(make_task(config), jax.devices()[:1])
  own = read_vocabulary(tmp_path / 'vocabulary')
  changed = Vocabulary(own.ids, own.merges[::-1])
  write_vocabulary(epath.Path(tmp_path / 'vocabulary'), changed)
  session = setup.task.open(setup, epath.Path(tmp_path))
  assert session.data.tokenizer.vocabulary == changed


def test_features_that_are_not_finite():
  features = np.full((2, 3), np.nan, np.float32)
  with pytest.raises(InputError, match='features are NaN'):
    retrieval(features, features, np.array(['a', 'b']))


def test_only_aligned_prompts_are_trained_on(data_dir):
  config = small(data_dir)
  task = make_task(config)
  session = task.open(set_up(task, jax.devices()[:1]), epath.Path('none'))
  counts = session.data.split('train').misaligned_counts()
  assert 0 < np.sum(counts == 0) < len(counts)
  batches = session.train_batches(0)
  seen = np.concatenate([next(batches).index for _ in range(6)])
  assert np.all(counts[seen] == 0)
  split = open_split(session.data.directory, 'train')
  assert [split[i].keyword_labels.count(0) for i in range(len(split))] == [*counts]


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'train.accumulate': 2}, r'config\.train\.accumulate = 2, but'),
    ({'clip.image_size': 32}, r'config\.model\.image_size = 64, but .* must be 32'),
  ],
)
def test_settings_that_do_not_fit(data_dir, change, message):
  config = small(data_dir)
  config.update_from_flattened_dict(change)
  with pytest.raises(InputError, match=message):
    make_task(config)


def test_a_vocabulary_that_the_prompts_do_not_fill(data_dir):
  config = small(data_dir)
  config.clip.vocab_size = 5000
  task = make_task(config)
  with pytest.raises(InputError, match=r'vocab_size = 5000 does not fit: .* 514 to'):
    task.open(set_up(task, jax.devices()[:1]), epath.Path('none'))


def test_a_learned_vocabulary_reads_back(tmp_path):
  folder = clip_directory.write(tmp_path / 'clip')
  tokenizer = ClipTokenizer(folder, 'huggingface')
  whole = tokenizer.ids('circle')
  assert whole[0] == tokenizer.end_id - 1
  assert len(whole) < 2 + len('circle')
  # Any other text falls apart into bytes.
  assert len(tokenizer.ids('Ü')) == 4


def test_tokens_of_words():
  texts = ['two small blue squares']
  vocabulary = train_vocabulary(clip_directory.PROMPTS, SIZE)
  tokenizer = ClipTokenizer(vocabulary, 'huggingface', prefix='A picture of ')
  spans = [(0, 3), (4, 9), (10, 14), (15, 22)]
  found = tokenizer.tokens_of(texts[0], spans)
  ids = tokenizer.encode(texts).ids[0]
  letters = {number: token for token, number in tokenizer.vocabulary.ids.items()}
  words = [''.join(letters[ids[i]] for i in tokens) for tokens in found]
  assert words == ['two</w>', 'small</w>', 'blue</w>', 'squares</w>']
  short = ClipTokenizer(tokenizer.vocabulary, 'huggingface', 8)
  assert short.tokens_of(texts[0], spans)[-1] == []  # Cut off.
