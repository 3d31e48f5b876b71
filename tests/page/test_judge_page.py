"""The page about image generators: hostile text, narrow screens, nothing loaded."""

import pytest
from etils import epath
from hostile import HTML
from selenium.webdriver import Chrome

from rahf.metrics.bootstrap import Interval
from rahf.reports import judge_page
from rahf.reports.judge_tables import Report, Table

NAN = float('nan')


def report(text: str) -> Report:
  measured = Table(
    text,
    text,
    ['', 'rank', 'mean', text],
    [[text, '1', '0.5', '[0.25, 0.75]'], ['b', '2', '0.0', '–']],
    [Interval(0.5, 0.25, 0.75), Interval(0.0, NAN, NAN)],
  )
  plain = Table('Images', 'counts', ['', *'abcdefghijkl'], [['x', *['1,000'] * 12]])
  return Report(text, text, [measured, plain], [text])


def test_text_is_escaped_and_intervals_share_an_axis():
  page = judge_page.render(report('<b>&"'))
  assert '<b>' not in page
  assert page.count('&lt;b&gt;&amp;&#34;') == 9
  assert page.count('<svg') == 2
  # From 0 to 0.75, with a margin of 6 on a width of 200; the second has no interval.
  assert 'd="M68.7 6H194.0"/><circle cx="131.3"' in page
  assert 'd="M6.0 6H6.0"/><circle cx="6.0"' in page


def test_equal_values_have_an_axis():
  same = Table('a', 'b', ['', 'c'], [['d', 'e']], [Interval(1.0, 1.0, 1.0)])
  assert 'cx="6.0"' in judge_page.render(Report('', '', [same], []))


@pytest.mark.parametrize('size', [(1200, 900), (500, 800)])
def test_in_a_browser(chromium: Chrome, tmp_path, size):
  path = epath.Path(tmp_path) / 'judge.html'
  path.write_text(judge_page.render(report(HTML)))
  chromium.get_log('browser')
  chromium.set_window_size(*size)
  chromium.get(f'file://{path}')
  assert chromium.execute_script('return window.hacked') is None
  assert chromium.get_log('browser') == []
  # Only tables scroll sideways, not the page.
  wide = 'return document.documentElement.scrollWidth - window.innerWidth'
  assert chromium.execute_script(wide) <= 0
  drawn = chromium.find_elements('css selector', 'svg .interval')
  assert [one.value_of_css_property('stroke-width') for one in drawn] == ['2.5px'] * 2
  chromium.set_window_size(1200, 900)
