"""Trains a model on your own annotations: draw, annotate, prepare, train, score.

Run it from the project's root, as a script or as a notebook of `# %%` cells:

  python examples/own_annotations.py [DIR]

Output goes to DIR, by default a temporary directory. It takes a minute or two on two
CPU cores. Twelve images are too few to learn anything useful: replace "Images and
prompts" and "Annotations" with your own, and use the model sizes of a config.
"""

# %% Output folder
import csv
import json
import pathlib
import subprocess
import sys
import tempfile

import sentencepiece
from PIL import Image, ImageDraw

import rahf

if len(sys.argv) == 2 and not sys.argv[1].startswith('-'):
  folder = pathlib.Path(sys.argv[1])
else:
  folder = pathlib.Path(tempfile.mkdtemp(prefix='rahf-'))
(folder / 'images').mkdir(parents=True, exist_ok=True)

# %% Images and prompts: <uid>.png, and a table with the columns uid and prompt
# Images with the same prompt go to the same split, so several prompts are needed.
COLOURS = ('red', 'blue', 'green', 'yellow')
SHAPES = {
  'circle': lambda draw, colour: draw.ellipse((12, 12, 52, 52), colour),
  'square': lambda draw, colour: draw.rectangle((12, 12, 52, 52), colour),
  'triangle': lambda draw, colour: draw.polygon(((12, 52), (32, 12), (52, 52)), colour),
}
wanted = [(colour, shape) for shape in SHAPES for colour in COLOURS]
prompts = {}
for number, (colour, shape) in enumerate(wanted):
  # The first four images have the colour of their prompt, the others a different one.
  drawn = COLOURS[(number + number // 4) % 4]
  image = Image.new('RGB', (64, 64), 'white')
  draw = ImageDraw.Draw(image)
  SHAPES[shape](draw, drawn)
  if number % 3 == 0:
    draw.rectangle((40, 40, 56, 56), 'black')  # The artefact to annotate.
  image.save(folder / 'images' / f'{number:02}.png')
  prompts[f'{number:02}'] = f'a {colour} {shape}'

with (folder / 'prompts.csv').open('w', newline='') as file:
  csv.writer(file).writerows([('uid', 'prompt'), *prompts.items()])

# %% Annotations: one line of JSON per image and annotator
with (folder / 'annotations.jsonl').open('w') as file:
  for uid, prompt in prompts.items():
    number = int(uid)
    right = number < 4  # Whether the colour is that of the prompt.
    for annotator, severity in (('ann', 0), ('ben', 1)):
      answer = {
        'uid': uid,
        'annotator': annotator,
        # 1 is worst, 5 is best.
        'scores': {
          'plausibility': 3 - severity if number % 3 == 0 else 5,
          'alignment': 5 if right else 2 - severity,
        },
        # x and y as fractions of width and height, from the top left.
        'implausibility_points': [[0.75, 0.75]] if number % 3 == 0 else [],
        'misaligned_words': [] if right else [prompt.split()[1]],
      }
      file.write(json.dumps(answer) + '\n')

# %% A vocabulary; pretrained T5 weights need T5's own spiece.model
with (folder / 'words.model').open('wb') as file:
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(prompts.values()),
    model_writer=file,
    vocab_size=40,
    hard_vocab_limit=False,
    pad_id=0,
    eos_id=1,
    unk_id=2,
    bos_id=-1,
    user_defined_symbols=['_0'],
    minloglevel=2,
  )


# %% Prepare and verify: points become maps, answers are averaged
def run(*command: str | pathlib.Path) -> None:
  subprocess.run([sys.executable, '-m', *map(str, command)], check=True)


run(
  *('rahf.data', 'prepare', 'annotated', '--name=mine', f'--out={folder / "data"}'),
  *(f'--annotations={folder / "annotations.jsonl"}', f'--images={folder / "images"}'),
  *(f'--prompts={folder / "prompts.csv"}', '--dev=0.25', '--test=0.25'),
)
run('rahf.data', 'verify', folder / 'data' / 'mine')

# %% Train a few steps, and export
settings = {
  'data.name': 'mine',
  'data.dir': folder / 'data',
  'tokenizer': folder / 'words.model',
  'model.vit.layers': 1,
  'model.t5.encoder_layers': 1,
  'model.t5.decoder_layers': 1,
  'train.steps': 20,
  'train.batch_size': 8,
  'train.checkpoint_every': 20,
  'optimizer.warmup_steps': 5,
  'optimizer.cooldown_steps': 5,
  'eval.every': 20,
  'eval.batch_size': 8,
}
flags = [f'--config.{name}={value}' for name, value in settings.items()]
command = ('rahf.main', '--config=configs/quickstart.py', f'--workdir={folder / "run"}')
run(*command, *flags)
run(*command, *flags, '--mode=export')

# %% Score
model = rahf.load(folder / 'run' / 'export')
for one in model.score([folder / 'images' / '00.png'], [prompts['00']]):
  print(one.prompt, {name: round(score, 2) for name, score in one.scores.items()})
