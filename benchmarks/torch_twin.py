"""RAHF in PyTorch with the sizes of one of our configs, for speed comparisons.

Uses transformers' ViT and T5, and the paper's heads (section 4.1) written as usual in
PyTorch: channels first, transposed convolutions. Needs the extra `parity`.

Axis letters: B batch, K texts, H W image size, h w token grid, L text tokens,
T target tokens, D width, C channels.
"""

from typing import NamedTuple

import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.t5.modeling_t5 import T5Attention

from rahf.models.heads import NORM_EPSILON, HeatmapHeadConfig, ScoreHeadConfig
from rahf.models.rahf import MAPS, PAD_ID, SCORES, RAHFConfig
from rahf.models.t5 import MAX_DISTANCE, RELATIVE_BUCKETS


class Outputs(NamedTuple):
  """Same as ours: B 2 H W, B 4, B T V."""

  maps: Tensor
  scores: Tensor
  logits: Tensor


class RMSNorm(nn.Module):
  """T5's norm over the channels of a feature map."""

  def __init__(self, channels: int):
    super().__init__()
    self.weight = nn.Parameter(torch.ones(channels))

  def forward(self, x: Tensor) -> Tensor:
    mean_square = x.float().square().mean(1, keepdim=True)
    x = (x * torch.rsqrt(mean_square + NORM_EPSILON)).to(x.dtype)
    return x * self.weight[:, None, None].to(x.dtype)


def conv_norm_relu(inputs: int, outputs: int, size: int, **options) -> nn.Sequential:
  conv = nn.Conv2d(inputs, outputs, size, **options)
  return nn.Sequential(conv, RMSNorm(outputs), nn.ReLU())


class UpsampleStage(nn.Module):
  """Doubles height and width, then adds a residual pair of convolutions."""

  def __init__(self, inputs: int, outputs: int):
    super().__init__()
    self.deconv = nn.ConvTranspose2d(
      inputs, outputs, 3, stride=2, padding=1, output_padding=1
    )
    self.deconv_norm = RMSNorm(outputs)
    self.residual = nn.Sequential(
      conv_norm_relu(outputs, outputs, 3, padding=1),
      nn.Conv2d(outputs, outputs, 3, padding=1),
      RMSNorm(outputs),
    )

  def forward(self, x: Tensor) -> Tensor:
    x = functional.relu(self.deconv_norm(self.deconv(x)))
    return functional.relu(x + self.residual(x))


class HeatmapHead(nn.Module):
  """Convolutions, transposed convolutions, sigmoid: B D h w to B H W."""

  def __init__(self, inputs: int, config: HeatmapHeadConfig):
    super().__init__()
    self.config = config
    stages = []
    for width in config.convs:
      stages.append(conv_norm_relu(inputs, width, 3, padding=1))
      inputs = width
    for width in config.deconvs:
      stages.append(UpsampleStage(inputs, width))
      inputs = width
    self.stages = nn.Sequential(*stages)
    self.readout = nn.Sequential(
      nn.Conv2d(inputs, config.readout, 3, padding=1),
      nn.ReLU(),
      nn.Conv2d(config.readout, 1, 3, padding=1),
    )

  def forward(self, x: Tensor) -> Tensor:
    return torch.sigmoid(self.readout(self.stages(x))[:, 0].float())


class ScoreHead(nn.Module):
  """Convolutions, linear layers, sigmoid: B D h w to B."""

  def __init__(self, inputs: int, grid: int, config: ScoreHeadConfig):
    super().__init__()
    self.config = config
    convs = []
    padding = config.size // 2 if config.padding == 'SAME' else 0
    for width in config.convs:
      convs.append(
        conv_norm_relu(
          inputs, width, config.size, stride=config.stride, padding=padding
        )
      )
      grid = (grid + 2 * padding - config.size) // config.stride + 1
      inputs = width
    self.convs = nn.Sequential(*convs)
    inputs *= grid * grid
    dense = []
    for width in config.dense:
      dense += [nn.Linear(inputs, width), nn.ReLU()]
      inputs = width
    self.dense = nn.Sequential(*dense, nn.Linear(inputs, 1))

  def forward(self, x: Tensor) -> Tensor:
    x = self.convs(x).permute(0, 2, 3, 1).flatten(1)
    return torch.sigmoid(self.dense(x)[:, 0].float())


