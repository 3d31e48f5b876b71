"""From images to a model through people's answers: annotate, prepare, train, score.

Run it from the project's root, as a script or as a notebook of `# %%` cells:

  python examples/annotate_in_browser.py [DIR]

It starts the server that people would open in their browsers. Here, three simulated
annotators answer through the same requests as its pages. Output goes to DIR, by default
a temporary directory. It takes a minute or two on two CPU cores. Sixteen images are
too few to learn anything useful: replace them with your own, invite people, and use the
model sizes of a config.
"""

# %% Output folder
import csv
import http.cookiejar
import json
import pathlib
import re
import secrets
import subprocess
import sys
import tempfile
import urllib.request

import sentencepiece

import rahf
from rahf.data import schema
from rahf.data.datasets.shapes.annotators import ANNOTATORS
from rahf.data.datasets.shapes.record import make_record, make_sample

if len(sys.argv) == 2 and not sys.argv[1].startswith('-'):
  folder = pathlib.Path(sys.argv[1])
else:
  folder = pathlib.Path(tempfile.mkdtemp(prefix='rahf-'))
(folder / 'images').mkdir(parents=True, exist_ok=True)

# %% Images and prompts: <uid>.png, and a table with the columns uid and prompt
COUNT, SIZE = 16, 64
prompts, annotations = {}, {}
for number in range(COUNT):
  record = make_record(0, 'train', number, SIZE)
  (folder / 'images' / f'{record.uid}.png').write_bytes(record.image)
  prompts[record.uid] = record.prompt
  # What the three annotators think of it.
  annotations[record.prompt] = make_sample(0, 'train', number, 'full').annotations

with (folder / 'prompts.csv').open('w', newline='') as file:
  csv.writer(file).writerows([('uid', 'prompt'), *prompts.items()])


# %% The server; people open its address in their browsers
def command(*arguments: object) -> list[str]:
  return [sys.executable, '-m', *map(str, arguments)]


server = subprocess.Popen(
  [
    *command('rahf.annotate', 'serve', folder / 'project', '--task=rich', '--port=0'),
    f'--images={folder / "images"}',
    f'--prompts={folder / "prompts.csv"}',
    f'--answers={ANNOTATORS}',
  ],
  stdout=subprocess.PIPE,
  text=True,
)
for line in server.stdout:
  if line.startswith('Ready: '):
    address = line.removeprefix('Ready: ').strip()
    break
else:
  sys.exit('the server did not start')


# %% Annotators: each enters with a name and answers until nothing is left
class Annotator:
  def __init__(self, number: int):
    self.number, self.csrf = number, ''
    cookies = http.cookiejar.CookieJar()
    self.opener = urllib.request.build_opener(
      urllib.request.HTTPCookieProcessor(cookies)
    )
    self.post('/api/enter', {'name': f'annotator {number}'})
    # Requests that change something repeat this word of the page.
    page = self.opener.open(address).read().decode()
    self.csrf = re.search('"csrf": "([^"]+)"', page)[1]

  def post(self, path: str, body: dict) -> dict:
    headers = {'Content-Type': 'application/json', 'X-CSRF-Token': self.csrf}
    data = json.dumps(body).encode()
    request = urllib.request.Request(address + path, data, headers)
    return json.load(self.opener.open(request))

  def work(self) -> int:
    found = json.load(self.opener.open(f'{address}/api/task'))
    count = 0
    while task := found['task']:
      thought = annotations[task['prompt']][self.number]
      value = {
        'implausibility_points': thought.implausibility_points,
        'misalignment_points': thought.misalignment_points,
        'misaligned_words': thought.misaligned_words,
      }
      # Whoever marks nothing says so.
      value['nothing'] = [name for name, marked in value.items() if not marked]
      scores = zip(schema.SCORES, map(int, thought.scores), strict=True)
      value['scores'] = dict(scores)
      body = {'lease': task['lease'], 'turn': task['turn'], 'value': value}
      # The key makes sure that an answer sent twice is stored once.
      found = self.post('/api/answer', body | {'key': secrets.token_hex(16)})
      count += 1
    return count


try:
  for number in range(ANNOTATORS):
    print(f'annotator {number} answered {Annotator(number).work()} tasks')
finally:
  server.terminate()
  server.wait()


# %% Export and prepare
def run(*arguments: object) -> None:
  subprocess.run(command(*arguments), check=True)


answers = folder / 'annotations.jsonl'
run('rahf.annotate', 'export', folder / 'project', f'--out={answers}')
run(
  *('rahf.data', 'prepare', 'annotated', '--name=mine', f'--out={folder / "data"}'),
  *(f'--annotations={answers}', f'--images={folder / "images"}'),
  *(f'--prompts={folder / "prompts.csv"}', '--dev=0.25', '--test=0.25'),
)

# %% A vocabulary; pretrained T5 weights need T5's own spiece.model
with (folder / 'words.model').open('wb') as file:
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(prompts.values()),
    model_writer=file,
    vocab_size=60,
    hard_vocab_limit=False,
    pad_id=0,
    eos_id=1,
    unk_id=2,
    bos_id=-1,
    user_defined_symbols=['_0'],
    minloglevel=2,
  )

# %% Train a few steps, and export
settings = {
  'data.name': 'mine',
  'data.dir': folder / 'data',
  'tokenizer': folder / 'words.model',
  'model.vit.layers': 1,
  'model.t5.encoder_layers': 1,
  'model.t5.decoder_layers': 1,
  'train.steps': 10,
  'train.batch_size': 8,
  'train.checkpoint_every': 10,
  'optimizer.warmup_steps': 2,
  'optimizer.cooldown_steps': 2,
  'eval.every': 10,
  'eval.batch_size': 8,
}
flags = [f'--config.{name}={value}' for name, value in settings.items()]
train = ('rahf.main', '--config=configs/quickstart.py', f'--workdir={folder / "run"}')
run(*train, *flags)
run(*train, *flags, '--mode=export')

# %% Score
model = rahf.load(folder / 'run' / 'export')
uid, prompt = next(iter(prompts.items()))
for one in model.score([folder / 'images' / f'{uid}.png'], [prompt]):
  print(one.prompt, {name: round(score, 2) for name, score in one.scores.items()})
