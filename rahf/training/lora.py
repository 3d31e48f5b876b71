"""Low-rank adaptation (LoRA; Hu et al., 2021) of attention's projections.

A kernel W becomes W + scale * a b with a narrow a and b, which alone are trained. Both
are parameters below 'lora', at the kernel's own path.

Axis letters: F features before, R rank, H heads, K head width.
"""

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import traverse_util
from jaxtyping import Array

from rahf.models.layers import partitioned
from rahf.runtime.tree import by_path

NAME = 'lora'
# The projections that aMUSEd's script adapts.
_KERNELS = re.compile(r'^transformer/.*/(query|key|value)/kernel$')


def init(params: Any, rank: int, key: Array) -> dict[str, Any]:
  """Makes the factors, boxed with their logical axes; their product is 0.

  Args:
    params: of the model, boxed or not; kernels [F, H, K].
  """
  found = {}
  shapes = {path: leaf.shape for path, leaf in by_path(nn.unbox(params)).items()}
  for number, path in enumerate(filter(_KERNELS.match, sorted(shapes))):
    features, *after = shapes[path]
    down = partitioned(nn.initializers.normal(1 / rank), 'embed', None)
    up = partitioned(nn.initializers.zeros, None, 'heads', None)
    layer = path.removesuffix('/kernel')
    found[f'{layer}/a'] = down(jax.random.fold_in(key, number), (features, rank))
    found[f'{layer}/b'] = up(key, (rank, *after))
  return traverse_util.unflatten_dict(found, sep='/')


def merged(params: Mapping[str, Any], scale: float) -> dict[str, Any]:
  """Returns the parameters of the model with the products added, without factors.

  Args:
    params: of the model; with the factors, if any, below 'lora'.
    scale: of the products.
  """
  flat = traverse_util.flatten_dict(dict(params), sep='/')
  factors = {path: flat.pop(path) for path in [*flat] if path.startswith(f'{NAME}/')}
  for path, a in factors.items():
    if path.endswith('/a'):
      layer = path.removesuffix('/a')
      product = jnp.tensordot(a, factors[f'{layer}/b'], 1)
      kernel = f'{layer.removeprefix(f"{NAME}/")}/kernel'
      flat[kernel] = flat[kernel] + scale * product.astype(flat[kernel].dtype)
  return traverse_util.unflatten_dict(flat, sep='/')
