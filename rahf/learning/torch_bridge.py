"""Lets PyTorch differentiate values computed by JAX. Imports PyTorch."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float

Evaluate = Callable[
  [Float[np.ndarray, 'N ...']],
  tuple[Float[np.ndarray, 'N'], Float[np.ndarray, 'N ...']],
]


def apply(evaluate: Evaluate, inputs: torch.Tensor) -> torch.Tensor:
  """Returns float32[N], one value for each row of the inputs, on their device.

  Args:
    evaluate: maps the inputs, as NumPy float32, to the values and to the gradient of
      each value with respect to its row.
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
