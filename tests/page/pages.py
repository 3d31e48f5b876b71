"""Examples for a report page, and helpers to navigate it."""

import math

import numpy as np
from selenium.webdriver.support.ui import WebDriverWait

from rahf.data import label_words, schema
from rahf.data.images import codec
from rahf.evaluation.score_example import ExampleLabels

HOSTILE = (
  '</script><script>document.title = "run"</script>'
  '<img src=x onerror="document.title = 1"> {{data}} & "quotes" \u2028 \U0001f600 cats'
)
PROMPTS = ('a red cat', HOSTILE, 'two blue dogs')
HEAT = np.zeros((8, 8), np.float32)
HEAT[:4, 4:] = 1


def make_record(number: int) -> schema.Record:
  """Record 2 has no maps; the first `number` words are misaligned."""
  prompt = PROMPTS[number]
  tokens = tuple(label_words.label_tokens(prompt))
  data = b'' if number == 2 else codec.encode_map(HEAT)
  return schema.Record(
    uid=f'uid-{number}',
    image=codec.encode_png(np.full((40, 60, 3), 128, np.uint8)),
    prompt=prompt,
    tokens=tokens,
    keyword_labels=tuple(int(i >= number) for i in range(len(tokens))),
    scores=(0.25, 0.5, 0.5, math.nan),
    implausibility_map=data,
    misalignment_map=data,
  )


def make_prediction(number: int, count: int) -> ExampleLabels:
  return ExampleLabels(
    np.stack([HEAT[::-1] / (number + 1), HEAT]),
    np.array([0.25, 0.5, 0.5, 0.5]) + 0.1 * number,
    (1,) * count,
    0,
    np.linspace(0, 1, count),
  )


def find(browser, selector: str):
  return browser.find_element('css selector', selector)


def texts(browser, selector: str) -> list[str]:
  return [e.text for e in browser.find_elements('css selector', selector)]


def uids(browser) -> list[str]:
  return [text[4:] for text in texts(browser, '#samples tbody .uid')]


def press(browser, *keys: str) -> None:
  for key in keys:
    browser.switch_to.active_element.send_keys(key)


def wait_for_heat(browser, drawn: str) -> None:
  WebDriverWait(browser, 10).until(
    lambda b: find(b, '#heat').get_attribute('data-drawn') == drawn
  )


def pixel(browser, right: float, down: float) -> list[int]:
  """Returns the RGBA value of the heat at fractions of its width and height."""
  return browser.execute_script(
    'const c = document.getElementById("heat");'
    'return [...c.getContext("2d").getImageData('
    'arguments[0] * c.width, arguments[1] * c.height, 1, 1).data]',
    right,
    down,
  )
