"""Constant or missing annotations and predictions: every metric is a number or a dash,
and NaN predictions are errors."""

import csv
import json
import math
import re

import jax
import numpy as np
import pytest
from etils import epath
from util import NAME, make_record, train_model, write_split

import tiny
from rahf.data import schema
from rahf.data.images import codec
from rahf.errors import InputError
from rahf.evaluation import compare_command, samples
from rahf.evaluation.paper_tables import MAP_METRICS
from rahf.evaluation.samples import EvaluatedExample
from rahf.evaluation.score_example import ExampleLabels, score
from rahf.reports.tensorboard import TensorBoardWriter
from rahf.runtime import distributed
from rahf.runtime.preemption import Interruption
from rahf.tasks import make_task
from rahf.training.setup import set_up

COUNT, STEP = 6, 3
NAN = math.nan
CORRELATIONS = ('plcc', 'srcc', 'kendall')
OF_REGIONS = ('cc', 'kld', 'sim', 'nss', 'auc_judd')
SUFFIXES = ('.json', '.md', '.html', '.samples.jsonl')


def maps(level):
  """Returns both maps at one level of 255; None means not annotated."""
  even = np.full((16, 16), level or 0, np.uint8)
  data = b'' if level is None else codec.encode_png(even)
  return {f'{name}_map': data for name in schema.MAPS}


def records(count=COUNT, **changes):
  """Returns records with varied scores, maps and words, apart from the changes."""
  found = []
  for number in range(count):
    scores = np.roll([0.0, 0.25, 0.75, 1.0], number).tolist()
    record = make_record(number, size=64, scores=tuple(scores))
    found.append(record._replace(**changes))
  return found


WORDS = len(make_record().tokens)
FLAT = (0.5,) * 4
SPLITS = {
  'usual': records(),
  'one': records(1),
  'empty': records(scores=FLAT, keyword_labels=(1,) * WORDS, **maps(0)),
  'even': records(scores=FLAT, keyword_labels=(0,) * WORDS, **maps(128)),
  'full': records(prompt=' . ', tokens=(), keyword_labels=(), **maps(255)),
  'unasked': records(scores=(NAN,) * 4, keyword_labels=(), **maps(None)),
}


def metric_names(names, *keys):
  return {f'{name}/{key}' for name in names for key in keys}


def keyword_metrics(*keys):
  return metric_names(('keywords', 'keywords_constrained'), *keys)


SCORES = metric_names(schema.SCORES, *CORRELATIONS)
NOT_EMPTY = metric_names(schema.MAPS, 'mse_empty')
CONSTANT_TRUTH = NOT_EMPTY | metric_names(schema.MAPS, 'cc', 'auc_judd')
NO_WORDS = metric_names(['keywords'], 'precision', 'recall', 'f1', 'f1_per_sample')
# Metrics that are undefined without annotations, for any varied predictions.
UNDEFINED = {
  'usual': NOT_EMPTY,
  'one': SCORES | NOT_EMPTY,
  'empty': SCORES
  | metric_names(schema.MAPS, *OF_REGIONS)
  | keyword_metrics('recall')
  | metric_names(['keywords_constrained'], 'average_precision'),
  'even': SCORES | CONSTANT_TRUTH,
  'full': CONSTANT_TRUTH | NO_WORDS,
  'unasked': SCORES
  | metric_names(schema.MAPS, 'mse', 'mse_empty', *OF_REGIONS)
  | NO_WORDS,
}
UNDEFINED_LOSSES = {
  'full': {'loss/sequence'},
  'unasked': metric_names(['loss'], 'heatmap', 'score', 'sequence', 'total'),
}
# If nothing is marked; others depend on the model.
NO_MARKS = keyword_metrics('precision', 'f1')


def undefined(metrics):
  return {name for name, value in metrics.items() if math.isnan(value)}


def constant_heads(change):
  """Returns a function that zeroes the last kernels of heads and sets their biases."""

  def all_heads(params):
    for name, head in params.items():
      for last in ('readout_1', 'score') if '_head_' in name else ():
        if last in head:
          head[last]['kernel'][...] = 0
          head[last]['bias'][...] = change
    return params

  return all_heads


