"""The routes: tasks and answers over HTTP, and requests that are refused."""

import contextlib
import os
import pathlib
import re

import browsing
import projects
import pytest
import sqlalchemy as sa

from rahf.annotation import guard, people
from rahf.annotation.guard import Access, Rates
from rahf.annotation.tables import ANSWERS, ITEMS
from rahf.errors import InputError


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  found = projects.make(tmp_path_factory.mktemp('app'), 6)
  yield found
  found.store.close()


@pytest.fixture(scope='module')
def port(made):
  with browsing.running(made) as port:
    yield port


def body(task, **changes) -> dict:
  answer = projects.answer()._asdict()
  return {'lease': task['lease'], **answer, **changes}


def answers(made) -> list:
  with made.store.read() as connection:
    return connection.execute(sa.select(ANSWERS)).all()


def test_from_a_name_to_an_answer(made, port):
  page = browsing.Page(port, name='Ann')
  found = page.json('/api/task')
  assert found['progress'] == {'own': 0, 'completed': 0, 'wanted': 12}
  task = found['task']
  assert ''.join(text for text, _ in task['pieces']) == task['prompt']
  assert [n for _, n in task['pieces'] if n is not None] == [0, 1, 2, 3]
  # Nothing says what kind of task it is, or which model made the image.
  assert task.keys() == {
    *('lease', 'item', 'turn', 'prompt', 'images', 'draft', 'pieces', 'radius')
  }
  status, image = page.get(f'/image/{task["item"]}/0')
  assert (status, page.headers['content-type']) == (200, 'image/png')
  assert image == (made.images / '00.png').read_bytes()
  draft = {'lease': task['lease'], 'value': {'misaligned_words': [1]}}
  assert page.send('/api/draft', draft) == (200, {'kept': True})
  status, following = page.send('/api/answer', body(task))
  assert status == 200
  assert following['progress']['own'] == 1
  assert following['task']['item'] != task['item']
  last = page.json('/api/last')['task']
  changed = body(task, lease=last['answer'], value=projects.rich_value(2))
  assert page.send('/api/revise', changed)[0] == 200
  assert [row.value for row in answers(made)] == [projects.rich_value(2)]
  status, problem = page.send('/api/answer', body(task))
  assert (status, 'another tab' in problem['detail']) == (409, True)
  bad = body(following['task'], value={})
  status, problem = page.send('/api/answer', bad)
  assert (status, problem['detail']) == (422, 'the score plausibility is missing')
  assert page.send('/api/leave', {})[0] == 200
  page.cookie = page.cookie or 'none'
  assert page.get('/api/task')[0] == 401


@pytest.mark.parametrize(
  ('headers', 'status'),
  [
    ({'Host': 'evil.example'}, 421),
    ({'Sec_Fetch_Site': 'cross-site'}, 403),
    ({'Origin': 'http://evil.example'}, 403),
    ({'Content_Type': 'text/plain'}, 415),
    ({'X_CSRF_Token': 'wrong'}, 403),
    ({'Cookie': 'other=1'}, 401),
    ({'Content_Length': '1000000'}, 413),
  ],
)
def test_requests_that_are_refused(made, port, headers, status):
  page = browsing.Page(port, name='Ben')
  task = page.json('/api/task')['task']
  before = len(answers(made))
  assert page.send('/api/answer', body(task), **headers)[0] == status
  assert len(answers(made)) == before


def test_impossible_bodies_are_refused(port):
  page = browsing.Page(port, name='Ben')
  good = body({'lease': 1})
  for change in (
    {'lease': 10**30},
    {'turn': -1},
    {'seconds': -1},
    {'key': 'short'},
    {'flag': 'x' * 501},
    {'status': 'other'},
    {'more': 1},
    {'value': '[' * 100},
    {'lease': float('nan')},
    {'seconds': float('nan')},
    {'value': {'\ud800': 1}},
    {'\ud800': 1},
  ):
    status, problem = page.send('/api/answer', good | change)
    assert (status, bool(problem['detail'])) in ((422, True), (409, True)), change
  assert page.get(f'/image/{10**30}/0')[0] == 422
  for entered in ({'name': float('nan')}, {'name': '\ud800'}, {'token': '\ud800'}):
    assert page.send('/api/enter', entered)[0] == 422


def test_a_body_without_a_length_is_refused(port):
  page = browsing.Page(port)
  chunked = page.send('/api/enter', {'name': 'x'}, Transfer_Encoding='chunked')
  assert chunked[0] in (400, 411)
  both = {'Transfer_Encoding': 'chunked', 'Content_Length': '10'}
  assert page.send('/api/enter', {'name': 'x'}, **both)[0] in (400, 411)


def test_who_may_see_the_dashboard(made, port):
  nobody, annotator = browsing.Page(port), browsing.Page(port, name='Ann')
  for page in (nobody, annotator):
    assert page.get('/dashboard')[0] == 307
    assert page.headers['location'] == '/'
  admin = browsing.Page(port, token=people.invite(made.store, 'Ada', people.ADMIN))
  assert admin.get('/dashboard')[0] == 200
  assert admin.get('/')[0] == 307
  assert admin.headers['location'] == '/dashboard'


def test_whoever_is_stopped_cannot_answer(made, port):
  page = browsing.Page(port, name='Sam')
  task = page.json('/api/task')['task']
  person = projects.enter(made, 'Sam')
  people.set_active(made.store, person.id, False)
  status, problem = page.send('/api/answer', body(task))
  assert (status, 'stopped by an admin' in problem['detail']) == (403, True)
  assert page.json('/api/task')['task'] is None


