"""Variables of reward tuning that stay as they are: RAHF, and the Muse at the start."""

import numpy as np
from etils import epath

from rahf.inference import model_files
from rahf.inference.model_directory import Description
from rahf.pretrained.loading import Plan
from rahf.pretrained.source import Weight
from rahf.runtime.tree import by_path

# Names of the collections.
REWARD, START = 'reward', 'start'
# The parts of a Muse that the second one has.
STARTED = ('transformer', 'text')


def initial(
  plan: Plan, folder: epath.Path, description: Description
) -> dict[str, Weight]:
  """Returns where the collections come from, by path.

  Args:
    plan: of the Muse's parameters, all of which are loaded.
    folder, description: of the RAHF, which is read.

  Raises:
    InputError: the RAHF is damaged.
  """
  start = {
    f'{START}/{path}': weight
    for path, weight in plan.loaded.items()
    if path.split('/')[0] in STARTED
  }
  params = by_path(model_files.read_params(folder, description))
  reward = {f'{REWARD}/{path}': _weight(path, array) for path, array in params.items()}
  return start | reward


def _weight(path: str, array: np.ndarray) -> Weight:
  return Weight(path, array.shape, array.dtype, lambda: array)
