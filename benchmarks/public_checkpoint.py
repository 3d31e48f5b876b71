"""Measures time and memory of exporting and using the public checkpoint.

  python benchmarks/public_checkpoint.py --tokenizer=spiece.model [--scratch=DIR]

Writes archives of random values with `torch.save`, with the names, shapes and sizes of
the public checkpoint (ViT-L/16 at 384 px), and the same with a ViT-B/16: 2.6 and 1.7
GB. Then, in separate processes, exports each archive, and loads the model and scores an
image of noise. Needs the extra `parity` (PyTorch), T5's tokenizer, and disk space of
twice the archive's size.
"""

import collections
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import machine
import numpy as np
from absl import app, flags

from rahf.evaluation.paper_tables import markdown_table

_TOKENIZER = flags.DEFINE_string('tokenizer', None, "T5's spiece.model.")
_SCRATCH = flags.DEFINE_string('scratch', None, 'Parent of the temporary folder.')
_VITS = flags.DEFINE_list('vits', ['L', 'B'], 'Sizes of the ViTs.')
_WRITE = flags.DEFINE_string('write', None, 'Used internally: writes this archive.')
_SCORE = flags.DEFINE_string('score', None, 'Used internally: scores with this model.')

ROOT = pathlib.Path(__file__).parents[1]
PATCH, SIDE = 16, 24
VOCABULARY, WIDTH, MLP, LAYERS = 32128, 768, 3072, 12
# Width, MLP and layers.
VITS = {'L': (1024, 4096, 24), 'B': (768, 3072, 12)}
MAPS = ('implausibility', 'misalignment')
SCORES = ('plausibility', 'alignment', 'aesthetics', 'overall')

Shapes = Iterator[tuple[str, tuple[int, ...]]]


def main(argv: list[str]) -> None:
  del argv
  if _WRITE.value:
    write(pathlib.Path(_WRITE.value), _VITS.value[0])
    return
  if _SCORE.value:
    score(_SCORE.value)
    return
  if not _TOKENIZER.value:
    raise app.UsageError("--tokenizer is missing: T5's spiece.model")
  print(machine.processor(), flush=True)
  rows = []
  for vit in _VITS.value:
    with tempfile.TemporaryDirectory(dir=_SCRATCH.value) as scratch:
      rows += measure(pathlib.Path(scratch), vit)
  print(markdown_table(['', 'seconds', 'peak memory, GB'], rows))


def measure(folder: pathlib.Path, vit: str) -> list[list[str]]:
  """Returns the table's rows of one archive."""
  archive, model, script = folder / 'rahf_model.pt', folder / 'model', __file__
  run(sys.executable, script, f'--write={archive}', f'--vits={vit}')
  name, size = f'ViT-{vit}/16', archive.stat().st_size / 1e9
  exported = run(
    *(sys.executable, '-m', 'rahf.main', f'--config={ROOT}/configs/rahf_torch.py'),
    *(f'--config.init.rahf={archive}', f'--config.tokenizer={_TOKENIZER.value}'),
    *('--mode=export', f'--config.export.dir={model}'),
  )
  archive.unlink()
  scored = run(sys.executable, script, f'--score={model}')
  return [
    [f'{name}: export of {size:.2f} GB', *exported],
    [f'{name}: load and score one image', *scored],
  ]


def run(*command: str) -> list[str]:
  """Runs a command; returns its seconds and its peak memory in GB.

  Linux includes the memory of the parent at the start, so this process must stay small.
  """
  start = time.perf_counter()
  process = subprocess.Popen(command, cwd=ROOT)
  _, status, usage = os.wait4(process.pid, 0)
  if status:
    sys.exit(f'error: {" ".join(command)} failed')
  seconds = time.perf_counter() - start
  return [f'{seconds:.1f}', f'{usage.ru_maxrss * 1024 / 1e9:.2f}']


def score(path: str) -> None:
  """Loads a model and scores an image twice, with and without compilation."""
  start = time.perf_counter()
  import rahf

  print(machine.accelerator())
  model = rahf.load(path, batch_size=1)
  loaded = time.perf_counter()
  print(f'loaded in {loaded - start:.1f} s')
  image = np.random.default_rng(0).integers(0, 256, (384, 384, 3), np.uint8)
  for which in ('first', 'second'):
    start = time.perf_counter()
    (found,) = model.score(image, 'a red circle, a blue square')
    print(f'{which} image in {time.perf_counter() - start:.2f} s: {found.scores}')


