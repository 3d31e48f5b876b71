"""Annotation in headless Chromium: by mouse, by keyboard alone, and by touch."""

import projects
import pytest
import sqlalchemy as sa
from annotating import (
  answers,
  back,
  loaded,
  opened,
  touch,
  touch_element,
  wait,
  wait_for_answers,
)
from pages import find, press, texts
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from rahf.annotation import items, project
from rahf.annotation.settings import Settings
from rahf.annotation.tables import ITEMS, LEASES
from rahf.data.labels.consolidate import DISC_RADIUS


@pytest.fixture
def rich(tmp_path):
  made = projects.make(tmp_path, 3)
  yield made
  made.store.close()


def place(browser, x: float, y: float) -> tuple[float, float]:
  """Returns where a point of the image is in the window."""
  box = browser.execute_script(
    'const b = byId("picture").getBoundingClientRect();'
    'return [b.left, b.top, b.width, b.height]'
  )
  return box[0] + x * box[2], box[1] + y * box[3]


def click(browser, x: float, y: float) -> None:
  left, top = map(round, place(browser, x, y))
  # Selenium moves in whole pixels from the corner of the window.
  chain = ActionChains(browser)
  chain.w3c_actions.pointer_action.move_to_location(left, top)
  chain.click().perform()


def near(x: float, y: float):
  """A pixel is 1/600 or less of the image."""
  return [pytest.approx(x, abs=0.003), pytest.approx(y, abs=0.003)]


def test_rich_by_mouse(chromium, rich):
  with opened(chromium, rich):
    click(chromium, 0.25, 0.5)
    click(chromium, 0.8, 0.2)
    click(chromium, 0.8, 0.2)  # Removes it again.
    find(chromium, '[value=misalignment_points][type=radio]').click()
    find(chromium, '#larger').click()
    click(chromium, 0.5, 0.5)
    find(chromium, '#smaller').click()
    radius, height = chromium.execute_script(
      'return [document.querySelector(".disc").getBoundingClientRect().height / 2,'
      'byId("picture").getBoundingClientRect().height]'
    )
    # The box has a part of the stroke.
    assert radius == pytest.approx(height * DISC_RADIUS, abs=2)
    find(chromium, '#submit').click()
    message = find(chromium, '#message').text
    assert message.startswith(
      'Still missing: words (or “All words are shown”); Plausibility; '
    )
    assert not answers(rich)
    chromium.find_elements('css selector', '.word')[1].click()
    for name, level in projects.rich_value()['scores'].items():
      find(chromium, f'[name={name}][value="{level}"]').click()
    find(chromium, '#submit').click()
    value = wait_for_answers(chromium, rich, 1)
    assert value['implausibility_points'] == [near(0.25, 0.5)]
    assert value['misalignment_points'] == [near(0.5, 0.5)]
    assert value['misaligned_words'] == [1]
    assert value['scores'] == projects.rich_value()['scores']
    assert value['nothing'] == []
    assert not chromium.find_elements('css selector', '.disc')
    assert chromium.get_log('browser') == []


def save(browser) -> None:
  chain = ActionChains(browser).key_down(Keys.CONTROL).send_keys(Keys.ENTER)
  chain.key_up(Keys.CONTROL).perform()


def test_rich_by_keyboard_alone(chromium, rich):
  with opened(chromium, rich):
    body = ActionChains(chromium)
    # To the image: 15 steps left of the middle and 5 down; marked, and another moved.
    body.send_keys('i', *[Keys.ARROW_LEFT] * 15, *[Keys.ARROW_DOWN] * 5, Keys.ENTER)
    body.send_keys('m', Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ENTER, 'z')
    body.send_keys('w', 'w', Keys.ENTER, '1', '2', '3', '4', 'n')
    body.perform()
    wait(chromium, lambda b: find(b, '#saved').text == 'Draft saved')
    assert (
      find(chromium, '#spoken').get_attribute('textContent') == 'Overall quality: 4'
    )
    save(chromium)
    value = wait_for_answers(chromium, rich, 1)
    assert value == {
      'implausibility_points': [near(0.2, 0.6)],
      'misalignment_points': [],
      'misaligned_words': [1],
      'scores': dict(zip(value['scores'], (1, 2, 3, 4), strict=True)),
      'nothing': ['misalignment_points'],
    }
    # Back, another score, and forwards again.
    ActionChains(chromium).send_keys('b').perform()
    wait(chromium, lambda b: 'changing your latest' in find(b, '#message').text)
    assert texts(chromium, '[aria-pressed=true]') == ['red']
    ActionChains(chromium).send_keys('5').perform()
    save(chromium)
    wait(chromium, lambda _: answers(rich)[0].value['scores']['overall'] == 5)
    wait(chromium, lambda b: find(b, '#message').text == '')
    ActionChains(chromium).send_keys('s').perform()
    wait_for_answers(chromium, rich, 2)
    ActionChains(chromium).send_keys('f', 'too dark', Keys.ESCAPE, 's').perform()
    wait(chromium, lambda b: find(b, '#done').is_displayed())
    assert [(one.status, one.flag) for one in answers(rich)] == [
      *(('done', ''), ('skipped', ''), ('skipped', 'too dark'))
    ]


