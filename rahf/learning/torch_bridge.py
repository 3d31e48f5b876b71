"""Lets PyTorch differentiate functions that JAX computes. Imports PyTorch."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float

Evaluate = Callable[
  [Float[np.ndarray, 'N ...']],
  tuple[Float[np.ndarray, 'N'], Float[np.ndarray, 'N ...']],
]


def apply(evaluate: Evaluate, inputs: torch.Tensor) -> torch.Tensor:
  """Returns one value per row of the inputs, float32[N], on their device.

  Args:
    evaluate: maps the inputs, as float32 NumPy arrays, to the values and to the
      gradient of each value with respect to its row.
    inputs: [N, ...], floats.
  """
  return _Evaluated.apply(inputs, evaluate)


class _Evaluated(torch.autograd.Function):
  @staticmethod
  def forward(ctx, inputs, evaluate):
    values, gradients = evaluate(inputs.detach().float().cpu().numpy())
    ctx.save_for_backward(torch.tensor(gradients).to(inputs))
    return torch.tensor(values, device=inputs.device)

  @staticmethod
  @torch.autograd.function.once_differentiable
  def backward(ctx, upstream):
    (gradients,) = ctx.saved_tensors
    rows = upstream.reshape(-1, *[1] * (gradients.ndim - 1))
    return rows.to(gradients) * gradients, None
