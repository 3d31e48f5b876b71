"""TensorBoard files, read back with TensorBoard's own reader."""

import io
import sys

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util

from rahf.reports.tensorboard import TensorBoardWriter


@pytest.fixture(scope='module')
def directory(tmp_path_factory):
  directory = tmp_path_factory.mktemp('tensorboard')
  wide = np.zeros((20, 40, 3), np.uint8)
  tall = np.full((50, 10, 3), (10, 200, 30), np.uint8)
  with TensorBoardWriter(directory) as writer:
    writer.scalars(1, 'train', {'loss/total': 2.0})
    writer.scalars(2, 'train', {'loss/total': 1.5})
    writer.scalars(2, 'dev', {'loss/total': 1.75, 'overall/srcc': 0.25})
    writer.pictures(2, 'dev', [wide, tall])
    writer.text(2, 'tables/dev', '| a |\n| - |')
  return directory


def read(run):
  return EventAccumulator(str(run)).Reload()


def values(events, tag):
  return [
    (event.step, tensor_util.make_ndarray(event.tensor_proto))
    for event in events.Tensors(tag)
  ]


def test_each_split_is_a_run_with_the_same_tags(directory):
  assert {path.name for path in directory.iterdir()} == {'train', 'dev', 'review'}
  assert values(read(directory / 'train'), 'loss/total') == [(1, 2.0), (2, 1.5)]
  dev = read(directory / 'dev')
  assert values(dev, 'loss/total') == [(2, 1.75)]
  assert values(dev, 'overall/srcc') == [(2, 0.25)]


def test_pictures_keep_their_sizes_and_pixels(directory):
  events = read(directory / 'review')
  sizes = []
  for i in range(2):
    ((step, (width, height, png)),) = values(events, f'dev/{i}')
    image = Image.open(io.BytesIO(png))
    assert step == 2
    assert image.size == (int(width), int(height))
    sizes.append(image.size)
  assert sizes == [(40, 20), (10, 50)]
  assert (np.asarray(image) == (10, 200, 30)).all()


def test_text_is_written(directory):
  ((step, text),) = values(read(directory / 'review'), 'tables/dev')
  assert step == 2
  assert text.item().decode() == '| a |\n| - |'


def test_without_tensorflow_the_extra_is_named(monkeypatch, tmp_path):
  monkeypatch.setitem(sys.modules, 'tensorflow', None)
  with pytest.raises(ImportError, match=r"pip install 'rahf\[train\]'"):
    TensorBoardWriter(tmp_path)
