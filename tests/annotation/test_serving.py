"""`python -m rahf.annotate serve` as a process: kills, many people, two servers."""

import collections
import random
import signal
import subprocess
import sys
import time

import browsing
import numpy as np
import postgres
import projects
import pytest
import serving_process
import sqlalchemy as sa
from serving_process import Server, Worker

import runs
from rahf import annotate
from rahf.annotation import project
from rahf.annotation.tables import ANNOTATORS, ANSWERS, ITEMS

ANSWERS_EACH = 2


def prepare(tmp_path, images: int) -> list[str]:
  """Writes images; returns the flags of a new project."""
  folder = projects.write_images(tmp_path, images)
  table = tmp_path / 'prompts.csv'
  flags = ['--task=rich', f'--images={folder}', f'--prompts={table}', '--gold=0']
  return [*flags, f'--answers={ANSWERS_EACH}']


def check(folder, url: str, workers: list[Worker]) -> None:
  """Checks that each answer is stored once, and each image was asked of k people."""
  assert [worker.error for worker in workers] == [None] * len(workers)
  with project.opened(folder, url) as made, made.store.read() as connection:
    found = connection.execute(
      sa.select(ANSWERS, ANNOTATORS.c.name).join(
        ANNOTATORS, ANNOTATORS.c.id == ANSWERS.c.annotator
      )
    ).all()
    items = connection.execute(sa.select(ITEMS)).all()
  stored = {(row.key, row.name) for row in found}
  assert len(stored) == len(found)
  told = {(key, worker.name) for worker in workers for key in worker.acknowledged}
  assert stored == told
  per_item = collections.Counter(row.item for row in found)
  assert {row.id: row.completed for row in items} == per_item
  assert set(per_item.values()) == {ANSWERS_EACH}
  pairs = collections.Counter((row.item, row.annotator) for row in found)
  assert set(pairs.values()) == {1}


def test_no_answer_is_lost_or_doubled_by_kills(tmp_path, long):
  people, kills, images = (50, 20, 1500) if long else (8, 3, 60)
  seed = time.time_ns()
  print(f'seed {seed}')
  chance = random.Random(seed)
  folder = tmp_path / 'project'
  server = Server(folder)
  server.start(*prepare(tmp_path, images))
  pause = 0.5 if long else 0.25
  workers = [Worker([server.port], f'p{n}', pause) for n in range(people)]
  try:
    for worker in workers:
      worker.start()
    for _ in range(kills):
      time.sleep(chance.uniform(0.1, 1.0))
      assert any(worker.is_alive() for worker in workers)
      server.kill()
      server.start()
    for worker in workers:
      worker.join(300)
  finally:
    server.kill()
  check(folder, '', workers)


def test_many_people_at_once_are_served_quickly(tmp_path, long):
  # Still faster than people, who take half a minute for an image.
  people, images, pause = (50, 300, 10.0) if long else (10, 60, 2.0)
  folder = tmp_path / 'project'
  with serving_process.started(folder, *prepare(tmp_path, images)) as server:
    workers = [Worker([server.port], f'p{n}', pause) for n in range(people)]
    for worker in workers:
      worker.start()
    for worker in workers:
      worker.join(300)
  check(folder, '', workers)
  taken = 1000 * np.concatenate([worker.seconds for worker in workers])
  middle, most = np.quantile(taken, (0.5, 0.95))
  print(f'{len(taken)} answers: median {middle:.0f} ms, 95 % within {most:.0f} ms')
  # Other tests run at the same time, unless this is the long form.
  assert most < (100 if long else 1000)


def test_two_servers_on_one_postgresql(tmp_path, postgres_url, long):
  people, images = (50, 500) if long else (8, 40)
  flags = [*prepare(tmp_path, images), f'--store={postgres_url}']
  folder = tmp_path / 'project'
  with (
    serving_process.started(folder, *flags) as one,
    serving_process.started(tmp_path / 'again', f'--store={postgres_url}') as two,
  ):
    workers = [Worker([one.port, two.port], f'p{n}', 0.2) for n in range(people)]
    for worker in workers:
      worker.start()
    time.sleep(1)
    two.kill()
    two.start()
    for worker in workers:
      worker.join(300)
  check(folder, postgres_url, workers)


