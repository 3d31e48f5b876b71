"""The ViT against the public vision_transformer code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rahf.models.vit import ViT, ViTConfig, sincos_positions
from rahf.pretrained import load

GOLDEN = ViTConfig(patch=8, width=24, layers=2, heads=3, mlp=40)


@pytest.mark.parametrize('spelling', ['release', 'linen'])
def test_tokens_equal_the_public_code(assets, spelling):
  params = load(assets / 'golden' / f'vit_tiny_{spelling}_names.npz')['vit']
  golden = np.load(assets / 'golden' / 'vit_tiny_expected.npz')
  apply = jax.jit(ViT(GOLDEN, 0.0, jnp.dtype('float32')).apply, static_argnames='train')
  tokens = apply({'params': params}, jnp.asarray(golden['image']), train=False)
  assert tokens.shape == (2, 17, 24)
  np.testing.assert_allclose(tokens, golden['tokens'], atol=1e-5)


def test_positions_start_as_waves_of_column_and_row():
  waves = sincos_positions(3, 9)
  assert waves.shape == (9, 9)
  # Token 5 is in row 1, column 2; wavelengths are 2 pi and 20,000 pi.
  one, two = np.array([1, 1e-4]), 2 * np.array([1, 1e-4])
  expected = [*np.sin(two), *np.cos(two), *np.sin(one), *np.cos(one), 0]
  np.testing.assert_allclose(waves[5], expected, atol=1e-12)
