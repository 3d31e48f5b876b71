"""The command `python -m rahf.evaluate preferences`: scorers against people's choices.

Any model that `rahf.load` opens can be judged: PickScore, another CLIP, or a RAHF. What
is written is described in `preference_results.py`.
"""

import argparse
from collections.abc import Mapping, Sequence

from etils import epath

from rahf.data.preferences.pair_truth import PairTruth, read_truth
from rahf.data.preferences.pairs import PairSplit, open_pairs
from rahf.data.schema import PAIR_SPLITS
from rahf.errors import InputError, run_command
from rahf.evaluation import preference_accuracy
from rahf.evaluation.preference_tables import make_report
from rahf.fileio.named_paths import named_paths
from rahf.fileio.paths import find, new
from rahf.fileio.validators import argument, whole
from rahf.inference import open_scorer, preference_results
from rahf.inference.output_ranges import SIMILARITY, ModelOutputs
from rahf.inference.preference_results import Judged
from rahf.inference.score_pairs import fit_scale, score_pairs
from rahf.inference.scorer import Scorer

_DESCRIPTION = """\
Compares what models prefer with what people preferred, on Pick-a-Pic's pairs.

MODEL is whatever rahf.load opens: the directory of a PickScore, a CLIP or a RAHF, or
NAME=PATH. The threshold for ties is chosen on --threshold_split. Scores in [0, 1] are
first multiplied by a number that fits the choices of people there; a PickScore needs
none. No accuracy stands without the name of its protocol:
  ties half     a tie against a choice counts half (Kirstain et al., 2023)
  ties dropped  without the pairs that people call a tie
"""


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns the exit status: 0, or 2 for a user's mistake."""
  return run_command(_run, _parser().parse_args(argv))


def _run(arguments: argparse.Namespace) -> None:
  """Checks everything that is quick to check, then scores."""
  models = named_paths(arguments.models, 'MODEL', 'PATH', named_by_path=True)
  if preference_results.TABLE in models:
    raise InputError(
      f'no model can be called {preference_results.TABLE}, since --out has a file of '
      'that name; give NAME=PATH'
    )
  out = None if arguments.out is None else new(arguments.out, '--out')
  folders = {name: open_scorer.find(path) for name, path in models.items()}
  descriptions = {n: open_scorer.read_description(path) for n, path in folders.items()}
  outputs = {name: one.outputs for name, one in descriptions.items()}
  scores = _score_names(outputs, arguments.score)
  pairs = find(arguments.pairs, '--pairs')
  splits = [
    open_pairs(pairs, name) for name in (arguments.threshold_split, arguments.split)
  ]
  truth = read_truth(pairs)
  judged = {}
  for name, folder in folders.items():
    scorer = open_scorer.load(folder, batch_size=arguments.batch_size)
    judged[name] = judge(scorer, scores[name], *splits, truth, arguments.unlabelled)
  title = f'Preferences, {arguments.split} of {arguments.pairs}'
  text = preference_results.describe(judged, title, truth, writes=out is not None)
  print(text)
  if out:
    preference_results.write(epath.Path(out), text, judged)
    print(f'Written to {out}')


def judge(
  scorer: Scorer,
  score: str,
  choose_on: PairSplit,
  split: PairSplit,
  truth: PairTruth,
  unlabelled: bool,
) -> Judged:
  """Scores both splits with a model.

  Args:
    score: the name of the score that decides.
    choose_on: for the threshold of ties, and for the scale.
    unlabelled: whether to take pairs with has_label False, too.

  Raises:
    InputError: a file is damaged, or no pair can be used.
  """
  chosen_on, scored = (
    score_pairs(scorer, score, one, labelled_only=not unlabelled)
    for one in (choose_on, split)
  )
  scale = 1.0 if score == SIMILARITY else fit_scale(chosen_on.pairs)
  threshold = preference_accuracy.choose_threshold(chosen_on.scaled(scale))
  report = make_report(
    scored.scaled(scale),
    problems=scored.problems,
    labelled_only=not unlabelled,
    threshold=(threshold, choose_on.name),
    split=split.name,
    ceilings=truth.ceilings.get(split.name, {}),
  )
  return Judged(score, scale, report, scored)


def _score_names(outputs: Mapping[str, ModelOutputs], wanted: str) -> dict[str, str]:
  """Returns the score of each model that decides: the wanted one, or else its main one.

  Raises:
    InputError: no model has the wanted one.
  """
  if wanted and not any(wanted in one.scores for one in outputs.values()):
    every = dict.fromkeys(name for one in outputs.values() for name in one.scores)
    raise InputError(
      f'--score={wanted}: no model has it; give one of {", ".join(every)}'
    )
  return {
    name: wanted if wanted in one.scores else one.main for name, one in outputs.items()
  }


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='python -m rahf.evaluate preferences',
    description=_DESCRIPTION,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  splits = {'choices': PAIR_SPLITS, 'metavar': 'SPLIT'}
  add('models', nargs='+', metavar='MODEL', help='a path, or NAME=PATH')
  add(
    '--pairs',
    required=True,
    metavar='FOLDER',
    help="of Pick-a-Pic's parquet files, with the images in them",
  )
  add(
    '--split',
    default='test_unique',
    help=f'to compare on; one of {", ".join(PAIR_SPLITS)} (default: %(default)s)',
    **splits,
  )
  add(
    '--threshold_split',
    default='validation_unique',
    help='chooses the threshold for ties (default: %(default)s)',
    **splits,
  )
  add(
    '--score',
    default='',
    metavar='NAME',
    help='decides, in models that have it (default: the main one, overall of a RAHF, '
    'similarity of a CLIP)',
  )
  add(
    '--unlabelled',
    action='store_true',
    help='include pairs with has_label False, with their stored labels',
  )
  add(
    '--batch_size',
    type=argument(int, whole(1)),
    default=64,
    help='images at once (default: %(default)s)',
  )
  add('--out', metavar='FOLDER', help='write tables, metrics and votes to a new folder')
  return parser