def test_a_second_server_on_one_file_is_refused(tmp_path, capsys):
  folder = tmp_path / 'project'
  with serving_process.started(folder, *prepare(tmp_path, 2)):
    assert annotate.main(['serve', str(folder), '--port=0']) == 2
    assert 'another process is writing to' in capsys.readouterr().err
    # By another name, too.
    store = f'--store=sqlite:///{folder}/answers.sqlite'
    assert annotate.main(['serve', str(tmp_path / 'b'), store, '--port=0']) == 2
    assert 'another process is writing to' in capsys.readouterr().err
    # Other commands may read and write meanwhile.
    assert annotate.main(['invite', str(folder), 'Ann']) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith('http://127.0.0.1:8001/join#')
    assert 'give --public' in printed.err
    out = tmp_path / 'annotations.jsonl'
    assert annotate.main(['export', str(folder), f'--out={out}']) == 0
    assert out.read_text() == ''


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it(tmp_path, number):
  with serving_process.started(tmp_path / 'project', *prepare(tmp_path, 2)) as server:
    page = browsing.Page(server.port, name='Ann')
    assert page.json('/api/task')['task']
    server.process.send_signal(number)
    printed, errors = server.process.communicate(timeout=30)
    assert (server.process.returncode, errors) == (0, '')
    assert printed.endswith('Stopped\n')


def test_mistakes_are_explained(tmp_path, capsys):
  folder, flags = tmp_path / 'project', prepare(tmp_path, 2)

  def run(*arguments: object) -> str:
    assert annotate.main([*map(str, arguments)]) == 2
    return capsys.readouterr().err

  serve = ('serve', folder, '--port=0')
  assert 'a new one needs --task, --images' in run(*serve)
  assert 'no such folder' in run(*serve, *flags, '--images=/nowhere')
  assert '--answers=0 must be at least 1' in run(*serve, *flags, '--answers=0')
  assert 'needs --prompts' in run(*serve, '--task=rich', f'--images={tmp_path}')
  assert '--public=x is not an address' in run(*serve, *flags, '--public=x')
  assert 'give --public' in run(*serve, *flags, '--host=0.0.0.0')
  # Until now, nothing was written.
  assert not folder.exists()
  projects.make(tmp_path, 2).store.close()
  assert '--task=prefer, but the project was made with rich' in run(
    *serve, '--task=prefer'
  )
  # Another project does not get into the same store.
  other = prepare(tmp_path / 'other', 3)
  assert 'images, but the project was made with' in run(*serve, *other)
  assert '--store: mysql is not supported' in run(*serve, '--store=mysql://a/b')
  assert 'is not a URL' in run(*serve, '--store=nonsense')
  assert 'is not a URL' in run(*serve, '--store=postgresql://a:port/b')
  assert 'sqlite+aiosqlite is not supported' in run(
    *serve, '--store=sqlite+aiosqlite:///a'
  )
  assert 'gone: no such file' in run(*serve, '--gold_file=gone')
  gold = tmp_path / 'gold.jsonl'
  gold.write_text('{"uid": "99"}\n')
  assert '99 is not an image' in run(*serve, f'--gold_file={gold}')
  assert 'exists; delete it, or choose' in run('export', folder, f'--out={gold}')
  assert 'cannot be loaded' in run('import', folder, gold)


def test_what_is_not_installed_is_named(tmp_path):
  code = (
    "import sys; sys.modules['sqlalchemy'] = None; from rahf import annotate; "
    f"sys.exit(annotate.main(['export', {str(tmp_path)!r}, '--out=x']))"
  )
  done = subprocess.run(
    [sys.executable, '-c', code], cwd=runs.ROOT, capture_output=True, text=True
  )
  assert done.returncode == 2
  assert "sqlalchemy, which is not installed: pip install 'rahf[serve]'" in done.stderr


def test_postgresql_is_not_reached(tmp_path, postgres_urls, capsys):
  url = postgres_urls.format(name='nothing')
  command = ['export', str(tmp_path), f'--out={tmp_path / "x"}', f'--store={url}']
  assert annotate.main(command) == 2
  assert 'database "nothing" does not exist' in capsys.readouterr().err
  assert postgres.binaries()
