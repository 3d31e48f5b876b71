"""Compares the speed of our model with its twin in PyTorch.

  python benchmarks/side_by_side.py --config=configs/multi_head.py \\
    --config.model.image_size=256 --config.model.dtype=float32 \\
    --config.model.remat=none --config.train.batch_size=1 --config.train.accumulate=1

Both run in child processes with the config's sizes, the same batch and one device. They
take turns, and repeat a task several times per turn; with --in_turn=false, one runs
after the other has ended, where memory does not suffice for both. On a GPU, the twin
uses autocast and torch.compile, except for transformers' `generate`, which is eager. On
a CPU, it is eager unless --torch_compile is given. Finally compares AUC-Judd by
sorting, as in rahf.metrics, with counting at each threshold. Needs the extra `parity`.
"""

import contextlib
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from multiprocessing.connection import Connection
from typing import Any

import machine
import numpy as np
from absl import app, flags
from ml_collections import ConfigDict, config_flags

import metrics
from rahf.drawing.markdown import markdown_table
from rahf.metrics import saliency

TRAINING, INFERENCE, JUDGED, KEYWORDS = 'training', 'inference', 'judged', 'keywords'
TASKS = {
  TRAINING: 'training step',
  INFERENCE: 'inference, all outputs, greedy keywords',
  JUDGED: 'the same, but ours judges each word along the prompt',
  KEYWORDS: 'greedy keywords alone',
}
# Seconds between turns: threads keep polling for work for a while.
PAUSE = 0.5
# The least seconds and repetitions of a turn. The first repetition is slower, as the
# other process has used the caches.
TURN, TIMES = 1.0, 3
PRODUCT_SIDE = 4096

_CONFIG = config_flags.DEFINE_config_file(
  'config', 'configs/quickstart.py', 'Config of both models.'
)
_TASKS = flags.DEFINE_list('tasks', [*TASKS], 'What to time.')
_REPEATS = flags.DEFINE_integer('repeats', 5, 'Turns of each model per task.')
_IN_TURN = flags.DEFINE_boolean(
  'in_turn', True, 'Keep both models in memory, so that they take turns.'
)
_COMPILE = flags.DEFINE_boolean(
  'torch_compile', None, 'Use torch.compile for the twin (default: on GPUs only).'
)


def main(argv: list[str]) -> None:
  del argv
  config = _CONFIG.value
  if missing := [n for n in ('torch', 'transformers') if not find_spec(n)]:
    raise app.UsageError(f'{" and ".join(missing)} missing: pip install "rahf[parity]"')
  if unknown := set(_TASKS.value) - set(TASKS):
    raise app.UsageError(f'--tasks={",".join(unknown)} is not one of {[*TASKS]}')
  if config.train.accumulate != 1:
    raise app.UsageError('config.train.accumulate must be 1, as in the twin')
  print(machine.processor())
  # By default, JAX would reserve most of a GPU's memory.
  os.environ['XLA_PYTHON_CLIENT_PREALLOCATE'] = 'false'
  models = (serve_ours, config), (serve_twin, config, _COMPILE.value)
  if _IN_TURN.value:
    hellos, seconds = measure(*models)
  else:
    (ours, our_seconds), (twin, twin_seconds) = map(measure, models)
    hellos = ours + twin
    seconds = {task: our_seconds[task] + twin_seconds[task] for task in _TASKS.value}
  (device, flops, rate), twin = hellos
  print(f'ours: {device}\ntwin: {twin}')
  medians = {task: [*map(statistics.median, found)] for task, found in seconds.items()}
  rows = [
    [TASKS[task], *(f'{s:.3g}' for s in seconds), f'{seconds[1] / seconds[0]:.2f}']
    for task, seconds in medians.items()
  ]
  header = ('', 'ours, s', 'PyTorch, s', 'times as fast')
  of_maps = time_metrics()
  print(
    f'{config.model.variant}, {config.model.image_size} px, {config.model.dtype}, '
    f'{config.train.batch_size} images, {config.data.target_length} tokens, medians of '
    f'{_REPEATS.value} turns\n\n{markdown_table(header, rows)}\n'
  )
  if TRAINING in medians:
    achieved = flops / medians[TRAINING][0]
    print(
      f'Training: {achieved / 1e12:.3g} TFLOP/s, {achieved / rate:.0%} of a matrix '
      f'product of {PRODUCT_SIDE}.'
    )
  print(
    f'AUC-Judd of a pair of maps: {of_maps[0] * 1e3:.3g} ms, by thresholds '
    f'{of_maps[1] * 1e3:.3g} ms, {of_maps[1] / of_maps[0]:.0f} times as long.'
  )


