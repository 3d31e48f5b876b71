"""Emphasis on words of a prompt for Stable Diffusion. Imports PyTorch and diffusers.

Axis letters: B batch, T text tokens, D width.
"""

from collections.abc import Sequence
from typing import Any

import diffusers
import torch
from jaxtyping import Float

from rahf.inference.image_generator import Request


def takes_emphasis(pipeline: diffusers.DiffusionPipeline) -> bool:
  """Returns whether embeddings can take the place of the pipeline's prompts."""
  return isinstance(pipeline, diffusers.StableDiffusionPipeline)


@torch.no_grad()
def embeddings(
  pipeline: diffusers.StableDiffusionPipeline, requests: Sequence[Request]
) -> dict[str, Float[torch.Tensor, 'B T D']]:
  """Returns arguments of the pipeline that stand for prompts with emphasis.

  A token with weight w gets the embedding e0 + w (e - e0), where e0 is what the empty
  prompt has in its place: 1 changes nothing, 0 removes the word.
  """
  prompts = [one.prompt for one in requests]
  found, away = pipeline.encode_prompt(
    prompts, pipeline.device, 1, True, [one.negative for one in requests]
  )
  empty, _ = pipeline.encode_prompt('', pipeline.device, 1, False)
  weights = torch.ones(found.shape[:2]).to(found)
  encoded = pipeline.tokenizer(
    prompts,
    padding='max_length',
    truncation=True,
    max_length=found.shape[1],
    return_offsets_mapping=True,
  )
  for row, (request, offsets) in enumerate(
    zip(requests, encoded['offset_mapping'], strict=True)
  ):
    for start, end, weight in request.emphasis:
      inside = [start < after and first < end for first, after in offsets]
      weights[row, torch.tensor(inside)] = weight
  weighted = empty + weights[..., None] * (found - empty)
  return {'prompt_embeds': weighted, 'negative_prompt_embeds': away}


def replace_prompts(
  pipeline: Any, arguments: dict[str, Any], requests: Sequence[Request]
) -> dict[str, Any]:
  """Returns the arguments of a call with embeddings instead of prompts."""
  others = {
    name: value
    for name, value in arguments.items()
    if name not in ('prompt', 'negative_prompt')
  }
  return others | embeddings(pipeline, requests)
