"""Small pipelines of diffusers' aMUSEd, every parameter of which matters."""

import diffusers
import torch
import transformers
from etils import epath

import clip_directory
from rahf.data.clip_tokenizer import train_vocabulary, write_vocabulary

CODES, MASK, GRID = 40, 47, 4
PROMPTS = list(clip_directory.PROMPTS)
VOCABULARY = clip_directory.VOCABULARY
# As at 256 px and at 512 px; the second has convolutions as wide as the transformer.
OPTIONS = {
  'amused-256': {'block_out_channels': 24, 'pad': '<|endoftext|>'},
  'amused-512': {
    **{'downsample': True, 'upsample': True},
    **{'block_out_channels': 16, 'pad': '!', 'sharded': True},
  },
}


def autoencoder():
  return diffusers.VQModel(
    block_out_channels=[8, 16, 16],
    down_block_types=['DownEncoderBlock2D'] * 3,
    up_block_types=['UpDecoderBlock2D'] * 3,
    layers_per_block=2,
    latent_channels=6,
    norm_num_groups=4,
    num_vq_embeddings=CODES,
    mid_block_add_attention=False,
    lookup_from_codebook=True,
  )


def pipeline(folder, pad, sharded=False, **options):
  """Writes a small aMUSEd, every parameter of which matters, and returns it."""
  torch.manual_seed(0)
  write_vocabulary(epath.Path(folder), train_vocabulary(PROMPTS, VOCABULARY))
  text = transformers.CLIPTextConfig(
    vocab_size=VOCABULARY,
    hidden_size=24,
    intermediate_size=40,
    num_hidden_layers=3,
    num_attention_heads=3,
    projection_dim=12,
    hidden_act='gelu',
    **{'bos_token_id': VOCABULARY - 2, 'eos_token_id': VOCABULARY - 1},
    pad_token_id=VOCABULARY - 1,
  )
  transformer = diffusers.UVit2DModel(
    **{'hidden_size': 16, 'num_hidden_layers': 2, 'num_attention_heads': 2},
    **{'intermediate_size': 20, 'in_channels': 12, 'num_res_blocks': 2},
    **{'block_num_heads': 4, 'cond_embed_dim': 12, 'encoder_hidden_size': 24},
    **{'micro_cond_encode_dim': 6, 'micro_cond_embed_dim': 30},
    **{'vocab_size': MASK + 1, 'codebook_size': CODES, 'sample_size': GRID},
    **options,
  )
  parts = {
    'vqvae': autoencoder(),
    'text_encoder': transformers.CLIPTextModelWithProjection(text),
    'transformer': transformer,
  }
  with torch.no_grad():
    for part in parts.values():
      for parameter in part.eval().parameters():
        parameter += 0.2 * torch.randn(parameter.shape)
  tokenizer = transformers.CLIPTokenizer.from_pretrained(folder, pad_token=pad)
  tokenizer.model_max_length = 77
  pipe = diffusers.AmusedPipeline(
    **parts, tokenizer=tokenizer, scheduler=diffusers.AmusedScheduler(MASK)
  )
  pipe.save_pretrained(folder, max_shard_size='20KB' if sharded else '1GB')
  (folder / 'README.md').write_text('---\nlicense: openrail++\ntags:\n- art\n---\n#\n')
  pipe.set_progress_bar_config(disable=True)
  return pipe