@pytest.fixture(scope='module')
def evaluate(tmp_path_factory):
  """Returns a function that evaluates random parameters on a split."""
  folder = tmp_path_factory.mktemp('degenerate')
  data = folder / 'data' / NAME / '1.0.0'
  write_split(data, 'train', records(8))
  for split, found in SPLITS.items():
    write_split(data, split, found)
  config = tiny.get_config(folder / 'data')
  config.data.name = NAME
  config.tokenizer = str(train_model(folder / 'tokenizer.model', '_0'))
  task = make_task(config)
  setup = set_up(task)
  evaluator = task.open(setup, epath.Path()).evaluator()
  fresh = jax.device_get(setup.states.make(0).params)
  stop = distributed.StopSignal(Interruption(), setup.mesh)

  def run(split, workdir, change=lambda params: params):
    params = change(jax.tree.map(np.copy, fresh))
    with (
      jax.set_mesh(setup.mesh),
      TensorBoardWriter(epath.Path(workdir) / 'tensorboard') as board,
    ):
      # All splits use this threshold.
      (epath.Path(workdir) / 'eval').mkdir(parents=True, exist_ok=True)
      kept = json.dumps({'keywords_constrained/threshold': 0.5})
      (epath.Path(workdir) / f'eval/dev-{STEP}.json').write_text(kept)
      variables = {'params': params}
      metrics, _ = evaluator.evaluate(
        variables, epath.Path(workdir), STEP, split, stop, board
      )
    return metrics

  return run


def parse_strictly(text):
  """Reads JSON, refusing NaN."""

  def refuse(token):
    raise AssertionError(token)

  return json.loads(text, parse_constant=refuse)


def row_of(table, label):
  (line,) = re.findall(rf'^\| \*\*{re.escape(label)}\*\* +\|(.*)\|$', table, re.M)
  return [cell.strip() for cell in line.split('|')]


def check_files(workdir, split, metrics):
  """Checks that all tables agree, and that undefined values are null or a dash."""
  there = {
    suffix: (workdir / f'eval/{split}-{STEP}{suffix}').read_text()
    for suffix in SUFFIXES
  }
  stored = parse_strictly(there['.json'])
  assert stored == {k: None if math.isnan(v) else v for k, v in metrics.items()}
  lines = [parse_strictly(line) for line in there['.samples.jsonl'].splitlines()]
  assert len(lines) == len(SPLITS[split])
  (data,) = re.findall(
    r'<script[^>]*application/json[^>]*>(.*?)</script>', there['.html']
  )
  assert len(parse_strictly(data)['samples']) == min(len(lines), 5)
  for text in (there['.md'], there['.html'].replace(data, '')):
    assert not re.search(r'\b(nan|inf)\b', text, re.I)
  _, scores, implausibility, misalignment, *_ = there['.md'].split('\n## ')
  for name, table in zip(schema.MAPS, (implausibility, misalignment), strict=True):
    cells = row_of(table, 'this model')
    values = [stored[f'{name}/{key}'] for key in ('mse', 'mse_empty', *OF_REGIONS)]
    assert [cell == '–' for cell in cells] == [value is None for value in values]
  cells = row_of(scores, 'this model')
  order = ('plausibility', 'aesthetics', 'alignment', 'overall')
  for name, cell in zip(order, cells, strict=True):
    assert ('–' in cell) == (stored[f'{name}/plcc'] is None)


@pytest.mark.parametrize('split', SPLITS)
def test_annotations_that_define_little(evaluate, tmp_path, split):
  metrics = evaluate(split, tmp_path)
  lacking = undefined(metrics)
  expected = UNDEFINED[split] | UNDEFINED_LOSSES.get(split, set())
  assert lacking >= expected
  assert lacking - expected <= NO_MARKS
  check_files(tmp_path, split, metrics)


@pytest.mark.parametrize(
  ('bias', 'lacking'),
  [
    (0.0, ('cc', 'nss', 'auc_judd')),
    (1000.0, ('cc', 'nss', 'auc_judd')),
    (-1000.0, OF_REGIONS),
  ],
)
def test_predictions_without_variance(evaluate, tmp_path, bias, lacking):
  metrics = evaluate('usual', tmp_path, constant_heads(bias))
  map_metrics = metric_names(schema.MAPS, *lacking)
  assert undefined(metrics) - NO_MARKS == SCORES | NOT_EMPTY | map_metrics
  # The number of undefined samples is given for each.
  counted = {name for name in metrics if name.endswith('/undefined')}
  assert counted == {f'{name}/undefined' for name in map_metrics}
  assert {metrics[name] for name in counted} == {COUNT}
  check_files(tmp_path, 'usual', metrics)


