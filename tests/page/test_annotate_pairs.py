"""Choices between two images in headless Chromium: prefer, compare, own prompts."""

import json

import browsing
import projects
import sqlalchemy as sa
from annotating import (
  answers,
  back,
  opened,
  touch_element,
  wait,
  wait_for_answers,
)
from pages import HOSTILE, find, press, texts
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from rahf import improve
from rahf.annotation import exports, items, project
from rahf.annotation.settings import Settings
from rahf.annotation.tables import ITEMS


def test_preferences_by_keys_and_mouse(chromium, tmp_path):
  made = projects.make(tmp_path, 8, 'prefer', prompts=2)
  with opened(chromium, made):
    assert texts(chromium, '#round') == ['1 / 3']
    for number, act in enumerate(
      (
        lambda: ActionChains(chromium).send_keys(Keys.ARROW_LEFT).perform(),
        lambda: find(chromium, '[data-choice=tie]').click(),
        lambda: touch_element(chromium, '[data-choice=right]'),
      ),
      1,
    ):
      act()
      wait_for_answers(chromium, made, number)
    assert [one.value['choice'] for one in answers(made)] == ['left', 'tie', 'right']
    first, second, _ = (one.value for one in answers(made))
    assert first['left'] in (second['left'], second['right'])
    # The next prompt.
    assert texts(chromium, '#round') == ['1 / 3']
    ActionChains(chromium).send_keys('s').perform()
    wait(chromium, lambda b: find(b, '#done').is_displayed())
    assert exports.write_pairs(made, tmp_path / 'pairs') == 3


def test_a_choice_can_be_changed(chromium, tmp_path):
  made = projects.make(tmp_path, 6, 'prefer', prompts=2)
  with opened(chromium, made):
    assert not chromium.find_elements('css selector', '[aria-pressed]')
    ActionChains(chromium).send_keys('1').perform()
    wait_for_answers(chromium, made, 1)
    back(chromium, 'Choose again, or press Back to return.')
    pressed = find(chromium, '[aria-pressed=true]')
    assert pressed.get_attribute('data-choice') == 'left'
    ActionChains(chromium).send_keys('3').perform()
    wait(chromium, lambda _: answers(made)[0].value['choice'] == 'right')
    wait(chromium, lambda b: not b.find_elements('css selector', '[aria-pressed]'))
    # A prompt that was left does not come again.
    ActionChains(chromium).send_keys('s').perform()
    wait_for_answers(chromium, made, 2)
    back(chromium, 'You left the last prompt')
    assert not chromium.find_elements('css selector', '.revising')
    assert chromium.get_log('browser') == []


def test_an_image_is_enlarged_as_far_as_the_window_allows(chromium, tmp_path):
  made = projects.make(tmp_path, 6, 'prefer', prompts=2)
  with opened(chromium, made):
    for selector, name in (
      ('.pair img.left', 'The left image'),
      ('.pair figure:last-child button', 'The right image'),
    ):
      find(chromium, selector).click()
      # Its box; the image keeps its ratio and lies in the middle.
      left, top, right, bottom, width, height = chromium.execute_script(
        'const b = document.querySelector("#large img").getBoundingClientRect();'
        'return [b.left, b.top, b.right, b.bottom, innerWidth, innerHeight]'
      )
      assert 0 < left < 0.03 * width
      assert 0.97 * width < right < width
      assert 0 < top < 0.1 * height
      assert 0.95 * height < bottom < height
      image = find(chromium, '#large img')
      assert image.value_of_css_property('object-fit') == 'contain'
      assert image.accessible_name == name
      press(chromium, Keys.ESCAPE)
      assert not image.is_displayed()


def test_a_blind_comparison(chromium, tmp_path):
  for name in ('new', 'old'):
    projects.write_images(tmp_path / name, 2)
    for number in range(2):
      image = tmp_path / name / f'images/{number:02}.png'
      image.with_suffix('.txt').write_text(f'{HOSTILE} {number}')
  generators = [f'{name}={tmp_path / name / "images"}' for name in ('new', 'old')]
  out = tmp_path / 'study'
  assert improve.main(['study', 'make', *generators, f'--out={out}']) == 0
  store = project.open_store(tmp_path / 'project', new=True)
  rows = items.read('compare', out, None).items
  made = project.create(store, Settings('compare', str(out)), rows)
  chromium.get_log('performance')
  with opened(chromium, made) as port:
    assert find(chromium, '#prompt').text.startswith(HOSTILE[:40])
    assert not chromium.find_elements('css selector', '#prompt *')
    title = chromium.title
    ActionChains(chromium).send_keys('s').perform()
    wait(chromium, lambda _: len(answers(made)) == 1)
    back(chromium, 'You skipped this pair')
    assert not chromium.find_elements('css selector', '[aria-pressed]')
    ActionChains(chromium).send_keys('5').perform()
    wait(chromium, lambda b: find(b, '#count').text == '1 of 2 answered')
    find(chromium, '[data-choice=same]').click()
    wait(chromium, lambda b: find(b, '#done').is_displayed())
    assert title == chromium.title == 'RAHF annotation'
    assert chromium.get_log('browser') == []
  assert [one.value['choice'] for one in answers(made)] == ['much_right', 'same']
  events = [
    json.loads(e['message'])['message'] for e in chromium.get_log('performance')
  ]
  urls = {
    event['params']['request']['url']
    for event in events
    if event['method'] == 'Network.requestWillBeSent'
  }
  start = f'http://127.0.0.1:{port}/'
  assert all(url.startswith((start, 'data:')) for url in urls)
  assert not any('new' in url or 'old' in url for url in urls)


def test_people_type_prompts_that_are_drawn(chromium, tmp_path):
  (tmp_path / 'prompts.txt').write_text('a red circle\n')
  (tmp_path / 'images').mkdir()
  folder = tmp_path / 'images'
  rows = items.read('prefer', folder, tmp_path / 'prompts.txt', drawn=True).items
  store = project.open_store(tmp_path / 'project', new=True)
  wanted = Settings('prefer', str(folder), answers=1, drawn=True)
  made = project.create(store, wanted, rows)
  with browsing.running(made) as port:
    chromium.get(f'http://127.0.0.1:{port}/?lang=en')
    press(chromium, 'Ann', Keys.ENTER)
    wait(chromium, lambda b: find(b, '#tour').is_displayed())
    press(chromium, Keys.ENTER)
    wait(chromium, lambda b: find(b, '#done').is_displayed())
    find(chromium, '#own-done').click()
    press(chromium, '   ', Keys.TAB, Keys.TAB, Keys.ENTER)
    wait(chromium, lambda b: 'prompt' in find(b, '#own-message').text)
    find(chromium, '#own-text').send_keys('two dogs')
    find(chromium, '#own-send').click()
    wait(chromium, lambda b: 'waits to be drawn' in find(b, '#done-message').text)
    assert not find(chromium, '#ask').is_displayed()
  with made.store.read() as connection:
    prompts = connection.scalars(sa.select(ITEMS.c.prompt).order_by(ITEMS.c.id)).all()
  assert prompts == ['a red circle', 'two dogs']
