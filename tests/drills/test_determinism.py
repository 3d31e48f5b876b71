"""Reproducibility: bitwise on one machine, to 1e-5 in any batch and mesh."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
import util
from etils import epath
from inference_files import write_folder, write_table

import rahf
import runs
import served
import tiny
import tiny_model
from rahf import config as config_lib
from rahf import infer
from rahf.data import label_words, schema
from rahf.data.images import codec
from rahf.data.storage.records import open_split
from rahf.data.tokenizer import Tokenizer
from rahf.evaluation import samples
from rahf.infer import Job
from rahf.inference import write_directory
from rahf.inference.model_directory import Description
from rahf.models.rahf import RAHF
from rahf.runtime import sharding
from rahf.runtime.preemption import Interruption
from rahf.tasks import make_task
from rahf.training.setup import set_up

# Tolerance of scores, maps and words, in float32.
TOLERANCE = 1e-5
# Settings that may differ between two processes without changing results.
SURROUNDINGS = [
  {'PYTHONHASHSEED': '1', 'TF_NUM_INTEROP_THREADS': '1', 'OMP_NUM_THREADS': '1'},
  {'PYTHONHASHSEED': '2', 'TF_NUM_INTEROP_THREADS': '7', 'TZ': 'Asia/Tokyo'},
]


def wait_for_success(processes):
  """Waits for processes that run in parallel."""
  for process in processes:
    _, errors = process.communicate(timeout=500)
    assert process.returncode == 0, errors


def contents(folder):
  """Returns the contents of all files below a folder by path."""
  return {
    str(path.relative_to(folder)): path.read_bytes()
    for path in sorted(pathlib.Path(folder).rglob('*'))
    if path.is_file()
  }


# The same bits


def test_training_and_its_evaluations(trained, data_dir, tmp_path):
  """Compared with each other, and with a run in a process that did other work first."""
  workdirs = [tmp_path / str(number) for number in range(2)]
  wait_for_success(
    [
      runs.start_tiny(data_dir, f'--workdir={workdir}', **environment)
      for workdir, environment in zip(workdirs, SURROUNDINGS, strict=True)
    ]
  )
  for workdir in workdirs:
    runs.assert_same_run(trained, workdir)


def exported(folder):
  """Returns the files of an export, without Orbax's times and random names."""
  files = {n: data for n, data in contents(folder).items() if 'params/' not in n}
  description = json.loads(files['model.json'])
  # model.json contains the digests of Orbax's files too.
  del description['sha256']
  for name in [n for n in description['files'] if n.startswith('params/')]:
    del description['files'][name]
  return files | {'model.json': description}


def test_exports(trained, data_dir, tmp_path):
  """`test_concurrency` compares the files of evaluations with those of training."""
  targets = [tmp_path / str(number) for number in range(2)]
  wait_for_success(
    [
      runs.start_tiny(
        data_dir,
        *(f'--workdir={trained}', '--mode=export', f'--config.export.dir={target}'),
        **environment,
      )
      for target, environment in zip(targets, SURROUNDINGS, strict=True)
    ]
  )
  one, other = map(exported, targets)
  assert one == other
  assert len(one) == 4


def test_inference(tmp_path):
  model, folder = served.write_model(tmp_path), write_folder(tmp_path / 'images', 20)
  outputs = [tmp_path / str(number) for number in range(2)]
  flags = '--mode=infer', f'--model={model}', f'--input={folder}', '--maps=png'
  wait_for_success(
    [
      runs.start(*flags, f'--output={output}', **environment)
      for output, environment in zip(outputs, SURROUNDINGS, strict=True)
    ]
  )
  one, other = map(contents, outputs)
  manifests = [json.loads(found.pop('manifest.json')) for found in (one, other)]
  assert [manifest['job'].pop('output') for manifest in manifests] == [
    *map(str, outputs)
  ]
  assert manifests[0] == manifests[1]
  assert one == other
  assert len(one) == 2 + 2 * 20  # Lock, results, maps.


