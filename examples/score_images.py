"""Trains a model briefly, exports it, scores images and computes rewards.

Run it from the project's root, as a script or as a notebook of `# %%` cells (VS Code,
Spyder, jupytext):

  python examples/score_images.py [DIR]

Output goes to DIR, by default a temporary directory. It takes a minute or two on two
CPU cores. So few steps teach the model almost nothing: for meaningful numbers, train
`configs/quickstart.py` in full, as in the README, and start at "Export".
"""

# %% Output folder
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

import rahf
from rahf.data.datasets.shapes.record import make_record

if len(sys.argv) == 2 and not sys.argv[1].startswith('-'):
  folder = pathlib.Path(sys.argv[1])
  folder.mkdir(parents=True, exist_ok=True)
else:
  folder = pathlib.Path(tempfile.mkdtemp(prefix='rahf-'))
workdir = folder / 'run'


# %% Train the quickstart for a few steps on a few hundred generated images
def run(*arguments: str) -> None:
  command = [sys.executable, '-m', 'rahf.main', '--config=configs/quickstart.py']
  smaller = {
    'data.dir': folder / 'data',
    'data.shapes.train': 256,
    'data.shapes.dev': 16,
    'data.shapes.test': 16,
    # One block of each kind, since compilation takes most of the time.
    'model.vit.layers': 1,
    'model.t5.encoder_layers': 1,
    'model.t5.decoder_layers': 1,
    'keywords.beams': 1,
    'train.steps': 20,
    'train.checkpoint_every': 20,
    'optimizer.warmup_steps': 5,
    'optimizer.cooldown_steps': 5,
    'eval.every': 20,
    'eval.batch_size': 16,
  }
  settings = [f'--config.{name}={value}' for name, value in smaller.items()]
  subprocess.run([*command, f'--workdir={workdir}', *settings, *arguments], check=True)


run()

# %% Export: a model directory, which needs neither data nor TensorFlow
run('--mode=export')
model = rahf.load(workdir / 'export')

# %% Score three images that were not in the training set
records = [make_record(seed=0, split='test', index=i, image_size=64) for i in range(3)]
feedback = model.score([r.image for r in records], [r.prompt for r in records])

for number, one in enumerate(feedback):
  print(f'\n{number}: {one.prompt}')
  # 0 to 1, higher is better.
  print('  ' + ', '.join(f'{name} {score:.2f}' for name, score in one.scores.items()))
  # The probability that the image misses the word: 0 to 1, higher is worse.
  print('  ' + ', '.join(f'{word} {p:.2f}' for word, p in one.keywords))

# %% Save overlays of the implausibility and misalignment maps
for number, one in enumerate(feedback):
  for name in one.heatmaps:
    path = folder / f'{number}-{name}.png'
    one.overlay(name).save(path)
    print(path)

# %% Compute rewards, as trainers of image generators do
weights = {'overall': 1.0, 'alignment': 0.5, 'implausibility_mean': -1.0}
reward = rahf.reward(workdir / 'export', weights=weights)
pixels = np.random.default_rng(0).random((3, 3, 64, 64), np.float32)  # NCHW, noise
values, info = reward(pixels, [one.prompt for one in feedback])
print(
  'rewards of noise', values.round(3), 'plausibility', info['scores']['plausibility']
)
