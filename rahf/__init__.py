"""RAHF: rich human feedback for text-to-image generation, in JAX.

  model = rahf.load('runs/quickstart/export')
  feedback = model.score(['a.png', 'b.png'], 'a red circle')
  reward = rahf.reward('runs/quickstart/export')
  values, info = reward(images, prompts)

A model is a RAHF, or a CLIP such as PickScore; `load` also opens a Muse, an image
generator (`rahf/inference/generator.py`). See `rahf/inference/feedback.py` and
`rahf/learning/reward.py` for what they return.
"""

from rahf.version import __version__

__all__ = ['__version__', 'load', 'reward']


def __getattr__(name: str):
  """Imports JAX code on first use, so that `import rahf` is fast."""
  if name == 'load':
    from rahf.inference.open_model import load

    return load
  if name == 'reward':
    from rahf.learning.reward import reward

    return reward
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
  return sorted({*globals(), *__all__})