def write(path: pathlib.Path, vit: str) -> None:
  """Writes an archive of random values, small enough for finite outputs."""
  import torch

  torch.manual_seed(0)
  state = collections.OrderedDict()
  for name, shape in shapes(*VITS[vit]):
    state[name] = torch.empty(shape).normal_(std=0.02)
    if (len(shape) == 1 and not name.endswith('bias')) or name.endswith('scale'):
      state[name] += 1
  total = sum(tensor.numel() for tensor in state.values())
  for module in ('encoder.embed_tokens', 'decoder.embed_tokens', 'lm_head'):
    state[f't5.{module}.weight'] = state['t5.shared.weight']
  torch.save(state, path)
  print(f'ViT-{vit}/16: {total:,} values written', flush=True)


def shapes(width: int, mlp: int, layers: int) -> Shapes:
  """Yields names and shapes of the public checkpoint; tied ones only once."""
  yield 'vit.embeddings.cls_token', (1, 1, width)
  yield 'vit.embeddings.position_embeddings', (1, SIDE**2 + 1, width)
  patches = 'vit.embeddings.patch_embeddings.projection'
  yield from biased(patches, (width, 3, PATCH, PATCH))
  for i in range(layers):
    layer = f'vit.encoder.layer.{i}'
    for name in ('attention.query', 'attention.key', 'attention.value', 'output.dense'):
      yield from biased(f'{layer}.attention.{name}', (width, width))
    yield from biased(f'{layer}.intermediate.dense', (mlp, width))
    yield from biased(f'{layer}.output.dense', (width, mlp))
    for name in ('layernorm_before', 'layernorm_after'):
      yield from biased(f'{layer}.{name}', (width,))
  yield from biased('vit.layernorm', (width,))
  yield from biased('vit.pooler.dense', (width, width))
  yield from biased('visual_token_projection', (WIDTH, width))
  yield 't5.shared.weight', (VOCABULARY, WIDTH)
  for side in ('encoder', 'decoder'):
    yield from t5_stack(f't5.{side}', decoder=side == 'decoder')
  for name in MAPS:
    yield from heatmap_head(f'heatmap_predictor.{name}')
  for name in SCORES:
    yield from score_head(f'score_predictor.{name}')


def biased(name: str, shape: tuple[int, ...]) -> Shapes:
  yield f'{name}.weight', shape
  yield f'{name}.bias', shape[:1]


def t5_stack(stack: str, *, decoder: bool) -> Shapes:
  first = f'{stack}.block.0.layer.0.SelfAttention'
  yield f'{first}.relative_attention_bias.weight', (32, 12)
  for i in range(LAYERS):
    layer = f'{stack}.block.{i}.layer'
    attentions = ['SelfAttention', 'EncDecAttention'][: 1 + decoder]
    for j, attention in enumerate(attentions):
      for name in 'qkvo':
        yield f'{layer}.{j}.{attention}.{name}.weight', (WIDTH, WIDTH)
      yield f'{layer}.{j}.layer_norm.weight', (WIDTH,)
    last = f'{layer}.{len(attentions)}'
    yield f'{last}.DenseReluDense.wi.weight', (MLP, WIDTH)
    yield f'{last}.DenseReluDense.wo.weight', (WIDTH, MLP)
    yield f'{last}.layer_norm.weight', (WIDTH,)
  yield f'{stack}.final_layer_norm.weight', (WIDTH,)


def heatmap_head(head: str) -> Shapes:
  channels = WIDTH
  for i, width in enumerate((768, 384)):
    yield from biased(f'{head}.conv_layers.{3 * i}', (width, channels, 3, 3))
    yield f'{head}.conv_layers.{3 * i + 2}.scale', (width, 1, 1)
    channels = width
  for i, width in enumerate((768, 384, 384, 192)):
    up, pair = f'{head}.deconv_layers.{i}', f'{head}.conv_layers2.{i}'
    yield f'{up}.0.weight', (channels, width, 3, 3)
    yield f'{up}.0.bias', (width,)
    yield f'{up}.1.scale', (width, 1, 1)
    for j in (0, 3):
      yield from biased(f'{pair}.{j}', (width, width, 3, 3))
      yield f'{pair}.{j + 1}.scale', (width, 1, 1)
    channels = width
  yield from biased(f'{head}.last_conv1', (192, channels, 3, 3))
  yield from biased(f'{head}.last_conv2', (1, 192, 3, 3))


def score_head(head: str) -> Shapes:
  channels = WIDTH
  for i, width in enumerate((768, 384, 192, 96, 48, 12)):
    yield from biased(f'{head}.conv_layers.{3 * i}', (width, channels, 3, 3))
    yield f'{head}.conv_layers.{3 * i + 1}.scale', (width, 1, 1)
    channels = width
  for i, (rows, columns) in enumerate(((512, 12 * SIDE**2), (128, 512), (1, 128))):
    yield from biased(f'{head}.linear_layers.{2 * i}', (rows, columns))


if __name__ == '__main__':
  app.run(main)