def spoil_one(params):
  """Makes all maps of one kind NaN, but not scores and words."""
  params['heatmap_head_misalignment']['readout_1']['bias'][...] = np.nan
  return params


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (spoil_one, 'maps of uid-0 is NaN'),
    (constant_heads(np.nan), 'maps of uid-0 is NaN'),
    (lambda params: jax.tree.map(lambda leaf: leaf * np.nan, params), 'of uid-0 is N'),
  ],
)
def test_predictions_that_are_not_finite(evaluate, tmp_path, change, message):
  with pytest.raises(
    InputError, match=f'{message}.*parameters are not finite.*; train again'
  ):
    evaluate('usual', tmp_path, change)
  # Only the threshold, which was written before.
  assert [path.name for path in (tmp_path / 'eval').iterdir()] == [f'dev-{STEP}.json']


@pytest.mark.parametrize('part', ['scores', 'p_misaligned'])
def test_a_single_nan_is_not_averaged_away(part):
  """In scores and words only, which no parameters could cause."""
  prediction = ExampleLabels(
    np.full((2, 4, 4), 0.5), np.full(4, 0.5), (1,) * WORDS, 0, np.full(WORDS, 0.5)
  )
  getattr(prediction, part)[-1] = np.nan
  with pytest.raises(InputError, match='of uid-0 is NaN'):
    score(make_record(), prediction)


@pytest.mark.parametrize('split', ['one', 'even', 'unasked'])
def test_comparisons(evaluate, tmp_path, capsys, split):
  for name, change in (
    ('varied', lambda params: params),
    ('constant', constant_heads(0.0)),
  ):
    evaluate(split, tmp_path / name, change)
  out = tmp_path / 'comparison'
  arguments = [f'--split={split}', f'--out={out}', '--draws=100']
  folders = [str(tmp_path / name) for name in ('varied', 'constant')]
  assert compare_command.main([*folders, *arguments]) == 0, capsys.readouterr().err
  texts = {
    kind: out.with_suffix(f'.{kind}').read_text() for kind in ('md', 'csv', 'tex')
  }
  for text in texts.values():
    assert not re.search(r'\b(nan|inf)\b', text, re.I)
  rows = list(csv.DictReader(texts['csv'].splitlines()))
  assert {row['run'] for row in rows} == {'varied', 'constant'}
  lacking = {
    row['metric'] for row in rows if row['run'] == 'varied' and not row['value']
  }
  assert lacking >= UNDEFINED[split]
  # With one sample or undefined values, nothing is significant.
  marked = [line for line in texts['md'].splitlines() if {'▲', '▼'} & {*line}]
  assert bool(len(marked) > 1) == (split == 'even')  # One is the legend.


SAMPLE = EvaluatedExample(
  'a',
  FLAT,
  FLAT,
  {name: dict.fromkeys(MAP_METRICS, 0.5) for name in schema.MAPS},
  truth=(1, 0),
  marked=(1, 0),
  p_misaligned=(0.5, 0.25),
)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'predicted': (0.5, NAN, 0.5, 0.5)}, 'for some examples, but null for others'),
    ({'p_misaligned': (0.5, NAN)}, 'a predicted probability is null'),
    ({'p_misaligned': (0.5,)}, 'p_misaligned and truth have different lengths'),
    ({'predicted': (0.5,) * 3}, 'predicted has 3 scores, not 4'),
    ({'annotated': ()}, 'annotated has 0 scores, not 4'),
    ({'marked': (1, 7)}, 'a label is 1 .* not 7'),
    ({'marked': (1,)}, '2 true labels and 1 predicted'),
    ({'maps': {'misalignment': {'mse': 0.5}}}, 'a map has no auc_judd'),
    ({'maps': ()}, 'no attribute'),
  ],
)
def test_mismatched_samples(tmp_path, capsys, change, message):
  """Samples of another version or edited ones are not misread."""
  path = tmp_path / 'one.samples.jsonl'
  samples.write(path, [SAMPLE, SAMPLE._replace(uid='b', **change)])
  assert compare_command.main([str(path), f'--out={tmp_path}/comparison']) == 2
  assert re.search(f'{path}:2 is not a sample: .*{message}', capsys.readouterr().err)


def test_invalid_json(tmp_path):
  path = epath.Path(tmp_path / 'one.samples.jsonl')
  samples.write(path, [SAMPLE])
  assert samples.read(path) == [SAMPLE]
  for token in ('NaN', 'Infinity'):
    path.write_text(path.read_text().replace('0.25', token))
    with pytest.raises(
      InputError, match=f':1 is not a sample: {token} is not a valid JSON num'
    ):
      samples.read(path)
    samples.write(path, [SAMPLE])