def measure(*models: tuple) -> tuple[list, dict[str, list[list[float]]]]:
  """Runs models, each a function for `worker` with its arguments, in turn.

  Returns:
    What each model says first; for each task and model the seconds of repetitions.
  """
  with contextlib.ExitStack() as stack:
    pipes = [stack.enter_context(worker(*model)) for model in models]
    hellos = [pipe.recv() for pipe in pipes]
    return hellos, {task: in_turn(task, pipes, _REPEATS.value) for task in _TASKS.value}


@contextlib.contextmanager
def worker(serve: Callable, *arguments):
  """Yields a pipe to a process: task name -> its timings in seconds; None ends it."""
  context = multiprocessing.get_context('spawn')
  here, there = context.Pipe()
  process = context.Process(target=serve, args=(there, *arguments), daemon=True)
  process.start()
  there.close()  # So that the pipe ends here when the process dies.
  try:
    yield here
    here.send(None)
    process.join()
  except EOFError:
    sys.exit('error: the process above has failed')
  finally:
    process.kill()


def answer(pipe: Connection, tasks: dict[str, Callable[[], None]]) -> None:
  while (task := pipe.recv()) is not None:
    seconds: list[float] = []
    while sum(seconds) < TURN or len(seconds) < TIMES:
      start = time.perf_counter()
      tasks[task]()
      seconds.append(time.perf_counter() - start)
    pipe.send(seconds)


def in_turn(task: str, pipes: list[Connection], repeats: int) -> list[list[float]]:
  """Returns the seconds of each repetition by model, after a warm-up turn."""
  seconds: list[list[float]] = [[] for _ in pipes]
  for turn in range(1 + repeats):
    for pipe, found in zip(pipes, seconds, strict=True):
      pipe.send(task)
      times = pipe.recv()
      found.extend(times if turn else [])
      time.sleep(PAUSE)
  return seconds


def serve_ours(pipe: Connection, config: ConfigDict) -> None:
  import jax
  import jax.numpy as jnp

  from rahf.costs import work
  from rahf.models.rahf import RAHF
  from rahf.runtime import sharding
  from rahf.tasks import make_task
  from rahf.tasks.feedback import ANY_MARK_IDS
  from rahf.training.batch_spec import random_batch
  from rahf.training.setup import set_up

  setup = set_up(make_task(config), jax.devices()[:1])
  model, states, mesh = setup.task.model, setup.states, setup.mesh
  key, length = jax.random.key(0), config.data.target_length
  batch = random_batch(config, config.train.batch_size)
  train_step = jax.jit(setup.make_train_step(), **setup.jit_options)

  def infer(model: RAHF, batch) -> Any:
    fused = model.encode(batch.image, batch.text, train=False)
    found = model.maps_and_scores(fused)
    return found.maps, found.scores, model.decode_greedily(fused, length)

  def judge(model: RAHF, batch) -> Any:
    fused = model.encode(batch.image, batch.text, train=False)
    words = model.judge_words(
      fused,
      batch.text[:, -1],
      batch.word_end,
      mark_ids=ANY_MARK_IDS,
      sequential=True,
      length=length,
    )
    found = model.maps_and_scores(fused)
    return found.maps, found.scores, words

  def encode(model: RAHF, batch) -> Any:
    return model.encode(batch.image, batch.text, train=False)

  def decode(model: RAHF, fused) -> Any:
    return model.decode_greedily(fused, length)

  def method(function: Callable) -> Callable:
    return jax.jit(
      lambda params, x: model.apply({'params': params}, x, method=function)
    )

  infer, judge, encode, decode = map(method, (infer, judge, encode, decode))

  def product_rate() -> float:
    matrix = jnp.ones((PRODUCT_SIDE, PRODUCT_SIDE), config.model.dtype)
    product = jax.jit(jnp.matmul)
    seconds = []
    for _ in range(6):
      start = time.perf_counter()
      jax.block_until_ready(product(matrix, matrix))
      seconds.append(time.perf_counter() - start)
    return 2 * PRODUCT_SIDE**3 / statistics.median(seconds[1:])

  with jax.set_mesh(mesh):
    needed = work.total(work.count(train_step, states.abstract, batch, key))
    batch = sharding.put_batch(batch, mesh)
    state = states.make(config.seed)
    fused = encode(state.params, batch)
    if not np.asarray(decode(state.params, fused))[:, -1].any():
      raise RuntimeError('all texts ended early; choose another config.seed')

    def train() -> None:
      nonlocal state
      state, found = train_step(state, batch, key)
      jax.block_until_ready(found)

    pipe.send((machine.accelerator(), needed.flops, product_rate()))
    tasks = {
      TRAINING: train,
      INFERENCE: lambda: jax.block_until_ready(infer(state.params, batch)),
      JUDGED: lambda: jax.block_until_ready(judge(state.params, batch)),
      KEYWORDS: lambda: jax.block_until_ready(decode(state.params, fused)),
    }
    answer(pipe, tasks)


