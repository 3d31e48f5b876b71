"""Lets PyTorch differentiate functions that JAX computes. Imports PyTorch."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float

from rahf.data.images.inputs import from_torch
from rahf.errors import InputError

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

  Raises:
    InputError: the inputs are not a tensor, or cannot be copied to NumPy.
  """
  if not isinstance(inputs, torch.Tensor):
    raise InputError(
      f'{type(inputs).__name__} is not a PyTorch tensor; for JAX there is '
      '`reward.differentiable`'
    )
  return _Evaluated.apply(inputs, evaluate)


class _Evaluated(torch.autograd.Function):
  @staticmethod
  def forward(ctx, inputs, evaluate):
    values, gradients = evaluate(from_torch(inputs).astype(np.float32))
    ctx.save_for_backward(torch.tensor(gradients).to(inputs))
    return torch.tensor(values, device=inputs.device)

  @staticmethod
  @torch.autograd.function.once_differentiable
  def backward(ctx, upstream):
    (gradients,) = ctx.saved_tensors
    rows = upstream.reshape(-1, *[1] * (gradients.ndim - 1))
    return rows.to(gradients) * gradients, None
