"""The exported program: any batch size, any platform, compared with the model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

import tiny_model
from rahf.inference import jax_export
from rahf.inference.model_directory import Description
from rahf.inference.step import from_pixels, make_infer
from rahf.models.rahf import RAHF, Outputs


@pytest.mark.parametrize('variant', tiny_model.VARIANTS)
def test_program_for_any_batch(tmp_path, variant):
  description = Description(tiny_model.tiny(variant), 1, 12, 16)
  params = tiny_model.make_params(RAHF(description.model))
  infer = from_pixels(
    make_infer(
      RAHF(description.model), decoder='sequential', mark_ids=(2, 3), length=16
    )
  )
  path = epath.Path(tmp_path / 'program.jaxexport')
  assert jax_export.write(path, description, params, infer) <= 1e-5
  program = jax.export.deserialize(bytearray(path.read_bytes()))
  assert program.platforms == ('cpu', 'tpu', 'cuda')
  batch = jax_export.random_inputs(description)
  one = [values[:1] for values in batch]
  found = program.call(params, *one)
  expected = jax.jit(infer)(params, *one)
  assert found.keys() == {'maps', 'scores', 'p_misaligned'}
  for name, value in found.items():
    np.testing.assert_allclose(value, getattr(expected, name), atol=1e-5)


def test_a_program_that_differs_is_an_error(tmp_path):
  description = Description(tiny_model.tiny(), 1, 12, 16)
  calls = []

  def infer(params, pixels, text, word_end):
    calls.append(pixels)  # Traced once to be exported, once to be compared with.
    filled = jnp.full(pixels.shape[:1], float(len(calls)))
    return Outputs(filled, filled, p_misaligned=filled)

  with pytest.raises(RuntimeError, match='differs from the model by 1'):
    jax_export.write(epath.Path(tmp_path / 'p'), description, {}, infer)