def test_a_skipped_image_can_be_answered(chromium, rich):
  with opened(chromium, rich):
    ActionChains(chromium).send_keys('s').perform()
    wait_for_answers(chromium, rich, 1)
    back(chromium, 'You skipped this image; answer it now, or press Back to return.')
    ActionChains(chromium).send_keys('1', '2', '3', '4', 'n').perform()
    save(chromium)
    wait(chromium, lambda _: answers(rich)[0].status == 'done')
    assert answers(rich)[0].value['scores']['overall'] == 4
    wait(chromium, lambda b: '1 of 6' in find(b, '#count').text)
    assert chromium.get_log('browser') == []


def test_lines_keep_words_and_their_punctuation_together(chromium, tmp_path):
  prompt = 'a grey background, "studio" lighting, 35mm'
  projects.write_images(tmp_path, 1)
  projects.write_table(tmp_path, [{'uid': '00', 'prompt': prompt}])
  found = items.read('rich', tmp_path / 'images', tmp_path / 'prompts.csv')
  store = project.open_store(tmp_path / 'project', new=True)
  made = project.create(store, Settings('rich', str(tmp_path / 'images')), found.items)
  with opened(chromium, made):
    assert find(chromium, '#prompt').get_attribute('textContent') == prompt
    assert texts(chromium, '#prompt .whole') == prompt.split()


def test_rich_by_touch_on_a_small_screen(chromium, rich):
  with opened(chromium, rich, width=320):
    assert chromium.execute_script('return document.documentElement.scrollWidth') == 320
    touch(chromium, *place(chromium, 0.75, 0.25))
    wait(chromium, lambda b: b.find_elements('css selector', '.disc'))
    for selector in (
      '.word[data-word="2"]',
      '#nothing [value=misalignment_points]',
      *(
        f'[name={n}][value="3"]'
        for n in ('plausibility', 'alignment', 'aesthetics', 'overall')
      ),
      '#submit',
    ):
      touch_element(chromium, selector)
    value = wait_for_answers(chromium, rich, 1)
    (point,) = value['implausibility_points']
    assert point == [pytest.approx(0.75, abs=0.01), pytest.approx(0.25, abs=0.01)]
    assert value['misaligned_words'] == [2]
    assert set(value['scores'].values()) == {3}


def test_a_draft_survives_and_marks_can_be_dragged(chromium, rich):
  with opened(chromium, rich) as port:
    click(chromium, 0.5, 0.5)
    start, end = place(chromium, 0.5, 0.5), place(chromium, 0.7, 0.3)
    chain = ActionChains(chromium)
    pointer = chain.w3c_actions.pointer_action
    pointer.move_to_location(*map(round, start)).pointer_down()
    pointer.move_to_location(*map(round, end)).pointer_up()
    chain.perform()
    wait(chromium, lambda b: find(b, '#saved').text == 'Draft saved')
    chromium.get(f'http://127.0.0.1:{port}/')
    wait(chromium, loaded)
    draft = chromium.execute_script('return answer.implausibility_points')
    assert draft == [near(0.7, 0.3)]
    with rich.store.read() as connection:
      (stored,) = connection.scalars(sa.select(LEASES.c.draft))
    assert stored['implausibility_points'] == draft


def test_an_answer_waits_for_a_server_that_is_away(chromium, tmp_path):
  made = projects.make(tmp_path, 6, 'prefer', prompts=2)
  with opened(chromium, made):
    chromium.execute_script(
      'window.fetched = fetch; window.fetch = () => Promise.reject(new TypeError())'
    )
    ActionChains(chromium).send_keys('1').perform()
    wait(chromium, lambda b: 'Not stored yet' in find(b, '#message').text)
    assert not answers(made)
    chromium.execute_script('window.fetch = window.fetched')
    assert wait_for_answers(chromium, made, 1)['choice'] == 'left'


def test_other_languages_and_labels(chromium, rich):
  with opened(chromium, rich, lang='de'):
    assert 'Welche Wörter' in find(chromium, 'h2').text
    assert find(chromium, 'html').get_attribute('lang') == 'de'
    for element in chromium.find_elements('css selector', '#task button, #task input'):
      assert element.accessible_name or not element.is_displayed()
    assert find(chromium, '#picture').get_attribute('alt')
    group = find(chromium, '[data-score=overall]')
    assert group.accessible_name == 'Gesamteindruck'


def test_a_prediction_is_shown_after_the_answer(chromium, rich):
  prediction = {
    'implausibility_points': [[0.5, 0.5], [0.2, 0.2]],
    'misalignment_points': [],
    'misaligned_words': [1],
    'scores': dict.fromkeys(projects.rich_value()['scores'], 4.2),
    'uncertainty': 0.5,
  }
  rich, _ = project.update(rich, {'assist': 'after'}, None)
  with rich.store.write() as connection:
    connection.execute(sa.update(ITEMS).values(prediction=prediction))
  with opened(chromium, rich):
    assert not chromium.find_elements('css selector', '.disc')
    ActionChains(chromium).send_keys('1', '2', '3', '4', 'n').perform()
    save(chromium)
    wait_for_answers(chromium, rich, 1)
    dialog = find(chromium, '#model')
    wait(chromium, lambda b: len(b.find_elements('css selector', '#model .disc')) == 2)
    assert dialog.is_displayed()
    assert texts(chromium, '#model mark') == ['red']
    assert texts(chromium, '#model td') == [
      '1',
      '4.2',
      '2',
      '4.2',
      '3',
      '4.2',
      '4',
      '4.2',
    ]
    press(chromium, Keys.ENTER)
    assert not dialog.is_displayed()
    assert chromium.get_log('browser') == []