def test_data(tmp_path):
  command = [sys.executable, '-m', 'rahf.data', 'prepare', 'shapes']
  folders = [tmp_path / str(number) for number in range(2)]
  wait_for_success(
    [
      subprocess.Popen(
        [*command, f'--out={folder}', '--train=40', '--dev=5', '--test=5'],
        cwd=runs.ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
      )
      for folder, environment in zip(folders, SURROUNDINGS, strict=True)
    ]
  )
  one, other = map(contents, folders)
  assert one.keys() == other.keys()
  # TFDS writes the features of a record in an order that depends on the process: bytes
  # and checksums of shards differ, records do not.
  named = {
    name for name in one if '.tfrecord' in name or name.endswith('manifest.json')
  }
  assert {name for name in one if one[name] != other[name]} <= named
  assert len(named) == 4
  for split in schema.SPLITS:
    found = [
      open_split(next(folder.rglob('dataset_info.json')).parent, split)
      for folder in folders
    ]
    for records in zip(*found, strict=True):
      np.testing.assert_equal(*(record._asdict() for record in records))


# Any batch


def example(number):
  """Images of all sizes, and prompts from one word to too many."""
  rng = np.random.default_rng(number)
  height, width = 2 ** rng.integers(0, 10, 2)
  pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
  parts = ['a red circle', 'blue', 'two  squares,', '"猫"', 'at the left!']
  length = (1, 2, 5, 60)[number % 4]
  return pixels, ' '.join(parts[i] for i in rng.integers(0, len(parts), length))


def assert_near(found, expected):
  assert found.prompt == expected.prompt
  assert found.scores == pytest.approx(expected.scores, rel=0, abs=TOLERANCE)
  for name, heatmap in expected.small_maps.items():
    np.testing.assert_allclose(found.small_maps[name], heatmap, rtol=0, atol=TOLERANCE)
  (marked, p), (others, q) = (
    zip(*one.keywords, strict=True) for one in (found, expected)
  )
  assert marked == others
  np.testing.assert_allclose(p, q, rtol=0, atol=TOLERANCE)


