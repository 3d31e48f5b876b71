"""Trains a Muse further by what RAHF says of the images that it draws (GRPO).

  python -m rahf.main --config=configs/muse_reward.py:MUSE,RAHF \\
    --config.reward.prompts=prompts.txt --config.reward.eval_prompts=new.txt --workdir=…

MUSE and RAHF are exports, or MUSE the directory of an aMUSEd. `python -m rahf.improve
reward-train` does the same with few settings.
"""

from ml_collections import ConfigDict

from rahf.learning.reward_train_command import reward_config


def get_config(models: str = ',') -> ConfigDict:
  """Returns the config; `models` are the directories, with a comma between them."""
  generator, comma, model = models.partition(',')
  if not comma:
    raise ValueError(f'{models!r}: give the directories of a Muse and a RAHF')
  return reward_config(generator, model)
