"""The optimizer's schedule, decay, clipping and freezing, in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rahf.config import default_config
from rahf.errors import InputError
from rahf.training.optimizer import check_patterns, make_optimizer, make_schedule

RATE = 1e-2


def make_options(**changes):
  options = default_config().optimizer
  options.update(learning_rate=RATE, warmup_steps=10, weight_decay=0.0, clip_norm=1e9)
  options.update(changes)
  return options


def make_params() -> dict:
  return {
    'vit': {'kernel': jnp.array([3.0, -2.0]), 'bias': jnp.array([1.0])},
    't5': {'embedding': jnp.array([4.0]), 'kernel': jnp.array([0.5])},
  }


def first_update(options, grads: dict) -> tuple[dict, optax.OptState]:
  """Returns the first step's update of the parameters, and the state after it."""
  params = make_params()
  optimizer = make_optimizer(options, steps=100)
  return optimizer.update(grads, optimizer.init(params), params)


def test_schedule_warms_up_and_falls_with_the_root():
  schedule = make_schedule(make_options(), steps=1000)
  # Counted from 0: the first step already moves.
  rates = {0: 0.1, 4: 0.5, 9: 1.0, 39: 0.5, 89: 1 / 3, 999: 0.1}
  for count, share in rates.items():
    assert float(schedule(count)) == pytest.approx(share * RATE, rel=1e-6)


def test_schedule_without_warm_up_begins_at_the_base_rate():
  schedule = make_schedule(make_options(warmup_steps=0), steps=10)
  assert float(schedule(0)) == pytest.approx(RATE)
  assert float(schedule(3)) == pytest.approx(RATE / 2)


def test_cool_down_falls_to_zero_over_the_last_steps():
  plain = make_schedule(make_options(), steps=100)
  cooled = make_schedule(make_options(cooldown_steps=20), steps=100)
  for count, share in {50: 1, 80: 1, 85: 0.75, 99: 0.05, 100: 0}.items():
    expected = share * float(plain(count))
    assert float(cooled(count)) == pytest.approx(expected, rel=1e-5)


def test_only_kernels_decay():
  options = make_options(weight_decay=0.5)
  updates, _ = first_update(options, jax.tree.map(jnp.zeros_like, make_params()))
  # Without gradients nothing but the decay is left; the rate is RATE / 10.
  step = -RATE / 10 * 0.5
  np.testing.assert_allclose(updates['vit']['kernel'], [3 * step, -2 * step], rtol=1e-5)
  np.testing.assert_allclose(updates['t5']['kernel'], [0.5 * step], rtol=1e-5)
  assert float(updates['vit']['bias'][0]) == 0
  assert float(updates['t5']['embedding'][0]) == 0


def test_the_first_step_is_the_rate_against_the_gradients_sign():
  grads = {
    'vit': {'kernel': jnp.array([7.0, -0.1]), 'bias': jnp.array([2.0])},
    't5': {'embedding': jnp.array([-3.0]), 'kernel': jnp.array([0.2])},
  }
  updates, _ = first_update(make_options(), grads)
  expected = jax.tree.map(lambda g: -RATE / 10 * jnp.sign(g), grads)
  jax.tree.map(
    lambda u, e: np.testing.assert_allclose(u, e, rtol=1e-4), updates, expected
  )


def test_gradients_are_clipped_to_the_global_norm():
  grads = jax.tree.map(jnp.zeros_like, make_params())
  grads['vit']['kernel'] = jnp.array([3.0, 0.0])
  grads['t5']['kernel'] = jnp.array([4.0])
  _, state = first_update(make_options(clip_norm=0.5), grads)
  # The norm is 5, so a tenth is left; the first moment is (1 - b1) of that.
  mu = optax.tree_utils.tree_get(state, 'mu')
  np.testing.assert_allclose(mu['vit']['kernel'], [0.03, 0], rtol=1e-5)
  np.testing.assert_allclose(mu['t5']['kernel'], [0.04], rtol=1e-5)


def test_frozen_parameters_stay_and_have_no_state():
  options = make_options(freeze=('^vit/',), weight_decay=0.5, clip_norm=0.5)
  params = make_params()
  grads = jax.tree.map(jnp.ones_like, params)
  # Would take all of the clipped norm, if it counted.
  grads['vit']['kernel'] = jnp.array([1e6, 1e6])
  grads['t5'] = {'embedding': jnp.array([3.0]), 'kernel': jnp.array([4.0])}
  updates, state = first_update(options, grads)
  moved = optax.apply_updates(params, updates)
  jax.tree.map(np.testing.assert_array_equal, moved['vit'], params['vit'])
  assert not jnp.array_equal(moved['t5']['kernel'], params['t5']['kernel'])
  mu = optax.tree_utils.tree_get(state, 'mu')
  assert jax.tree.leaves(mu['vit']) == []
  np.testing.assert_allclose(mu['t5']['kernel'], [0.04], rtol=1e-5)


def test_rate_factors_multiply_the_updates_they_match():
  grads = jax.tree.map(jnp.ones_like, make_params())
  plain, _ = first_update(make_options(), grads)
  factors = (('^t5/', 30.0), ('kernel$', 0.5))
  scaled, _ = first_update(make_options(rate_factors=factors), grads)
  for path, factor in {
    ('vit', 'kernel'): 0.5,
    ('vit', 'bias'): 1.0,
    ('t5', 'embedding'): 30.0,
    ('t5', 'kernel'): 15.0,
  }.items():
    ours, theirs = scaled[path[0]][path[1]], plain[path[0]][path[1]]
    np.testing.assert_allclose(ours, factor * theirs, rtol=1e-6)


def test_a_pattern_that_matches_nothing_is_an_error():
  check_patterns(make_options(rate_factors=(('^vit/', 2.0),)), make_params())
  with pytest.raises(InputError, match=r"rate_factors has 'x', which matches no"):
    check_patterns(make_options(rate_factors=(('x', 2.0),)), make_params())


def test_a_pattern_that_freezes_nothing_is_an_error():
  check_patterns(make_options(freeze=('^vit/', 'kernel$')), make_params())
  with pytest.raises(InputError, match=r"freeze has '\^vti/', which matches no"):
    check_patterns(make_options(freeze=('^t5/', '^vti/')), make_params())
