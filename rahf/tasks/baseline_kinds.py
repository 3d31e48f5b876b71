"""The kinds of baselines: what each is made from and predicts."""

from typing import NamedTuple

from jaxtyping import Array, Float

from rahf.data.schema import MAPS, SCORES


class Kind(NamedTuple):
  """What a kind of baseline is made from and predicts.

  Attributes:
    weights: the field of `config.init` with its pretrained weights.
    maps, scores: names of what it predicts.
    words: whether it predicts misaligned words.
    trains: whether it is trained on the labels.
  """

  weights: str
  maps: tuple[str, ...] = ()
  scores: tuple[str, ...] = ()
  words: bool = False
  trains: bool = False


KINDS = {
  'resnet_scores': Kind('resnet', scores=SCORES, trains=True),
  'resnet_maps': Kind('resnet', maps=MAPS, trains=True),
  'clip_scores': Kind('clip', scores=SCORES, trains=True),
  'clip_zero_shot': Kind('clip', scores=SCORES),
  'clip_gradient': Kind('clip', maps=('misalignment',)),
  'clip_words': Kind('clip', words=True),
}


# Before the prompt, for words (CLIP4DM).
WORDS_PREFIX = 'A photo depicts '


class WordRelevance(NamedTuple):
  """Outputs of 'clip_words': how much each token speaks for the image."""

  tokens: Float[Array, 'B T']