def test_all_answers_have_security_headers(port):
  page = browsing.Page(port, name='Ben')
  for path in ('/', '/join', '/api/task', '/image/1/0', '/nothing'):
    page.get(path)
    for name, value in guard.HEADERS.items():
      assert page.headers[name.lower()] == value, path
    policy = page.headers['content-security-policy']
    assert policy.startswith("default-src 'none'")
    assert 'unsafe' not in policy
  page.get('/')
  assert "frame-ancestors 'none'" in page.headers['content-security-policy']
  page = browsing.Page(port)
  page.send('/api/enter', {'name': 'Ben'})
  assert re.search(r'HttpOnly; .*SameSite=lax', page.headers['set-cookie'])


def test_no_image_without_a_session_or_outside_the_folder(made, port, tmp_path, capsys):
  page = browsing.Page(port, name='Ben')
  for path in ('/image/1/1', '/image/99/0'):
    assert page.get(path)[0] == 404
  for path in ('/image/../../etc/passwd', '/image/1/..%2f..%2fetc%2fpasswd'):
    assert page.get(path)[0] in (404, 422)
  (tmp_path / 'secret.png').write_bytes((made.images / '00.png').read_bytes())
  last = made.images / '05.png'
  kept = last.read_bytes()
  try:
    last.unlink()
    assert page.get('/image/6/0')[0] == 422
    os.symlink(tmp_path / 'secret.png', last)
    status, found = page.get('/image/6/0')
    assert (status, b'05' in found) == (422, False)
    assert 'item 6: 05.png lies outside the folder' in capsys.readouterr().out
    last.unlink()
    last.write_text('<script>alert(1)</script>')
    assert page.get('/image/6/0')[0] == 422
    assert 'item 6: 05.png has changed since' in capsys.readouterr().out
  finally:
    with contextlib.suppress(FileNotFoundError):
      last.unlink()
    last.write_bytes(kept)
  assert browsing.Page(port).get('/image/1/0')[0] == 401


def test_other_hosts_take_invitations(made):
  token = people.invite(made.store, 'Guest')
  public = Access('https://annotate.example.org')
  with browsing.running(made, public) as port:
    page = browsing.Page(port)
    host = {'Host': 'annotate.example.org'}
    assert page.send('/api/enter', {'token': token})[0] == 421
    status, problem = page.send('/api/enter', {'name': 'Eve'}, **host)
    assert (status, problem['detail']) == (403, 'open the link of your invitation')
    assert page.send('/api/enter', {'token': token}, **host)[0] == 200
    assert 'Secure' in page.headers['set-cookie']
    for _ in range(10):
      wrong = page.send('/api/enter', {'token': 'guess'}, **host)
      assert wrong[0] == 403
    assert page.send('/api/enter', {'token': token}, **host)[0] == 429


def test_too_many_requests_are_refused(made, port):
  page = browsing.Page(port, name='Fast')
  found = [page.get('/api/last')[0] for _ in range(120)]
  assert found[0] == 200
  assert 429 in found


def test_buckets_refill(monkeypatch):
  now = [0.0]
  monkeypatch.setattr(guard.time, 'monotonic', lambda: now[0])
  rates = Rates(burst=2, per_second=0.5)
  assert [rates.take('a') for _ in range(3)] == [True, True, False]
  assert rates.take('b')
  now[0] = 2.0
  assert [rates.take('a') for _ in range(2)] == [True, False]
  assert rates.is_empty('a')


@pytest.mark.parametrize(
  'url',
  [
    *('annotate.example.org', 'ftp://a', 'https://a/b', '//'),
    *('https://a:99999999', 'https://me@a'),
  ],
)
def test_a_public_address_is_checked(url):
  with pytest.raises(InputError, match=re.escape(f'--public={url} is not an address')):
    guard.check_public(url)
  assert guard.check_public('https://a.example:8443/') == 'https://a.example:8443'
  # As browsers name them.
  assert guard.check_public('https://A.example:443') == 'https://a.example'
  assert guard.check_public('http://bücher.example') == 'http://xn--bcher-kva.example'
  assert guard.check_public('http://[::1]:8001') == 'http://[::1]:8001'


def test_a_full_disk_stores_nothing_and_says_so(tmp_path):
  """SQLite gets no further page, as on a full disk."""
  made = projects.make(tmp_path, 40)
  full = []

  def limit(connection, record, proxy=None):
    pages = connection.execute('PRAGMA page_count').fetchone()[0] if full else 2**30
    connection.execute(f'PRAGMA max_page_count = {pages}')

  sa.event.listen(made.store.engine, 'checkout', limit)
  with browsing.running(made) as port:
    page = browsing.Page(port, name='Ann')
    task = page.json('/api/task')['task']
    many = [[0.5, 0.123456789] for _ in range(200)]
    value = projects.rich_value(implausibility_points=many)
    stored = 0
    full.append(True)
    for _ in range(20):
      sent = body(task, value=value)
      status, found = page.send('/api/answer', sent)
      if status != 200:
        break
      stored, task = stored + 1, found['task']
    assert status == 507
    assert found['detail'].startswith('nothing was stored: database or disk is full')
    assert len(answers(made)) == stored
    full.clear()
    # Sent again, the same answer is stored, once.
    assert page.send('/api/answer', sent)[0] == 200
    assert page.send('/api/answer', sent)[0] == 200
    assert len(answers(made)) == stored + 1
    with made.store.read() as connection:
      assert connection.exec_driver_sql('PRAGMA integrity_check').scalar() == 'ok'
      completed = connection.scalar(sa.select(sa.func.sum(ITEMS.c.completed)))
    assert completed == stored + 1


def test_prompts_are_never_html(tmp_path):
  source = '\n'.join(
    path.read_text() for path in pathlib.Path('rahf/annotation').glob('*.js')
  )
  for danger in ('innerHTML', 'outerHTML', 'insertAdjacentHTML', 'document.write'):
    assert danger not in source
