"""python -m rahf.improve reward-train: its arguments, and the config that they make."""

import argparse
import os

from etils import epath
from ml_collections import ConfigDict

from rahf.config import default_config
from rahf.errors import InputError
from rahf.fileio.paths import find
from rahf.fileio.validators import real, whole
from rahf.inference import open_scorer
from rahf.inference.generator_directory import read_config
from rahf.learning.choosing import check_flag, local_path
from rahf.learning.open_generator import other_pipeline
from rahf.learning.score_expression import parse

DESCRIPTION = """\
Trains a Muse further by what RAHF says of the images that it draws (GRPO).

  python -m rahf.improve reward-train prompts.txt --eval_prompts=new.txt \\
    --generator=MUSE --model=RAHF --by=plausibility --dense=5 --out=runs/rewarded

Each step draws several images of every prompt; those that score higher than others of
their prompt become more probable. With --dense, the reward differs within an image:
tokens that lie where the heatmap is low get more of it. --kl keeps the Muse near what
it was. The folder is a work directory, with checkpoints and at the end an export. The
same command continues after a stop. configs/muse_reward.py has all other settings.
"""


def reward_config(generator: str, model: str) -> ConfigDict:
  """Returns the config of a Muse that RAHF rewards.

  Args:
    generator: a Muse, whose sizes and sampling are taken; '' for those of aMUSEd.
    model: a RAHF.

  Raises:
    InputError: there is no such Muse.
  """
  config = read_config(generator) if generator else default_config()
  config.task = 'reward_tuning'
  config.init.muse = generator
  config.reward.model = model
  config.optimizer.update(
    learning_rate=3e-5,
    schedule='linear',
    warmup_steps=5,
    weight_decay=0.0,
    freeze=('^autoencoder/', '^text/'),
  )
  config.train.update(steps=100, batch_size=4, log_every=5, checkpoint_every=25)
  config.eval.update(every=25, batch_size=32)
  return config


def make_config(arguments: argparse.Namespace) -> ConfigDict:
  """Returns the config of the command.

  Raises:
    InputError: a path does not exist, or is not that of a Muse.
  """
  generator = os.fspath(find(arguments.generator, '--generator'))
  if name := other_pipeline(generator):
    raise InputError(
      f'--generator={generator} is a {name}, which this does not train; use '
      'rahf.reward in a trainer for diffusers, such as that of Flow-GRPO'
    )
  for name, rule in (
    ('group', whole(2, 1024)),
    ('batch_size', whole(1)),
    ('steps', whole(1)),
    ('checkpoint_every', whole(1)),
    ('seed', whole(0, 2**31 - 2)),
    ('kl', real(0)),
    ('dense', real(0)),
  ):
    check_flag(name, getattr(arguments, name), rule)
  model = find(arguments.model, '--model')
  parse(arguments.by, open_scorer.read_description(model).outputs.scores)
  config = reward_config(generator, os.fspath(model))
  prompts = local_path(arguments.prompts, 'PROMPTS').expanduser()
  config.reward.update(
    prompts=os.fspath(prompts),
    eval_prompts=os.fspath(local_path(arguments.eval_prompts, '--eval_prompts')),
    by=arguments.by,
    group=arguments.group,
    dense=arguments.dense,
    divergence=arguments.kl,
  )
  config.optimizer.update(
    learning_rate=arguments.learning_rate, warmup_steps=arguments.steps // 20
  )
  config.train.update(
    steps=arguments.steps,
    batch_size=arguments.batch_size,
    checkpoint_every=arguments.checkpoint_every,
  )
  config.seed = arguments.seed
  return config


def check_workdir(workdir: epath.Path) -> None:
  """Raises InputError if a folder exists that is not a work directory."""
  if (
    workdir.exists()
    and any(workdir.iterdir())
    and not (workdir / 'config.json').exists()
  ):
    raise InputError(f'--out={workdir} is not a work directory; give a new folder')


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds what `make_config` reads, and --out."""
  add = parser.add_argument
  add('prompts', metavar='PROMPTS', help='a text file or table, to train with')
  add(
    '--eval_prompts',
    required=True,
    metavar='FILE',
    help='other prompts, to evaluate with',
  )
  add('--generator', required=True, metavar='DIR', help='a Muse')
  add('--model', required=True, metavar='DIR', help='a RAHF')
  add('--out', required=True, metavar='FOLDER', help='a work directory')
  for name, default, text in (
    ('by', 'plausibility', 'the reward, a score or a weighted sum'),
    ('dense', 0.0, 'how much less tokens get where the heatmap is high'),
    ('kl', 0.02, 'weight of the divergence from the Muse at the start'),
    ('group', 8, 'images of a prompt that are compared'),
    ('batch_size', 4, 'prompts of a step'),
    ('steps', 100, 'of training'),
    ('checkpoint_every', 25, 'steps'),
    ('learning_rate', 3e-5, 'at the start; falls to 0'),
    ('seed', 0, 'of prompts and noise'),
  ):
    add(
      f'--{name}',
      type=type(default),
      default=default,
      help=f'{text} (default: %(default)s)',
    )
