"""The tasks that a run can train; each is a file and an entry in `TASKS`."""

from collections.abc import Callable

from ml_collections import ConfigDict

from rahf import config as config_lib
from rahf.errors import InputError
from rahf.tasks.autoencoder import AutoencoderTask
from rahf.tasks.baseline import BaselineTask
from rahf.tasks.captions import CaptionsTask
from rahf.tasks.contrastive import ContrastiveTask
from rahf.tasks.feedback import FeedbackTask
from rahf.tasks.feedback_pairs import FeedbackPairsTask
from rahf.tasks.generator import GeneratorTask
from rahf.tasks.preference import PreferenceTask
from rahf.tasks.reward_tuning import RewardTuningTask
from rahf.training.task import Task

TASKS: dict[str, Callable[[ConfigDict], Task]] = {
  'feedback': FeedbackTask.of,
  'feedback_pairs': FeedbackPairsTask.of,
  'captions': CaptionsTask.of,
  'baseline': BaselineTask.of,
  'contrastive': ContrastiveTask.of,
  'preference': PreferenceTask.of,
  'autoencoder': AutoencoderTask.of,
  'generator': GeneratorTask.of,
  'reward_tuning': RewardTuningTask.of,
}


def make_task(config: ConfigDict) -> Task:
  """Returns the task that `config.task` names.

  Raises:
    InputError: there is no such task, or a setting does not fit.
  """
  config_lib.validate(config)
  if config.task not in TASKS:
    raise InputError(f'config.task = {config.task!r} is not one of {", ".join(TASKS)}')
  return TASKS[config.task](config)
