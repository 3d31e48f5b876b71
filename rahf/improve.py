"""Improves image generators by feedback: python -m rahf.improve --help."""

import argparse
import os
import pathlib
import sys
from collections.abc import Sequence

from rahf import generate
from rahf.errors import InputError, run_command
from rahf.fileio.paths import absolute, find
from rahf.learning import (
  choosing,
  guide_command,
  repair_command,
  reprompt_command,
  reward_train_command,
  study_command,
)
from rahf.runtime import accelerator
from rahf.runtime.preemption import Interrupted, Interruption

_DESCRIPTION = """\
Improves image generators by the feedback that RAHF gives to their images.

filter keeps the best images of each prompt, on which the generator is trained further.
guide lets the gradient of a score guide a generator while it draws.
inpaint draws anew what is implausible in images, and keeps what gets better.
reprompt draws images again with emphasis on the words that they miss.
reward-train trains a Muse further by the scores and heatmaps of what it draws.
study shows people pairs of images of two generators, blindly, and tests their answers.
"""
_FILTER = """\
Scores many images of each prompt, and keeps those that are good enough for training.

  python -m rahf.improve filter prompts.txt --generator=MUSE --model=RAHF \\
    --by=plausibility --minimum=0.8 --out=kept

draws 8 images of each prompt into kept-images, where they stay: the same command
continues after a stop. Without --generator, SOURCE are images that exist already. The
folder kept has the images with their prompts (images/metadata.csv), all candidates with
their scores (choices.csv), pictures to look at, and what the choice gained (best.md).
"""


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command.

  Returns:
    0; 1 if an image has no scores or cannot be repaired, no image is kept, or a signal
    came; 2 for a user's mistake.
  """
  arguments = _parser().parse_args(argv)
  try:
    with Interruption() as interruption, interruption.raising():
      return run_command(arguments.run, arguments)
  except Interrupted:
    print('Interrupted; run the same command to continue.')
    return 1


def _filter(arguments: argparse.Namespace) -> int:
  """Generates if asked to, scores and keeps."""
  arguments.images = arguments.source
  if arguments.generator:
    if arguments.prompts:
      raise InputError('--prompts is for a folder of images; SOURCE are the prompts')
    # Drawing takes long, so that mistakes are found before.
    out = choosing.check(arguments).out
    arguments.images = os.fspath(_generate(arguments, out))
  else:
    for name in ('images_per_prompt', 'seed'):
      if getattr(arguments, name) is not None:
        raise InputError(f'--{name} is for drawing, which needs --generator')
  return choosing.choose(arguments)


def _generate(arguments: argparse.Namespace, out: pathlib.Path) -> pathlib.Path:
  """Generates what is missing; returns the table of all images."""
  accelerator.start(accelerator.choose())
  folder, count = out.with_name(f'{out.name}-images'), arguments.images_per_prompt
  job = generate.Job(
    model=os.fspath(find(arguments.generator, '--generator')),
    input=arguments.source,
    output=os.fspath(folder),
    images_per_prompt=8 if count is None else count,
    seed=arguments.seed or 0,
    negative_prompt='',
    batch_size=arguments.batch_size,
    steps=0,
    guidance=0.0,
    input_name='SOURCE',
  )
  generate.generate(job, Interruption())
  return folder / generate.TABLE


def _reward_train(arguments: argparse.Namespace) -> int:
  """Trains, and exports the result."""
  config = reward_train_command.make_config(arguments)
  workdir = absolute(find(arguments.out, '--out'))
  try:  # Only this command needs TensorFlow.
    from rahf import export, train
  except ModuleNotFoundError as error:
    raise InputError(
      f'{error.name} is not installed; reward-train needs the extra `train`: pip '
      'install "rahf[train]"'
    ) from error
  accelerator.start(accelerator.choose())
  reward_train_command.check_workdir(workdir)
  with Interruption() as interruption:
    train.train(config, workdir, interruption)
    interruption.check()
    export.export(config, workdir, interruption)
  return 0


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='python -m rahf.improve',
    description=_DESCRIPTION,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  commands = parser.add_subparsers(
    required=True,
    metavar='filter | guide | inpaint | reprompt | reward-train | study',
  )
  for name, summary, description, add_arguments in (
    ('filter', 'keep the best images for training', _FILTER, _add_filter),
    ('guide', 'let a score guide a generator', *guide_command.PARSER),
    ('inpaint', 'draw anew what is implausible', *repair_command.PARSER),
    ('reprompt', 'draw again what misses words', *reprompt_command.PARSER),
    (
      'reward-train',
      'train a Muse by scores',
      reward_train_command.DESCRIPTION,
      _add_reward_train,
    ),
    ('study', 'ask people which of two generators is better', *study_command.PARSER),
  ):
    add_arguments(
      commands.add_parser(
        name,
        help=summary,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
      )
    )
  return parser


def _add_reward_train(parser: argparse.ArgumentParser) -> None:
  parser.set_defaults(run=_reward_train)
  reward_train_command.add_arguments(parser)


def _add_filter(parser: argparse.ArgumentParser) -> None:
  parser.set_defaults(run=_filter)
  add = parser.add_argument
  add(
    'source',
    metavar='SOURCE',
    help='prompts, a text file or table, for --generator; or else images, in whatever '
    'form --mode=infer takes',
  )
  add('--prompts', default='', metavar='TABLE', help='for a folder of images')
  add('--generator', metavar='DIR', help='a Muse, or a pipeline of diffusers')
  add(
    '--images_per_prompt',
    type=int,
    help='images to draw of each prompt (default: 8)',
  )
  add('--seed', type=int, help='of the noise (default: 0)')
  choosing.add_arguments(parser)


if __name__ == '__main__':
  sys.exit(main())
