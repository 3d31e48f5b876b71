"""RAHF: ViT and T5 fused by concatenation, with heads for maps, scores and keywords.

The same modules serve both variants of the paper (section 4.2). The variants differ
in K, the number of texts that are encoded with an image, and in their heads:

  multi_head        K = 1  the prompt; each map and each score has its own head
  augmented_prompt  K = 7  a task string and the prompt for each of 2 maps and
                           4 scores, then the plain prompt for the keywords; all
                           maps share one head, all scores another

The ViT encodes the image once. The K texts are folded into the batch for one call of
the T5 encoder.

Axis letters: B batch, K texts, H W image size, h w token grid, N image tokens,
L text tokens, T target tokens, D width, V vocabulary.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from rahf.fileio.validators import one_of, real
from rahf.models import constrained, decoding, layers
from rahf.models.beam import beam
from rahf.models.heads import (
  HeatmapHead,
  HeatmapHeadConfig,
  ScoreHead,
  ScoreHeadConfig,
)
from rahf.models.repetition import side_by_side
from rahf.models.sizes import DTYPES, Flag, Side
from rahf.models.t5 import T5, DecoderCache, T5Config
from rahf.models.vit import ViT, ViTConfig

MAPS = ('implausibility', 'misalignment')
SCORES = ('plausibility', 'alignment', 'aesthetics', 'overall')
PAD_ID = 0
VARIANTS = ('augmented_prompt', 'multi_head')


@dataclasses.dataclass(frozen=True)
class RAHFConfig:
  """All sizes of a model; the defaults are the paper's, as far as it gives them.

  Attributes:
    variant: 'multi_head' or 'augmented_prompt', see above.
    image_size: side of the square input in pixels, a multiple of the patch.
    keep_class_token: whether the ViT's class token joins the fused sequence.
    decoder_sees_image: whether the decoder attends to the image tokens too, not only
      to the text tokens.
    mask_padding: whether padding is masked in attention. Without the mask, predictions
      depend on the length that the texts of a batch are padded to.
    remat: what the backward pass recomputes instead of keeping it: 'none', 'heads'
      (the upsampling stages), or 'blocks' (these and all blocks of ViT and T5). It
      affects memory and time only.
    loop: whether equal layers and heads are compiled once, as a loop, see
      `repetition.py`. It affects the time to compile only.
    dropout_rate: in the residual branches and MLPs of ViT and T5.
    dtype: compute dtype; parameters, softmax, norms and sigmoids are float32.
  """

  variant: Annotated[str, one_of(VARIANTS)] = 'augmented_prompt'
  image_size: Side = 512
  vit: ViTConfig = ViTConfig()
  t5: T5Config = T5Config()
  heatmap_head: HeatmapHeadConfig = HeatmapHeadConfig()
  score_head: ScoreHeadConfig = ScoreHeadConfig()
  keep_class_token: Flag = False
  decoder_sees_image: Flag = True
  mask_padding: Flag = True
  remat: Annotated[str, one_of(('none', 'heads', 'blocks'))] = 'none'
  loop: Flag = False
  dropout_rate: Annotated[float, real(0, 0.99)] = 0.1
  dtype: Annotated[str, one_of(DTYPES)] = 'bfloat16'

  @property
  def grid(self) -> int:
    """Image tokens along one side."""
    return self.image_size // self.vit.patch

  @property
  def class_tokens(self) -> int:
    """Fused tokens before those of the grid: 1 with a class token that is kept."""
    return int(self.vit.class_token and self.keep_class_token)

  @property
  def texts(self) -> int:
    """K, the number of texts per image, in the order of `tokenizer.TASK_PREFIXES`."""
    return 1 if self.variant == 'multi_head' else len(MAPS) + len(SCORES) + 1


class Fused(NamedTuple):
  """Encoder output for each text: image tokens, then text tokens."""

  tokens: Float[Array, 'B K N+L D']
  mask: Bool[Array, 'B K N+L']


class Outputs(NamedTuple):
  """Outputs for a batch, on the device; what is not computed or predicted is None.

  Attributes:
    maps: in [0, 1], in the order of MAPS; row 0 at the top, higher is worse.
    scores: in [0, 1], in the order of SCORES; higher is better.
    logits: of the target tokens under teacher forcing.
    keywords: token ids of the decoded prompt with its marks.
    p_misaligned: the probability that a word is misaligned, in [0, 1], at the token
      right after the word; 0 at all other tokens.
  """

  maps: Float[Array, 'B 2 H W'] | None = None
  scores: Float[Array, 'B 4'] | None = None
  logits: Float[Array, 'B T V'] | None = None
  keywords: Int[Array, 'B T'] | None = None
  p_misaligned: Float[Array, 'B L'] | None = None


class RAHF(nn.Module):
  """The model. `__call__` is the training pass; the other methods are its stages."""

  config: RAHFConfig

  def setup(self):
    config = self.config
    dtype = jnp.dtype(config.dtype)
    remat_heads = config.remat != 'none'
    stack = {'remat': config.remat == 'blocks', 'loop': config.loop}
    self.vit = ViT(config.vit, config.dropout_rate, dtype, **stack)
    self.image_projection = layers.dense(
      config.t5.width, None, 'embed', init=nn.initializers.lecun_normal(), dtype=dtype
    )
    self.t5 = T5(config.t5, config.dropout_rate, dtype, **stack)
    heatmap_head = functools.partial(
      HeatmapHead, config.heatmap_head, dtype, remat=remat_heads
    )
    score_head = functools.partial(ScoreHead, config.score_head, dtype)
    if config.variant == 'multi_head':
      self.heatmap_head_implausibility = heatmap_head()
      self.heatmap_head_misalignment = heatmap_head()
      self.score_head_plausibility = score_head()
      self.score_head_alignment = score_head()
      self.score_head_aesthetics = score_head()
      self.score_head_overall = score_head()
    else:
      self.heatmap_head = heatmap_head()
      self.score_head = score_head()

  def __call__(
    self,
    image: Float[Array, 'B H W 3'],
    text: Int[Array, 'B K L'],
    target: Int[Array, 'B T'],
    *,
    train: bool,
  ) -> Outputs:
    """Predicts maps and scores, and the target's logits under teacher forcing."""
    fused = self.encode(image, text, train=train)
    return self.predict(fused, target, train=train)

  def encode(
    self, image: Float[Array, 'B H W 3'], text: Int[Array, 'B K L'], *, train: bool
  ) -> Fused:
    """Encodes the image once and fuses it with each of its texts."""
    batch, texts, _ = text.shape
    image_tokens = self.vit(image, train=train)
    if self.config.vit.class_token and not self.config.keep_class_token:
      image_tokens = image_tokens[:, 1:]
    image_tokens = self.image_projection(image_tokens)
    image_tokens = jnp.repeat(image_tokens, texts, axis=0)

    text = text.reshape(batch * texts, -1)
    embedded = jnp.concatenate([image_tokens, self.t5.embed(text)], axis=1)
    embedded = layers.constrain_batch(embedded)
    is_image = jnp.ones(image_tokens.shape[:2], bool)
    is_text = (text != PAD_ID) | (not self.config.mask_padding)
    mask = jnp.concatenate([is_image, is_text], axis=1)
    tokens = self.t5.encode(embedded, mask, train=train)
    return Fused(
      tokens.reshape(batch, texts, *tokens.shape[1:]), mask.reshape(batch, texts, -1)
    )

  def predict(self, fused: Fused, target: Int[Array, 'B T'], *, train: bool) -> Outputs:
    """Runs the heads, and the decoder under teacher forcing."""
    logits = self.logits(fused, target, train=train)
    return self.maps_and_scores(fused, train=train)._replace(logits=logits)

  def logits(
    self, fused: Fused, target: Int[Array, 'B T'], *, train: bool
  ) -> Float[Array, 'B T V']:
    """Runs the decoder under teacher forcing; of all texts it sees only the last."""
    tokens, mask = self._keyword_memory(fused)
    return self.t5.decode(tokens, mask, target, train=train)

  def score(
    self, image: Float[Array, 'B H W 3'], text: Int[Array, 'B K L'], *, train: bool
  ) -> Float[Array, 'B 4']:
    """Predicts the four scores alone, from only those texts that they need."""
    if self.config.variant == 'augmented_prompt':
      text = text[:, len(MAPS) : -1]
    return self.scores(self._features(self.encode(image, text, train=train)))

  def maps_and_scores(self, fused: Fused, *, train: bool = False) -> Outputs:
    """Runs the heads: both maps, at the image's size, and the four scores."""
    of_maps = of_scores = self._features(fused)
    if self.config.variant == 'augmented_prompt':
      # Two maps, four scores, then the plain prompt, which has no head.
      of_maps, of_scores = of_maps[:, : len(MAPS)], of_scores[:, len(MAPS) : -1]
    maps = self._to_image_size(self.maps(of_maps, train=train))
    return Outputs(maps, self.scores(of_scores))

  def _features(self, fused: Fused) -> Float[Array, 'B K h w D']:
    """Returns the image tokens of each text as maps, which the heads take."""
    grid, first = self.config.grid, self.config.class_tokens
    image_tokens = fused.tokens[:, :, first : first + grid * grid]
    batch, texts, _, width = image_tokens.shape
    return image_tokens.reshape(batch, texts, grid, grid, width)

  def maps(
    self, features: Float[Array, 'B k h w D'], *, train: bool
  ) -> Float[Array, 'B 2 H W']:
    """Runs the map heads, in the order of MAPS, on the features of their texts."""
    if self.config.variant == 'multi_head':
      heads = self.heatmap_head_implausibility, self.heatmap_head_misalignment
      return self._run_heads(heads, features)
    if self.config.loop and not train:
      # One after the other: at 512 px, both together take twice the memory. For the
      # gradient, that would move twice the bytes.
      return self._run_heads([self.heatmap_head] * len(MAPS), features)
    return apply_folded(self.heatmap_head, features)

  def scores(self, features: Float[Array, 'B k h w D']) -> Float[Array, 'B 4']:
    """Runs the score heads, in the order of SCORES, on the features of their texts."""
    if self.config.variant == 'multi_head':
      heads = (
        self.score_head_plausibility,
        self.score_head_alignment,
        self.score_head_aesthetics,
        self.score_head_overall,
      )
      return self._run_heads(heads, features)
    return apply_folded(self.score_head, features)

  def _run_heads(
    self, heads: Sequence[nn.Module], features: Float[Array, 'B #k h w D']
  ) -> Array:
    """Returns the results of k heads, each of its own text or all of the only one."""
    # Split, not indexed: the gradient of an index is as large as all texts' features.
    inputs = [x[:, 0] for x in jnp.split(features, features.shape[1], axis=1)]
    inputs *= len(heads) // len(inputs)
    results = side_by_side(heads, inputs, loop=self.config.loop)
    return jnp.moveaxis(results, 0, 1)

  def decode_greedily(self, fused: Fused, length: int) -> Int[Array, 'B T']:
    """Decodes the prompt with its marks, at most `length` tokens; 0 after EOS."""
    tokens, mask = self._keyword_memory(fused)
    return decoding.greedy(
      lambda token, cache, position: self.t5.decode_step(token, cache, mask, position),
      DecoderCache.start(self.t5.keys_values(tokens), length),
      batch=tokens.shape[0],
      length=length,
    )

  def decode_beam(self, fused: Fused, length: int, beams: int) -> Int[Array, 'B T']:
    """Decodes the prompt with its marks by beam search; 0 after EOS."""
    tokens, mask = self._keyword_memory(fused)
    # Each beam is a row. Beams swap their past; the encoded tokens stay in place.
    memory, mask = jax.tree.map(
      lambda x: jnp.repeat(x, beams, axis=0), (self.t5.keys_values(tokens), mask)
    )

    start = DecoderCache.start(memory, length)

    def step(token, past, position):
      cache = start._replace(past=past)
      logits, cache = self.t5.decode_step(token, cache, mask, position)
      return logits, cache.past

    return beam(step, start.past, batch=tokens.shape[0], length=length, beams=beams)

  def judge_words(
    self,
    fused: Fused,
    prompt: Int[Array, 'B L'],
    word_end: Bool[Array, 'B L'],
    *,
    mark_ids: tuple[int, ...],
    sequential: bool,
    length: int,
  ) -> Float[Array, 'B L']:
    """Returns the probability that each word is misaligned (`constrained.py`).

    Args:
      prompt: the plain prompt, the last of the texts.
      word_end: True at the token right after each word.
      mark_ids: token ids of the mark.
      sequential: whether to judge a word given the marks before it.
      length: tokens of the prompt with its marks; used if `sequential`.

    Returns:
      Probabilities at the token right after each word, 0 elsewhere.
    """
    tokens, mask = self._keyword_memory(fused)
    memory = self.t5.keys_values(tokens)
    decode = functools.partial(self.t5.decode_at, memory, mask)
    if sequential:
      return constrained.sequential(decode, prompt, word_end, mark_ids, length)
    return constrained.parallel(decode, prompt, word_end, mark_ids)

  def _keyword_memory(
    self, fused: Fused
  ) -> tuple[Float[Array, 'B S D'], Bool[Array, 'B S']]:
    """Returns what the decoder attends to: the fused tokens of the last text."""
    tokens, mask = fused.tokens[:, -1], fused.mask[:, -1]
    if self.config.decoder_sees_image:
      return tokens, mask
    image_tokens = self.config.class_tokens + self.config.grid**2
    return tokens[:, image_tokens:], mask[:, image_tokens:]

  def _to_image_size(self, maps: Float[Array, 'B 2 h w']) -> Float[Array, 'B 2 H W']:
    """Enlarges maps of a head that has fewer deconvolutions than log2(patch)."""
    size = self.config.image_size
    if maps.shape[-1] == size:
      return maps
    return jax.image.resize(maps, (*maps.shape[:2], size, size), 'bilinear')


def apply_folded(head: nn.Module, features: Float[Array, 'B k h w D']) -> Array:
  """Applies one head to k feature maps per example, folded into the batch."""
  batch, tasks = features.shape[:2]
  y = head(features.reshape(batch * tasks, *features.shape[2:]))
  return y.reshape(batch, tasks, *y.shape[1:])
