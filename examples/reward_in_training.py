"""Trains a tiny image generator with RAHF's reward.

Run it from the project's root, as a script or as a notebook of `# %%` cells:

  python examples/reward_in_training.py MODEL_DIRECTORY [DIR]

MODEL_DIRECTORY is written by --mode=export, such as runs/quickstart/export. Pictures
from before and after training go to DIR, by default the current directory. It takes
less than a minute on two CPU cores.

To keep the code short, the generator is a single layer from noise to pixels. It also
shows reward hacking: images that please the model need not please people.
"""

# %% The reward, as a pure function of pixels in [0, 1]
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
from PIL import Image

import rahf

folder = pathlib.Path(sys.argv[2] if len(sys.argv) > 2 else '.')
COUNT = 4
reward = rahf.reward(sys.argv[1], weights={'overall': 1.0, 'implausibility_mean': -1.0})
text = reward.encode(['a red circle'])

# %% The generator: noise to pixels
SIZE, NOISE = 32, 16


def generate(params: dict[str, jax.Array], noise: jax.Array) -> jax.Array:
  """Returns images [N, SIZE, SIZE, 3] in [0, 1]."""
  pixels = noise @ params['kernel'] + params['bias']
  return jax.nn.sigmoid(pixels).reshape(-1, SIZE, SIZE, 3)


keys = jax.random.split(jax.random.key(0))
params = {
  'kernel': 0.1 * jax.random.normal(keys[0], (NOISE, SIZE * SIZE * 3)),
  'bias': jnp.zeros(SIZE * SIZE * 3),
}
noise = jax.random.normal(keys[1], (COUNT, NOISE))


def save(name: str) -> None:
  pixels = np.asarray(generate(params, noise)[0] * 255).astype(np.uint8)
  Image.fromarray(pixels).resize((128, 128), Image.Resampling.NEAREST).save(
    folder / name
  )


# %% The loop: the reward's gradient flows through the pixels into the generator
optimizer = optax.adam(0.05)
opt_state = optimizer.init(params)


@jax.jit
@jax.value_and_grad
def loss(params: dict[str, jax.Array], judge, noise: jax.Array) -> jax.Array:
  # The reward's parameters are an argument so that they are not compiled in.
  return -reward.differentiable(judge, generate(params, noise), text).mean()


save('before.png')
for step in range(21):
  value, grads = loss(params, reward.params, noise)
  updates, opt_state = optimizer.update(grads, opt_state)
  params = optax.apply_updates(params, updates)
  if step % 10 == 0:
    print(f'step {step}: reward {-value:.4f}')
save('after.png')
