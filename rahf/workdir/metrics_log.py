"""The log of metrics, metrics.jsonl: one JSON object per line, ordered by step."""

import json
import math
from collections.abc import Mapping

from etils import epath

from rahf.fileio import atomic_write


class MetricsLog:
  """Reads and appends to a work directory's metrics.jsonl."""

  def __init__(self, workdir: epath.Path, resume_step: int):
    """Opens the log and drops lines after `resume_step`, whose steps will run again."""
    self._path = epath.Path(workdir) / 'metrics.jsonl'
    self._lines = []
    if self._path.exists():
      lines = self._path.read_text().splitlines()
      self._lines = [line for line in lines if _step(line) <= resume_step]
      atomic_write.write(self._path, ''.join(f'{line}\n' for line in self._lines))

  def has(self, step: int, split: str) -> bool:
    """Returns whether there is a line for this step and split."""
    rows = map(json.loads, self._lines)
    return any((row['step'], row['split']) == (step, split) for row in rows)

  def count(self, name: str) -> int:
    """Returns how many lines have a value with this name."""
    return sum(name in json.loads(line) for line in self._lines)

  def best(self, split: str, name: str, *, lowest: bool) -> int | None:
    """Returns the step with the best value on a split, or None if there is no value.

    Ties go to the earliest step.
    """
    rows = map(json.loads, self._lines)
    values = [
      (row[name] if lowest else -row[name], row['step'])
      for row in rows
      if row['split'] == split and row.get(name) is not None
    ]
    return min(values)[1] if values else None

  def append(self, step: int, split: str, values: Mapping[str, float]) -> None:
    """Appends a line. Values that are not finite become null, since JSON has no NaN."""
    row = {'step': step, 'split': split}
    for name, value in values.items():
      row[name] = float(value) if math.isfinite(value) else None
    self._lines.append(json.dumps(row))
    with self._path.open('a') as file:
      file.write(self._lines[-1] + '\n')


def _step(line: str) -> float:
  """Returns a line's step, or infinity for a truncated or damaged line."""
  try:
    row = json.loads(line)
    return float(row['step']) if 'split' in row else math.inf
  except (ValueError, KeyError, TypeError):
    return math.inf
