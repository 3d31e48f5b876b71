"""Enters a project in headless Chromium, and waits for what it stores."""

import contextlib

import browsing
import sqlalchemy as sa
from pages import find, press
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from rahf.annotation.tables import ANSWERS


def wait(browser, condition):
  return WebDriverWait(browser, 10, 0.05).until(condition)


def answers(made) -> list:
  with made.store.read() as connection:
    return connection.execute(sa.select(ANSWERS).order_by(ANSWERS.c.id)).all()


def wait_for_answers(browser, made, count: int):
  wait(browser, lambda _: len(answers(made)) == count)
  # The page shows the next task once it knows that the answer is stored.
  wait(browser, lambda b: f'You: {count} ' in find(b, '#count').text)
  return answers(made)[-1].value


def back(browser, message: str) -> None:
  """Goes back to the latest answer, once the next task is there."""
  wait(browser, lambda b: b.execute_script('return !busy && Boolean(task)'))
  ActionChains(browser).send_keys('b').perform()
  wait(browser, lambda b: message in find(b, '#message').text)


@contextlib.contextmanager
def opened(browser, made, name: str = 'Ann', *, width: int = 1200, lang: str = 'en'):
  """Serves a project, enters, and closes the tour."""
  size = {'width': width, 'height': 850, 'deviceScaleFactor': 1, 'mobile': width < 400}
  with browsing.running(made) as port:
    browser.get_log('browser')
    browser.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', size)
    try:
      browser.get(f'http://127.0.0.1:{port}/?lang={lang}')
      press(browser, name, Keys.ENTER)
      wait(browser, lambda b: find(b, '#tour').is_displayed())
      press(browser, Keys.ENTER)
      wait(browser, loaded)
      yield port
    finally:
      browser.execute_cdp_cmd('Emulation.clearDeviceMetricsOverride', {})


def loaded(browser) -> bool:
  return browser.execute_script(
    'return Boolean(task) && [...document.querySelectorAll("#picture, .pair img")]'
    '.every((image) => image.complete && image.naturalWidth)'
  )


def touch(browser, x: float, y: float) -> None:
  point = [{'x': x, 'y': y}]
  for kind, points in (('touchStart', point), ('touchEnd', [])):
    event = {'type': kind, 'touchPoints': points}
    browser.execute_cdp_cmd('Input.dispatchTouchEvent', event)


def touch_element(browser, selector: str) -> None:
  chosen = browser.execute_script(
    'const e = document.querySelector(arguments[0]);'
    'e.scrollIntoView({block: "center"});'
    'const b = e.getBoundingClientRect();'
    'return [b.left + b.width / 2, b.top + b.height / 2]',
    selector,
  )
  touch(browser, *chosen)
