"""Compares how fast our aMUSEd and that of diffusers make images.

  python benchmarks/generation.py [--size=amused-256] [--images=1,4] [--repeats=5]

Both make images of the same prompts on the same cores, in turn, in float32 and with
aMUSEd's sampling: 12 steps with guidance. Weights are random, as speed does not depend
on them, and sizes are those of the public models but for the vocabulary of the text
encoder. `tests/pretrained/test_amused_parity.py` compares what they compute. Needs the
extra `parity`.
"""

import statistics
import tempfile
import time

import diffusers
import machine
import torch
import transformers
from absl import app, flags
from etils import epath

import rahf
from rahf.data.clip_tokenizer import train_vocabulary, write_vocabulary
from rahf.drawing.markdown import markdown_table
from rahf.models.muse import SIZES

_SIZE = flags.DEFINE_enum('size', 'amused-256', [*SIZES], 'Public model.')
_IMAGES = flags.DEFINE_list('images', ['1', '4'], 'Numbers of images of a call.')
_REPEATS = flags.DEFINE_integer('repeats', 5, 'Turns of each.')

PROMPTS = ('two red circles', 'a blue cross', 'a dog on a beach', 'a house at night')


def main(argv: list[str]) -> None:
  """Prints a table."""
  del argv
  print(f'{machine.processor()}; {machine.accelerator()}; PyTorch {torch.__version__}')
  rows = []
  with tempfile.TemporaryDirectory() as folder:
    pipe = make_pipeline(folder)
    for images in map(int, _IMAGES.value):
      prompts = [PROMPTS[i % len(PROMPTS)] for i in range(images)]
      model = rahf.load(folder, rows=images)
      seconds = compare(
        lambda model=model, prompts=prompts: model.generate(prompts, seeds=0),
        lambda prompts=prompts: pipe(prompts, output_type='pil'),
      )
      ours, theirs = (images / statistics.median(times) for times in seconds)
      ratios = [b / a for a, b in zip(*seconds, strict=True)]
      rows.append(
        [
          str(images),
          f'{ours:.3f}',
          f'{theirs:.3f}',
          f'{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})',
        ]
      )
  header = ('images of a call', 'ours, images/s', 'diffusers, images/s', 'ratio')
  print(markdown_table(header, rows))


def compare(*functions) -> tuple[list[float], ...]:
  """Returns the seconds of each function by turn, after one that does not count."""
  seconds = tuple([] for _ in functions)
  for turn in range(_REPEATS.value + 1):
    for function, times in zip(functions, seconds, strict=True):
      start = time.perf_counter()
      function()
      if turn:
        times.append(time.perf_counter() - start)
  return seconds


def make_pipeline(folder: str) -> diffusers.AmusedPipeline:
  """Writes an aMUSEd with random weights, and returns it."""
  write_vocabulary(epath.Path(folder), train_vocabulary(PROMPTS, 540))
  tokenizer = transformers.CLIPTokenizer.from_pretrained(folder)
  tokenizer.model_max_length = 77
  text = transformers.CLIPTextConfig(
    vocab_size=len(tokenizer),
    hidden_size=768,
    intermediate_size=3072,
    projection_dim=768,
    num_hidden_layers=12,
    num_attention_heads=12,
    bos_token_id=len(tokenizer) - 2,
    eos_token_id=len(tokenizer) - 1,
  )
  large = SIZES[_SIZE.value].transformer.downsample
  transformer = diffusers.UVit2DModel(
    downsample=large, upsample=large, sample_size=32 if large else 16
  )
  vqvae = diffusers.VQModel(
    block_out_channels=[128, 256, 256, 512, 768],
    down_block_types=['DownEncoderBlock2D'] * 5,
    up_block_types=['UpDecoderBlock2D'] * 5,
    layers_per_block=2,
    latent_channels=64,
    num_vq_embeddings=8192,
    mid_block_add_attention=False,
    lookup_from_codebook=True,
  )
  pipe = diffusers.AmusedPipeline(
    vqvae=vqvae.eval(),
    tokenizer=tokenizer,
    text_encoder=transformers.CLIPTextModelWithProjection(text).eval(),
    transformer=transformer.eval(),
    scheduler=diffusers.AmusedScheduler(SIZES[_SIZE.value].transformer.mask_id),
  )
  pipe.save_pretrained(folder)
  pipe.set_progress_bar_config(disable=True)
  return pipe


if __name__ == '__main__':
  app.run(main)
