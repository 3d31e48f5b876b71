"""Commands in README and docs parse, and names in them exist; nothing is trained."""

import pathlib
import re
import shlex
import sys
import tomllib

import pytest
from absl import flags
from absl.testing import flagsaver

import clip_directory
import tiny_muse
from rahf import annotate, best, improve, judge, main, rank, serve
from rahf import config as config_lib
from rahf.data import __main__ as data_main
from rahf.evaluation import compare_command
from rahf.inference import preference_command
from rahf.pretrained import __main__ as pretrained_main

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / 'README.md').read_text(encoding='utf-8')
PAGES = {path: path.read_text('utf-8') for path in sorted(ROOT.glob('docs/*.md'))}
PAGES = {ROOT / 'README.md': README, **PAGES}
TEXT = '\n'.join(PAGES.values())
BLOCKS = re.findall(r'```bash\n(.*?)\n```', TEXT, re.DOTALL)
COMMANDS = [
  shlex.split(command)
  for block in BLOCKS
  for line in block.splitlines()
  for command in line.split('&&')
]
SCRIPTS = {
  *('rahf.main', 'rahf.data', 'rahf.evaluate', 'rahf.pretrained', 'rahf.annotate'),
  *('rahf.compare', 'rahf.rank', 'rahf.judge', 'rahf.best', 'rahf.improve'),
  *('rahf.serve', 'pytest'),
}


def test_first_two_blocks_are_the_main_job_and_the_tests():
  quickstart, tests = (block.split(' && ') for block in BLOCKS[:2])
  assert quickstart == [
    "pip install '.[train]'",
    'python -m rahf.main --config=configs/quickstart.py --workdir=runs/quickstart',
  ]
  # .ci/run looks for this line.
  assert tests == ["pip install -e '.[test]'", 'python -m pytest']


def test_all_commands_are_tested_here():
  kinds = {'pip', 'python', 'tensorboard', 'curl'}
  assert {command[0] for command in COMMANDS} <= kinds
  for command in COMMANDS:
    if command[:2] == ['python', '-m']:
      assert command[2] in SCRIPTS
    elif command[0] == 'python':
      assert (ROOT / command[1]).is_file()


@pytest.mark.parametrize(
  'command', [c for c in COMMANDS if c[0] == 'pip'], ids=shlex.join
)
def test_extras_exist(command: list[str]):
  project = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
  extras = re.fullmatch(r'\.\[(.+)\]', command[-1])
  assert extras
  assert set(extras[1].split(',')) <= project['optional-dependencies'].keys()
  assert not re.search(r'git\+|://', shlex.join(command))


@pytest.mark.parametrize(
  'command', [c for c in COMMANDS if 'rahf.main' in c], ids=shlex.join
)
def test_main_accepts(command: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path):
  monkeypatch.chdir(ROOT)
  # A config after whose colon stands a model reads its sizes.
  models = {
    'clip-vit-base-patch32': clip_directory.write,
    'CLIP-ViT-H-14-laion2B-s32B-b79K': clip_directory.write,
    'runs/muse_shapes_generator/export': tiny_muse.write,
  }
  for model, write in models.items():
    if any(f':{model}' in word for word in command):
      write(tmp_path / model)
      command = [word.replace(f':{model}', f':{tmp_path / model}') for word in command]
  # ml_collections reads overrides of fields from sys.argv.
  monkeypatch.setattr(sys, 'argv', command[2:])
  with flagsaver.flagsaver():
    main.parse_flags(command[2:])
    if flags.FLAGS.mode not in ('infer', 'generate'):  # They need no config.
      config_lib.validate(flags.FLAGS.config)


@pytest.mark.parametrize(
  'command', [c for c in COMMANDS if 'rahf.data' in c], ids=shlex.join
)
def test_data_accepts(command: list[str]):
  assert data_main._parser().parse_args(command[3:]).run


@pytest.mark.parametrize(
  'command', [c for c in COMMANDS if 'rahf.annotate' in c], ids=shlex.join
)
def test_annotate_accepts(command: list[str]):
  assert annotate._parser().parse_args(command[3:]).run


