"""The task of labelled images and pairs with its data."""

from collections.abc import Iterator, Sequence

from rahf.data.preferences.pair_batches import PairDecoder, PairReader
from rahf.data.preferences.pairs import open_pairs
from rahf.data.schema import MixedBatch
from rahf.runtime import sharding
from rahf.tasks.feedback_session import FeedbackSession
from rahf.tasks.preference_session import pairs_folder


class FeedbackPairsSession(FeedbackSession):
  """Labelled images and pairs; a `training.task.Session`.

  Evaluations are on labelled images; `python -m rahf.evaluate preferences` evaluates
  the exported model on pairs.
  """

  def describe(self, splits: Sequence[str]) -> str:
    pairs, size = self._reader().split, self.setup.config.pairs.batch_size
    return (
      f'{super().describe(splits)}\n'
      f'Pairs: {len(pairs):,}, {size} of them in each batch, from '
      f'{pairs_folder(self.setup.config)}'
    )

  def train_batches(self, start_step: int) -> Iterator[MixedBatch]:
    config, mesh = self.setup.config, self.setup.mesh
    pairs = self._reader().train_batches(
      batch_size=config.pairs.batch_size,
      lanes=config.pairs.lanes,
      seed=config.seed,
      start_step=start_step,
      rows=sharding.process_rows(config.pairs.batch_size, mesh),
    )
    return map(MixedBatch, super().train_batches(start_step), pairs)

  def _reader(self) -> PairReader:
    decoder = PairDecoder.for_rahf(self.data.tokenizer, self.data.options)
    return PairReader(open_pairs(pairs_folder(self.setup.config), 'train'), decoder)