def serve_twin(pipe: Connection, config: ConfigDict, compiled: bool | None) -> None:
  import torch
  from torch.nn import functional
  from torch_twin import Twin

  from rahf import config as config_lib
  from rahf.training.batch_spec import random_batch

  torch.manual_seed(0)
  on_gpu = torch.cuda.is_available()
  compiled = on_gpu if compiled is None else compiled
  device = torch.device('cuda' if on_gpu else 'cpu')
  twin = Twin(config_lib.model_config(config)).to(
    device, memory_format=torch.channels_last
  )
  batch = random_batch(config, config.train.batch_size)
  image, text, target, maps, scores = (
    torch.tensor(array, device=device)
    for array in (batch.image, batch.text, batch.target, batch.maps, batch.scores)
  )
  image = image.permute(0, 3, 1, 2)  # Channels stay last in memory.
  text, target = text.long(), target.long()
  length = config.data.target_length
  options, weights = config.optimizer, config.loss
  optimizer = torch.optim.AdamW(
    twin.parameters(),
    options.learning_rate,
    (options.b1, options.b2),
    weight_decay=options.weight_decay,
    fused=True,
  )
  maybe_compiled = torch.compile if compiled else lambda function: function
  forward = maybe_compiled(twin.forward)
  encode = maybe_compiled(twin.encode)
  read = maybe_compiled(twin.maps_and_scores)

  # For float32, XLA uses TF32 on GPUs.
  torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
  synchronize = torch.cuda.synchronize if on_gpu else lambda: None

  def precision() -> contextlib.AbstractContextManager:
    dtype = getattr(torch, config.model.dtype)
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)

  def train() -> None:
    twin.train()
    with precision():
      found = forward(image, text, target)
    loss = (
      weights.heatmap * (found.maps - maps).square().mean((0, 2, 3)).sum()
      + weights.score * (found.scores - scores).square().mean(0).sum()
      + weights.sequence
      * functional.cross_entropy(found.logits.float().flatten(0, 1), target.flatten())
    )
    loss.backward()
    torch.nn.utils.clip_grad_norm_(twin.parameters(), options.clip_norm)
    optimizer.step()
    optimizer.zero_grad()
    synchronize()

  def infer() -> None:
    twin.eval()
    with torch.inference_mode(), precision():
      tokens, mask = encode(image, text)
      read(tokens), twin.decode_greedily(tokens, mask, length)
    synchronize()

  twin.eval()
  with torch.inference_mode(), precision():
    fused = encode(image, text)

  def decode() -> None:
    twin.eval()
    with torch.inference_mode(), precision():
      twin.decode_greedily(*fused, length)
    synchronize()

  name = (
    torch.cuda.get_device_name() if on_gpu else f'{torch.get_num_threads()} threads'
  )
  pipe.send(
    f'PyTorch {torch.__version__} ({name}), {"compiled" if compiled else "eager"}'
  )
  answer(pipe, {TRAINING: train, INFERENCE: infer, JUDGED: infer, KEYWORDS: decode})


def time_metrics() -> tuple[float, float]:
  """Returns the seconds of AUC-Judd by sorting and by thresholds."""
  pair = metrics.example()
  ours = metrics.median_ms(lambda: saliency.auc_judd(*pair), 20)
  by_thresholds = metrics.median_ms(lambda: metrics.auc_judd_by_counting(*pair), 3)
  return ours / 1000, by_thresholds / 1000


if __name__ == '__main__':
  app.run(main)