@pytest.mark.parametrize(
  'command', [c for c in COMMANDS if 'rahf.serve' in c], ids=shlex.join
)
def test_serve_accepts(command: list[str]):
  assert serve._parser().parse_args(command[3:]).directory


def test_the_service_is_requested_at_its_default_address():
  command = next(c for c in COMMANDS if c[0] == 'curl')
  host, port = map(serve._parser().get_default, ('host', 'port'))
  assert command[-1] == f'http://{host}:{port}/score'


@pytest.mark.parametrize(
  'command', [c for c in COMMANDS if 'rahf.pretrained' in c], ids=shlex.join
)
def test_pretrained_accepts(command: list[str], capsys):
  # The file is the user's and does not exist here.
  assert pretrained_main.main(command[3:]) == 2
  assert f'{command[3]} does not exist' in capsys.readouterr().err


@pytest.mark.parametrize(
  'command', [c for c in COMMANDS if 'rahf.compare' in c], ids=shlex.join
)
def test_compare_accepts(command: list[str], tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)  # A folder without evaluations.
  assert compare_command.main(command[3:]) == 2
  assert f'{command[3]} does not exist' in capsys.readouterr().err


@pytest.mark.parametrize(
  'command', [c for c in COMMANDS if 'rahf.rank' in c], ids=shlex.join
)
def test_rank_accepts(command: list[str], tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)  # A folder without votes.
  assert rank.main(command[3:]) == 2
  assert f'{command[3]}: no such file or folder' in capsys.readouterr().err


@pytest.mark.parametrize(
  'command', [c for c in COMMANDS if 'rahf.improve' in c], ids=shlex.join
)
def test_improve_accepts(command: list[str]):
  assert improve._parser().parse_args(command[3:]).run


@pytest.mark.parametrize(
  'command', [c for c in COMMANDS if 'rahf.best' in c], ids=shlex.join
)
def test_best_accepts(command: list[str]):
  assert best._parser().parse_args(command[3:]).out


@pytest.mark.parametrize(
  'command', [c for c in COMMANDS if 'rahf.judge' in c], ids=shlex.join
)
def test_judge_accepts(command: list[str], tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)  # A folder without images.
  assert judge.main(command[3:]) == 2
  assert 'no such file or folder' in capsys.readouterr().err


@pytest.mark.parametrize(
  'command', [c for c in COMMANDS if 'preferences' in c], ids=shlex.join
)
def test_preferences_accepts(command: list[str], tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)  # A folder without models.
  assert preference_command.main(command[4:]) == 2
  assert f'{command[4].rpartition("=")[2]} does not exist' in capsys.readouterr().err


def test_readme_is_short():
  assert len(README.splitlines()) <= 150


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_links_exist(page: pathlib.Path):
  for target in re.findall(r'\]\((?!http)([^)#]+)', PAGES[page]):
    assert (page.parent / target).exists(), target


def test_named_files_exist():
  quoted = re.findall(r'(?<!`)`([^`\n]+)`(?!`)', TEXT)
  folders = ('configs/', 'rahf/', 'docs/', 'benchmarks/', 'tests/', 'examples/')
  paths = [name for name in quoted if name.startswith(folders)]
  paths += re.findall(r'^(?:configs|rahf|benchmarks|tests)/[\w/.]*', TEXT, re.MULTILINE)
  assert {'rahf/main.py', 'rahf/models/'} <= set(paths)
  for path in paths:
    assert (ROOT / path).exists(), path


def test_named_fields_exist():
  config = config_lib.default_config()
  fields = re.findall(
    r'`((?:model|data|loss|optimizer|train|eval|mesh|init|keywords)\.[\w.]+)`', TEXT
  )
  fields = [field for field in fields if not field.endswith('.json')]
  assert fields
  for field in fields:
    section = config
    for name in field.split('.'):
      assert name in section, field
      section = section[name]