def check_batches(directory, count, sizes):
  """Scores examples at any position in batches of all sizes, with any neighbours."""
  prepare = rahf.load(directory, batch_size=1).prepare
  models = {size: rahf.load(directory, batch_size=size) for size in (3, 8, 64)}
  assert {s for m in models.values() for s in m.buckets} >= {1, 2, 3, 8, 16, 64}
  examples = [prepare(*example(number)) for number in range(count)]
  single = [models[64].score_examples([one])[0] for one in examples]
  # Otherwise the test would show nothing.
  for spread in (
    np.ptp([[*one.scores.values()] for one in single], axis=0),
    np.ptp([one.small_maps['misalignment'] for one in single], axis=0).max(),
    # Truncated words are NaN.
    np.ptp([p for one in single for _, p in one.keywords if p == p]),
  ):
    assert np.all(spread > 100 * TOLERANCE)
  assert {one.truncated for one in single} == {False, True}
  rng = np.random.default_rng(0)
  for size in sizes:
    model = next(models[top] for top in models if size in models[top].buckets)
    for _ in range(max(1, count // size)):
      chosen = rng.integers(0, count, size)
      for number, found in zip(
        chosen, model.score_examples([examples[i] for i in chosen]), strict=True
      ):
        assert_near(found, single[number])


def test_scoring_in_batches(tmp_path):
  check_batches(served.write_model(tmp_path), 24, (1, 2, 3, 8, 16, 64))


def test_scoring_in_batches_by_a_larger_model(tmp_path, long):
  """At the quickstart's sizes."""
  if not long:
    pytest.skip('takes minutes: --long')
  from configs import quickstart

  config = quickstart.get_config()
  tokenizer = Tokenizer(util.train_model(tmp_path / 'spiece', '_0'))
  sizes = config_lib.model_config(config)
  params = tiny_model.make_params(RAHF(sizes))
  description = Description(
    sizes, 7, config.data.text_length, config.data.target_length
  )
  write_directory.write(epath.Path(tmp_path / 'model'), description, params, tokenizer)
  check_batches(tmp_path / 'model', 64, (1, 2, 3, 8, 16, 64) * 3)


def test_inference_in_batches(tmp_path):
  """On eight devices, and with unreadable rows in between."""
  model = served.write_model(tmp_path)
  (tmp_path / 'images').mkdir()
  table = []
  for number in range(30):
    pixels, prompt = example(number)
    (tmp_path / f'images/{number}.png').write_bytes(codec.encode_png(pixels))
    table.append({'image': f'images/{number}.png', 'prompt': prompt})
  for number in (3, 17):
    table[number]['prompt'] = ''
  given = write_table(tmp_path / 'table.jsonl', table)
  found = []
  for size in (1, 3):
    output = tmp_path / f'out-{size}'
    job = Job(str(model), str(given), str(output), batch_size=size)
    assert infer.infer(job, Interruption()) == 1
    found.append([json.loads(line) for line in (output / 'results.jsonl').open()])
  single = rahf.load(model, batch_size=1)
  for number, rows in enumerate(zip(*found, strict=True)):
    if number in (3, 17):
      assert all('its prompt is' in row['error'] for row in rows)
      continue
    (expected,) = single.score(*example(number))
    for row in rows:
      scores = {name: row[name] for name in expected.scores}
      assert scores == pytest.approx(expected.scores, rel=0, abs=TOLERANCE)
      pairs = zip(row['keywords'], expected.keywords, strict=True)
      for word, (_, p) in pairs:
        assert (np.nan if word['p_misaligned'] is None else word['p_misaligned']) == (
          pytest.approx(p, rel=0, abs=TOLERANCE, nan_ok=True)
        )


PROMPTS = ('', ' . ', 'a', 'a yellow cat', 'very ' * 50 + 'long')


def test_evaluation_in_batches(tmp_path, long):
  """Includes empty prompts, which scoring refuses."""
  if not long:
    pytest.skip('only with --long; `test_evaluate` compares metrics')
  records = [
    util.make_record(
      number,
      size=16 + 20 * number,
      prompt=(prompt := PROMPTS[number % 5]),
      tokens=(tokens := tuple(label_words.label_tokens(prompt))),
      keyword_labels=tuple(k % 2 for k in range(len(tokens))),
    )
    for number in range(10)
  ]
  data = tmp_path / 'data' / util.NAME / '1.0.0'
  util.write_split(data, 'dev', records)
  config = tiny.get_config(tmp_path / 'data')
  config.data.name = util.NAME
  config.tokenizer = str(util.train_model(tmp_path / 'tokenizer.model', '_0'))
  task = make_task(config)
  variables = {'params': tiny_model.make_params(task.model)}
  found = []
  for size in (1, 16):
    config.eval.batch_size = size
    setup = set_up(task, jax.devices()[:1])
    session = task.open(setup, epath.Path())
    with jax.set_mesh(setup.mesh):
      evaluation = session.evaluator().measure(variables, session.data.split('dev'))
    found.append(evaluation.samples)
  for expected, *others in zip(*found, strict=True):
    for sample in others:
      assert (sample.uid, sample.marked) == (expected.uid, expected.marked)
      for name in ('predicted', 'p_misaligned'):
        np.testing.assert_allclose(
          getattr(sample, name), getattr(expected, name), rtol=0, atol=TOLERANCE
        )
      for name, values in expected.maps.items():
        assert sample.maps[name]['mse'] == pytest.approx(values['mse'], abs=TOLERANCE)
        assert sample.maps[name]['cc'] == pytest.approx(values['cc'], abs=TOLERANCE)


# Any mesh


@pytest.mark.parametrize(
  ('devices', 'mesh'), [(1, (1, 1, 1)), (2, (2, 1, 1)), (4, (4, 1, 1)), (4, (1, 2, 2))]
)
def test_training_on_other_meshes(trained, data_dir, tmp_path, long, devices, mesh):
  """Dropout included: random numbers do not depend on the mesh."""
  if not long:
    pytest.skip('only with --long; `test_step` and `test_distributed` do less')
  flag = '--xla_force_host_platform_device_count'
  flags = os.environ['XLA_FLAGS'].replace(f'{flag}=8', f'{flag}={devices}')
  workdir = tmp_path / 'run'
  process = runs.start_tiny(
    data_dir,
    f'--workdir={workdir}',
    *(f'--config.mesh.{axis}={n}' for axis, n in zip(sharding.AXES, mesh, strict=True)),
    XLA_FLAGS=flags,
  )
  wait_for_success([process])
  runs.assert_close(runs.read_untimed(workdir), runs.read_untimed(trained))
  found, expected = (
    samples.read(epath.Path(folder) / 'eval/dev-4.samples.jsonl')
    for folder in (workdir, trained)
  )
  for one, other in zip(found, expected, strict=True):
    # Adam turns gradients that are only rounding errors into full steps.
    np.testing.assert_allclose(one.predicted, other.predicted, rtol=0, atol=1e-3)
