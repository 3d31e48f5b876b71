"""The viewer of the report page: maps, words and scores, by mouse and keyboard."""

import itertools

import numpy as np
from pages import find, pixel, press, texts, wait_for_heat
from selenium.webdriver.common.keys import Keys

from rahf.drawing import heatmap


def test_the_heat_has_the_colours_of_the_panels(opened):
  find(opened, '#samples tbody tr:nth-child(1)').click()
  wait_for_heat(opened, 'uid-0 implausibility annotated')
  colours, alpha = heatmap.heat(np.array([1.0, 0.0]))
  np.testing.assert_allclose(
    pixel(opened, 0.9, 0.1), [*colours[0], 255 * alpha[0]], atol=4
  )
  assert pixel(opened, 0.1, 0.9)[3] == 0
  assert find(opened, '#peak').text == 'max 1.00'
  find(opened, '#controls [value=predicted]').click()
  wait_for_heat(opened, 'uid-0 implausibility predicted')
  np.testing.assert_allclose(
    pixel(opened, 0.9, 0.9), [*colours[0], 255 * alpha[0]], atol=4
  )
  assert pixel(opened, 0.9, 0.1)[3] == 0


def test_the_slider_fades_the_heat(opened):
  find(opened, '#samples tbody tr:nth-child(1)').click()
  slider, heat = find(opened, '[name=opacity]'), find(opened, '#heat')
  assert float(heat.value_of_css_property('opacity')) == 0.8
  slider.send_keys(Keys.HOME)
  assert float(heat.value_of_css_property('opacity')) == 0
  assert (
    find(opened, '#picture').value_of_css_property('filter')
    == 'grayscale(0) contrast(1)'
  )
  slider.send_keys(Keys.END)
  assert float(heat.value_of_css_property('opacity')) == 1


def test_keyboard_only(opened):
  tab = Keys.TAB
  press(opened, *itertools.repeat(tab, 6))
  assert opened.switch_to.active_element.get_attribute('id') == 'all'
  press(opened, *itertools.repeat(tab, 6), tab, Keys.ENTER)
  wait_for_heat(opened, 'uid-0 implausibility annotated')
  press(opened, Keys.ARROW_RIGHT)
  assert find(opened, '#name').text == 'uid-1, 2 of 3'
  press(opened, 't', 'm')
  wait_for_heat(opened, 'uid-1 misalignment predicted')
  press(opened, '0')
  assert float(find(opened, '#heat').value_of_css_property('opacity')) == 0
  press(opened, Keys.ARROW_RIGHT, 't')
  assert find(opened, '#missing').is_displayed()
  assert not find(opened, '#heat').is_displayed()
  press(opened, Keys.ARROW_RIGHT)
  assert find(opened, '#name').text == 'uid-2, 3 of 3'
  press(opened, Keys.ESCAPE)
  assert not find(opened, '#viewer').is_displayed()
  assert 'uid-2' in opened.switch_to.active_element.text


def test_arrow_keys_after_a_click(opened):
  """After a click on the slider, an arrow key opens the next sample."""
  find(opened, '#samples tbody tr:nth-child(1)').click()
  slider = find(opened, '[name=opacity]')
  slider.click()
  value = slider.get_property('value')
  press(opened, Keys.ARROW_RIGHT)
  assert find(opened, '#name').text == 'uid-1, 2 of 3'
  assert slider.get_property('value') == value


def test_words_and_scores(opened):
  find(opened, '#samples tbody tr:nth-child(3)').click()
  words = opened.find_elements('css selector', '#prompt .word')
  assert [word.text for word in words] == ['two', 'blue', 'dogs']
  true = ['true' in word.get_attribute('class') for word in words]
  assert true == [True, True, False]
  shades = [word.value_of_css_property('background-color') for word in words]
  assert shades == [
    f'rgba(255, 140, 40, {p})'.replace('0.0)', '0)') for p in (0.0, 0.3, 0.6)
  ]
  bars = texts(opened, '.score')
  assert bars[0].split() == [
    *('plausibility', 'annotated', '0.25', 'predicted', '0.45')
  ]
  assert bars[3].split() == ['overall', 'annotated', '–', 'predicted', '0.70']


def test_the_peak_is_that_of_the_full_map(opened):
  """The peak of the thumbnail would be lower."""
  opened.execute_script('samples[0].heat.implausibility[0].peak = 0.123')
  find(opened, '#samples tbody tr:nth-child(1)').click()
  wait_for_heat(opened, 'uid-0 implausibility annotated')
  assert find(opened, '#peak').text == 'max 0.12'


def test_buttons_and_bars_have_names(opened):
  find(opened, '#samples tbody tr:nth-child(1)').click()
  names = ('previous sample', 'next sample', 'close')
  for name, button in zip(names, ('previous', 'next', 'close'), strict=True):
    assert find(opened, f'#{button}').accessible_name == name
  bars = find(opened, '.score').get_attribute('textContent')
  assert bars == 'plausibilityannotated 0.25predicted 0.25'
