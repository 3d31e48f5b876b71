"""Prompts are read as they were written."""

import pytest

from rahf.data.datasets.shapes.prompt_reader import AskedGroup, read_prompt
from rahf.data.datasets.shapes.record import make_sample
from rahf.data.datasets.shapes.world import WORLDS
from rahf.errors import InputError


@pytest.mark.parametrize('world', WORLDS)
def test_reads_what_generated_prompts_ask_for(world):
  for index in range(300):
    sample = make_sample(0, 'train', index, world)
    expected = tuple(
      AskedGroup(
        g.asked.colour,
        g.asked.kind,
        g.asked.count if 'count' in g.stated else None,
        (g.asked.row, g.asked.column) if 'place' in g.stated else None,
      )
      for g in sample.scene.groups
    )
    assert read_prompt(sample.prompt.text) == expected, sample.prompt.text


def test_reads_each_pattern():
  assert read_prompt('at the top left: two small red crosses; a cyan ring!') == (
    AskedGroup('red', 'cross', 2, (0, 0)),
    AskedGroup('cyan', 'ring', None, None),
  )
  assert read_prompt('an image with one blue square in the middle') == (
    AskedGroup('blue', 'square', 1, (1, 1)),
  )


@pytest.mark.parametrize('text', ['', 'a cat', 'a red circle and a cat'])
def test_refuses_other_prompts(text):
  with pytest.raises(InputError, match='does not ask for shapes'):
    read_prompt(text)
