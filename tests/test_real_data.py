"""Real images, annotations and vocabulary, from release files to tables."""

import json
import math
import subprocess
import sys

import runs
from rahf.data import schema


def test_prepare_train_and_evaluate(assets, tmp_path):
  sample = assets / 'richhf_sample'
  command = [
    'prepare',
    'richhf18k',
    '--labels',
    sample,
    '--images',
    sample / 'pickapic',
  ]
  subprocess.run(
    [sys.executable, '-m', 'rahf.data', *map(str, command), '--out', tmp_path],
    cwd=runs.ROOT,
    check=True,
    capture_output=True,
  )
  arguments = (
    '--config.data.name=richhf18k',
    f'--config.tokenizer={assets}/tokenizer/t5-base.spiece.model',
    '--config.model.t5.vocab_size=32128',
    '--config.train.steps=3',
    '--config.eval.every=3',
    f'--workdir={tmp_path}/run',
  )
  train = runs.start_tiny(tmp_path, *arguments)
  printed, errors = train.communicate(timeout=300)
  assert train.returncode == 0, errors
  assert 'train 13, dev 2, test 3 examples, 32,000 word pieces' in printed
  rows = runs.read_metrics_log(tmp_path / 'run')
  assert [row['split'] for row in rows] == ['train', 'train', 'train', 'dev', 'test']
  for row in rows:
    assert all(math.isfinite(row[name]) for name in row if name.startswith('loss/'))

  # The evaluated split may change; a new process reads the checkpoint.
  evaluate = runs.start_tiny(
    tmp_path, *arguments, '--mode=eval', '--config.eval.split=train'
  )
  printed, errors = evaluate.communicate(timeout=300)
  assert evaluate.returncode == 0, errors
  assert '# richhf18k, train split, step 3' in printed
  found = json.loads((tmp_path / 'run/eval/train-3.json').read_text())
  for score in schema.SCORES:
    assert -1 <= found[f'{score}/plcc'] <= 1
  for name in schema.MAPS:
    assert 0 <= found[f'{name}/auc_judd'] <= 1
  assert 0 <= found['keywords/recall'] <= 1
