"""Tells whether a run is finished: exit status 0 if it is, 1 if not.

python launch/remote/finished.py WORKDIR
"""

import json
import sys

from etils import epath


def finished(workdir: str) -> bool:
  """Returns whether the last step has its final evaluation.

  Training writes its line to metrics.jsonl last. An exit status of 0 is not enough, as
  SIGTERM leads to it as well.

  Args:
    workdir: a local directory or one in a bucket.
  """
  settings, metrics = (
    epath.Path(workdir) / name for name in ('config.json', 'metrics.jsonl')
  )
  if not (settings.exists() and metrics.exists()):
    return False
  config = json.loads(settings.read_text())
  last = config['train']['steps'], config['eval']['final_split']
  rows = map(_parse, metrics.read_text().splitlines())
  return any((row.get('step'), row.get('split')) == last for row in rows)


def _parse(line: str) -> dict:
  """Returns a line's values; none if a crash truncated it."""
  try:
    return json.loads(line)
  except json.JSONDecodeError:
    return {}


if __name__ == '__main__':
  sys.exit(not finished(sys.argv[1]))
