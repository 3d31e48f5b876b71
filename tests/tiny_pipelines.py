"""Pipelines of diffusers with random weights, at the smallest sizes.

Importing it needs the extra `parity`.
"""

import string

import diffusers
import torch
import transformers

# On so small arrays threads mostly wait for each other.
torch.set_num_threads(1)

START, END = '<|startoftext|>', '<|endoftext|>'


def tokenizer(length: int) -> transformers.CLIPTokenizer:
  """Has a token for each letter."""
  letters = string.ascii_lowercase
  pieces = [*letters, *(f'{letter}</w>' for letter in letters), START, END]
  vocabulary = {piece: number for number, piece in enumerate(pieces)}
  return transformers.CLIPTokenizer(
    vocab=vocabulary, merges=[], model_max_length=length
  )


def _text_config(length: int, **sizes) -> transformers.CLIPTextConfig:
  size = len(tokenizer(length))
  return transformers.CLIPTextConfig(
    vocab_size=size,
    num_attention_heads=2,
    max_position_embeddings=length,
    **{'bos_token_id': size - 2, 'eos_token_id': size - 1, 'pad_token_id': size - 1},
    **sizes,
  )


def stable_diffusion() -> diffusers.StableDiffusionPipeline:
  """Makes images of 32 px, with f = 2, and reads 32 tokens."""
  torch.manual_seed(0)
  text = _text_config(32, hidden_size=16, intermediate_size=16, num_hidden_layers=1)
  unet = diffusers.UNet2DConditionModel(
    sample_size=16,
    block_out_channels=(8, 16),
    layers_per_block=1,
    norm_num_groups=4,
    down_block_types=('DownBlock2D', 'CrossAttnDownBlock2D'),
    up_block_types=('CrossAttnUpBlock2D', 'UpBlock2D'),
    cross_attention_dim=16,
    attention_head_dim=4,
  )
  vae = diffusers.AutoencoderKL(
    block_out_channels=(8, 8),
    down_block_types=('DownEncoderBlock2D',) * 2,
    up_block_types=('UpDecoderBlock2D',) * 2,
    norm_num_groups=4,
  )
  found = diffusers.StableDiffusionPipeline(
    vae=vae,
    text_encoder=transformers.CLIPTextModel(text),
    tokenizer=tokenizer(32),
    unet=unet,
    scheduler=diffusers.DDIMScheduler(steps_offset=1, clip_sample=False),
    safety_checker=None,
    feature_extractor=None,
    requires_safety_checker=False,
  )
  found.set_progress_bar_config(disable=True)
  return found


def amused() -> diffusers.AmusedPipeline:
  """Makes images of 32 px, with f = 4."""
  torch.manual_seed(0)
  text = _text_config(
    77, hidden_size=8, intermediate_size=8, num_hidden_layers=2, projection_dim=8
  )
  sizes = ('hidden_size', 'cond_embed_dim', 'encoder_hidden_size', 'in_channels')
  sizes += ('block_out_channels', 'intermediate_size')
  counts = ('num_res_blocks', 'num_hidden_layers')
  heads = ('block_num_heads', 'num_attention_heads')
  transformer = diffusers.UVit2DModel(
    **dict.fromkeys(sizes, 8),
    **dict.fromkeys(counts, 1),
    **dict.fromkeys(heads, 2),
    **{'micro_cond_encode_dim': 2, 'micro_cond_embed_dim': 10},
    **{'vocab_size': 32, 'codebook_size': 31, 'sample_size': 8},
    **{'downsample': True, 'upsample': True},
  )
  vqvae = diffusers.VQModel(
    block_out_channels=[8] * 3,
    down_block_types=['DownEncoderBlock2D'] * 3,
    up_block_types=['UpDecoderBlock2D'] * 3,
    latent_channels=8,
    norm_num_groups=8,
    num_vq_embeddings=31,
    mid_block_add_attention=False,
    lookup_from_codebook=True,
  )
  with torch.no_grad():
    for part in (transformer, vqvae):
      for parameter in part.parameters():
        parameter += 0.2 * torch.randn(parameter.shape)
  return diffusers.AmusedPipeline(
    vqvae=vqvae,
    tokenizer=tokenizer(77),
    text_encoder=transformers.CLIPTextModelWithProjection(text),
    transformer=transformer,
    scheduler=diffusers.AmusedScheduler(31),
  )
