"""One training step, as a pure function of (state, batch, key)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from rahf.data.schema import Batch
from rahf.models.rahf import RAHF
from rahf.runtime.sharding import LOGICAL_AXIS_RULES
from rahf.runtime.tree import by_path
from rahf.training import losses
from rahf.training.losses import LabelSums, Losses
from rahf.training.state import TrainState

Metrics = dict[str, jax.Array]
TrainStep = Callable[[TrainState, Batch, jax.Array], tuple[TrainState, Metrics]]


def make_train_step(
  model: RAHF,
  optimizer: optax.GradientTransformation,
  weights,
  *,
  gather: Callable[[Any], Any] = lambda params: params,
  accumulate: int = 1,
  schedule: optax.Schedule | None = None,
  skip_nonfinite: bool = False,
) -> TrainStep:
  """Returns the step; jit it under the mesh.

  Args:
    weights: of the losses, with fields heatmap, score, sequence.
    gather: makes of the state's parameters what the model is applied with.
    accumulate: micro-batches that the batch is cut into, one after the other. Their
      gradients add up to the whole batch's, also where labels are missing.
    schedule: the optimizer's, to be reported as `learning_rate`.
    skip_nonfinite: whether parameters and moments stay as they were where loss,
      gradient or what it makes of the parameters is NaN or infinite.
  """

  def loss(params, batch: Batch, counts: LabelSums, key) -> tuple[jax.Array, Losses]:
    with nn.logical_axis_rules(LOGICAL_AXIS_RULES):
      outputs = model.apply(
        {'params': gather(params)},
        batch.image,
        batch.text,
        batch.target,
        train=True,
        rngs={'dropout': key},
      )
    parts = losses.weighted_losses(losses.sum_errors(outputs, batch), counts, weights)
    return parts.total, parts

  def train_step(
    state: TrainState, batch: Batch, key: jax.Array
  ) -> tuple[TrainState, Metrics]:
    key = jax.random.fold_in(key, state.step)
    counts = losses.count_labels(batch)
    gradient = jax.grad(loss, has_aux=True)

    def add_micro_batch(total, numbered):
      number, micro_batch = numbered
      part = gradient(
        state.params, micro_batch, counts, jax.random.fold_in(key, number)
      )
      return jax.tree.map(jnp.add, total, part), None

    if accumulate == 1:
      grads, parts = gradient(state.params, batch, counts, key)
    else:
      zeros = jax.tree.map(jnp.zeros_like, state.params)
      start = (zeros, Losses(*(jnp.zeros(()) for _ in Losses._fields)))
      numbered = (jnp.arange(accumulate), split_batch(batch, accumulate))
      (grads, parts), _ = jax.lax.scan(add_micro_batch, start, numbered)

    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics = {f'loss/{name}': value for name, value in parts._asdict().items()}
    metrics |= norms(grads, params)
    if schedule:
      metrics['learning_rate'] = schedule(state.step)
    new = (params, opt_state)
    if skip_nonfinite:
      totals = parts.total, metrics['gradient_norm'], metrics['parameter_norm']
      finite = jnp.isfinite(jnp.stack(totals)).all()
      new = jax.tree.map(
        # Counts go on, as the schedule's.
        lambda new, old: jnp.where(finite, new, old) if _is_inexact(new) else new,
        new,
        (state.params, state.opt_state),
      )
    return TrainState(state.step + 1, *new), metrics

  return train_step


def _is_inexact(array: jax.Array) -> bool:
  return jnp.issubdtype(array.dtype, jnp.inexact)


def norms(grads: Any, params: Any) -> Metrics:
  """Returns the norms of the gradient and of the parameters, and of both by module."""
  found = {}
  for name, tree in (('gradient_norm', grads), ('parameter_norm', params)):
    found[name] = optax.global_norm(tree)
    for module, leaves in modules(tree).items():
      found[f'{name}/{module}'] = optax.global_norm(leaves)
  return found


def modules(tree: Any) -> dict[str, list[jax.Array]]:
  """Returns the leaves by module: ViT, parts of T5, projection, each head."""
  found: dict[str, list[jax.Array]] = {}
  for path, leaf in by_path(tree).items():
    names = path.split('/')
    module = '/'.join(names[: 2 if names[0] == 't5' else 1])
    found.setdefault(module, []).append(leaf)
  return found


def split_batch(batch: Any, parts: int) -> Any:
  """Reshapes B rows to parts x B/parts; part i has the rows i, i + parts, ...

  Neighbouring rows go to different parts, so that every device keeps its own rows.
  """
  return jax.tree.map(
    lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1), batch
  )