class Twin(nn.Module):
  """The model; its methods match those of `rahf.models.rahf.RAHF`."""

  def __init__(self, config: RAHFConfig):
    super().__init__()
    check(config)
    self.config = config
    width = config.t5.width
    self.vit = transformers.ViTModel(vit_config(config), add_pooling_layer=False)
    self.image_projection = nn.Linear(config.vit.width, width)
    self.t5 = transformers.T5ForConditionalGeneration(t5_config(config))
    for module in self.t5.modules():
      if isinstance(module, T5Attention):
        module.dropout = 0.0  # Ours has no attention dropout.
    multi_head = config.variant == 'multi_head'
    self.heatmap_heads = nn.ModuleList(
      HeatmapHead(width, config.heatmap_head)
      for _ in range(len(MAPS) if multi_head else 1)
    )
    self.score_heads = nn.ModuleList(
      ScoreHead(width, config.grid, config.score_head)
      for _ in range(len(SCORES) if multi_head else 1)
    )

  def forward(self, image: Tensor, text: Tensor, target: Tensor) -> Outputs:
    """Predicts maps and scores, and the target's logits under teacher forcing.

    Args:
      image: B 3 H W.
      text: B K L.
      target: B T.
    """
    tokens, mask = self.encode(image, text)
    maps, scores = self.maps_and_scores(tokens)
    memory, mask = self._keyword_memory(tokens, mask)
    logits = self.t5(
      encoder_outputs=(memory,),
      attention_mask=mask,
      decoder_input_ids=functional.pad(target[:, :-1], (1, 0)),
    ).logits
    return Outputs(maps, scores, logits)

  def encode(self, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the fused tokens, B K N+L D, and their mask, B K N+L."""
    batch, texts, _ = text.shape
    seen = self.image_projection(self.vit(image).last_hidden_state[:, 1:])
    seen = seen.repeat_interleave(texts, 0)
    text = text.flatten(0, 1)
    mask = torch.cat([text.new_ones(seen.shape[:2]), (text != PAD_ID).long()], 1)
    embedded = torch.cat([seen, self.t5.shared(text)], 1)
    tokens = self.t5.encoder(
      inputs_embeds=embedded, attention_mask=mask
    ).last_hidden_state
    return tokens.unflatten(0, (batch, texts)), mask.unflatten(0, (batch, texts))

  def maps_and_scores(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Predicts both maps and the four scores from the fused tokens."""
    grid = self.config.grid
    features = tokens[:, :, : grid * grid].transpose(2, 3)
    features = features.unflatten(3, (grid, grid))
    if self.config.variant == 'multi_head':
      features = features[:, 0]
      maps = torch.stack([head(features) for head in self.heatmap_heads], 1)
      scores = torch.stack([head(features) for head in self.score_heads], 1)
    else:
      of_maps = features[:, : len(MAPS)].flatten(0, 1)
      of_scores = features[:, len(MAPS) : -1].flatten(0, 1)
      maps = self.heatmap_heads[0](of_maps).unflatten(0, (-1, len(MAPS)))
      scores = self.score_heads[0](of_scores).unflatten(0, (-1, len(SCORES)))
    size = (self.config.image_size,) * 2
    if maps.shape[2:] != size:
      maps = functional.interpolate(maps, size, mode='bilinear')
    return maps, scores

  def decode_greedily(self, tokens: Tensor, mask: Tensor, length: int) -> Tensor:
    """Generates exactly `length` tokens per image, with a cache."""
    memory, mask = self._keyword_memory(tokens, mask)
    written = self.t5.generate(
      encoder_outputs=transformers.modeling_outputs.BaseModelOutput(memory),
      attention_mask=mask,
      max_new_tokens=length,
      min_new_tokens=length,
      do_sample=False,
    )
    return written[:, 1:]

  def _keyword_memory(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    first = 0 if self.config.decoder_sees_image else self.config.grid**2
    return tokens[:, -1, first:], mask[:, -1, first:]


def check(config: RAHFConfig) -> None:
  """Raises ValueError if the twin does not support the config."""
  twins = {
    'vit.class_token': (config.vit.class_token, [True]),
    'keep_class_token': (config.keep_class_token, [False]),
    'mask_padding': (config.mask_padding, [True]),
    'heatmap_head.relu_before_norm': (config.heatmap_head.relu_before_norm, [False]),
    't5.activations': (tuple(config.t5.activations), [('gelu', 'linear'), ('relu',)]),
    # The twin does not recompute activations.
    'remat': (config.remat, ['none']),
  }
  for field, (value, known) in twins.items():
    if value not in known:
      raise ValueError(
        f'config.model.{field} = {value!r}: the twin supports only {known}'
      )


def vit_config(config: RAHFConfig) -> transformers.ViTConfig:
  vit = config.vit
  return transformers.ViTConfig(
    image_size=config.image_size,
    patch_size=vit.patch,
    hidden_size=vit.width,
    num_hidden_layers=vit.layers,
    num_attention_heads=vit.heads,
    intermediate_size=vit.mlp,
    hidden_act='gelu_new' if vit.gelu == 'tanh' else 'gelu',
    layer_norm_eps=vit.norm_epsilon,
    hidden_dropout_prob=config.dropout_rate,
    attention_probs_dropout_prob=0.0,
  )


def t5_config(config: RAHFConfig) -> transformers.T5Config:
  t5 = config.t5
  return transformers.T5Config(
    vocab_size=t5.vocab_size,
    d_model=t5.width,
    d_kv=t5.head_dim,
    num_heads=t5.heads,
    d_ff=t5.mlp,
    num_layers=t5.encoder_layers,
    num_decoder_layers=t5.decoder_layers,
    feed_forward_proj='gated-gelu' if len(t5.activations) == 2 else 'relu',
    tie_word_embeddings=t5.tied_logits,
    dropout_rate=config.dropout_rate,
    relative_attention_num_buckets=RELATIVE_BUCKETS,
    relative_attention_max_distance=MAX_DISTANCE,
    decoder_start_token_id=PAD_ID,
  )
