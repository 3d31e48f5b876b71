"""One training step, as a pure function of (state, batch, key)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from rahf.runtime.sharding import LOGICAL_AXIS_RULES
from rahf.runtime.tree import by_path
from rahf.training.state import TrainState
from rahf.training.task import Losses, Task, Variables

Metrics = dict[str, jax.Array]
TrainStep = Callable[[TrainState, Any, jax.Array], tuple[TrainState, Metrics]]


def make_train_step(
  task: Task,
  optimizer: optax.GradientTransformation,
  *,
  gather: Callable[[Any], Any] = lambda params: params,
  accumulate: int = 1,
  schedule: optax.Schedule | None = None,
  skip_nonfinite: bool = False,
  average: float = 0.0,
) -> TrainStep:
  """Returns the step; jit it under the mesh.

  Args:
    task: provides the loss to minimise.
    gather: turns the state's parameters into those that the model is applied with.
    accumulate: number of micro-batches, processed one after another. Their gradients
      add up to the batch's.
    schedule: of the optimizer, reported as `learning_rate`.
    skip_nonfinite: whether to keep the old state, apart from its step counters, if the
      loss, the gradient or the new parameters are NaN or infinite.
    average: decay per step of the moving average of the parameters, if the state has
      one.
  """
  gradient = make_gradient(task, gather, accumulate)

  def train_step(
    state: TrainState, batch: Any, key: jax.Array
  ) -> tuple[TrainState, Metrics]:
    key = jax.random.fold_in(key, state.step)
    counts = task.count_labels(batch)
    grads, (losses, collections) = gradient(state, batch, counts, key)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics = {f'loss/{name}': value for name, value in losses._asdict().items()}
    metrics |= norms(grads, params)
    if schedule:
      metrics['learning_rate'] = schedule(state.step)
    new = TrainState(
      step=state.step,
      params=params,
      opt_state=opt_state,
      collections=collections,
      average=_averaged(state, params, average),
    )
    if skip_nonfinite:
      totals = losses.total, metrics['gradient_norm'], metrics['parameter_norm']
      finite = jnp.isfinite(jnp.stack(totals)).all()
      new = jax.tree.map(
        # Step counters still advance, as the schedule's does.
        lambda new, old: jnp.where(finite, new, old) if _is_inexact(new) else new,
        new,
        state,
      )
    return new.replace(step=state.step + 1), metrics

  return train_step


def make_gradient(
  task: Task, gather: Callable[[Any], Any], accumulate: int
) -> Callable[..., tuple[Any, tuple[Losses, Variables]]]:
  """Returns a function from (state, batch, counts, key) to the loss's gradient.

  The function also returns the losses and the new values of the other collections.
  """

  def loss(params, collections: Variables, batch, counts, key):
    variables = {'params': gather(params), **collections}
    with nn.logical_axis_rules(LOGICAL_AXIS_RULES):
      losses, changed = task.loss(variables, batch, counts, key)
    return losses.total, (losses, changed)

  gradient = jax.grad(loss, has_aux=True)

  def of_batch(state: TrainState, batch, counts, key):
    return gradient(state.params, state.collections, batch, counts, key)

  def of_micro_batches(state: TrainState, batch, counts, key):
    def add_micro_batch(carried, numbered):
      total, collections = carried
      number, micro_batch = numbered
      grads, (losses, collections) = gradient(
        state.params, collections, micro_batch, counts, jax.random.fold_in(key, number)
      )
      # Summed, not averaged: each loss is divided by the counts of the whole batch.
      return (jax.tree.map(jnp.add, total, (grads, losses)), collections), None

    micro_batches = split_batch(batch, accumulate)
    numbered = (jnp.arange(accumulate), micro_batches)
    first = jax.tree.map(lambda x: x[0], micro_batches)
    zeros = _zeros(gradient, state, first, counts, key)
    start = (zeros, state.collections)
    ((grads, losses), collections), _ = jax.lax.scan(add_micro_batch, start, numbered)
    return grads, (losses, collections)

  return of_batch if accumulate == 1 else of_micro_batches


def _zeros(gradient, state: TrainState, micro_batch, counts, key) -> tuple[Any, Losses]:
  """Returns zeros in the shapes of gradient and losses."""
  grads, (losses, _) = jax.eval_shape(
    gradient, state.params, state.collections, micro_batch, counts, key
  )
  return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (grads, losses))


def _averaged(state: TrainState, params: Any, decay: float) -> Any:
  if state.average is None:
    return None
  return optax.incremental_update(params, state.average, 1 - decay)


def _is_inexact(array: jax.Array) -> bool:
  return jnp.issubdtype(array.dtype, jnp.inexact)


def norms(grads: Any, params: Any) -> Metrics:
  """Returns the norms of gradient and parameters, in total and by module."""
  found = {}
  for name, tree in (('gradient_norm', grads), ('parameter_norm', params)):
    found[name] = optax.global_norm(tree)
    for module, leaves in modules(tree).items():
      found[f'{name}/{module}'] = optax.global_norm(leaves)
  return found


def modules(tree: Any) -> dict[str, list[jax.Array]]:
  """Groups the leaves by module: ViT, parts of T5, projection, each head."""
  found: dict[str, list[jax.Array]] = {}
  for path, leaf in by_path(tree).items():
    names = path.split('/')
    module = '/'.join(names[: 2 if names[0] == 't5' else 1])
    found.setdefault(module, []).append(leaf)
  return found


def split_batch(batch: Any, parts: int) -> Any:
  """Reshapes [B, ...] to [parts, B/parts, ...]; part i has the rows i, i + parts, ...

  Neighbouring rows go to different parts, so that every device keeps its own rows.
  """
  return jax.tree.map(
    lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1), batch
  )
