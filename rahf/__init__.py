"""RAHF: rich human feedback for text-to-image generation, in JAX.

  model = rahf.load('runs/quickstart/export')
  feedback = model.score(['a.png', 'b.png'], 'a red circle')

`rahf.feedback` says what comes out.
"""

__version__ = '0.1.0'
__all__ = ['__version__', 'load']


def __getattr__(name: str):
  """Imports what needs JAX when it is first asked for: `import rahf` stays quick."""
  if name == 'load':
    from rahf.feedback import load

    return load
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
  return [*globals(), 'load']
