"""The small world keeps to its definition; the full one gives what it always gave."""

import hashlib

import pytest

from rahf.data.datasets.shapes import builder, pairs
from rahf.data.datasets.shapes.record import make_record, make_sample
from rahf.data.datasets.shapes.render import draw
from rahf.data.datasets.shapes.world import SMALL, WORLDS
from rahf.data.images.codec import decode_image
from rahf.data.storage.records import open_split
from rahf.errors import InputError

# Of scenes, prompts and marks before there was more than one world; and the mean pixel
# of three images.
SCENES = '35ad2d4fbb661e788beeebf0f9359bbe36e020e405d2d4634045d77a4fb23825'
MEANS = (34.047, 225.409, 233.282)


def written(value) -> str:
  """Writes nested tuples, sets sorted and numbers to six digits."""
  if isinstance(value, frozenset):
    return written(sorted(value))
  if isinstance(value, tuple | list):
    return '(' + ' '.join(map(written, value)) + ')'
  return f'{value:.6f}' if isinstance(value, float) else str(value)


def test_the_full_world_is_as_before():
  digest = hashlib.sha256()
  for index in range(60):
    sample = make_sample(3, 'dev', index)
    digest.update(written((sample.scene, sample.prompt, sample.annotations)).encode())
  for index in range(10):
    pair = pairs.make_pair(2, 'train', index)
    digest.update(written((pair.prompt, pair.scenes, pair.preference)).encode())
  assert digest.hexdigest() == SCENES
  # Pillow may draw outlines a little differently in other versions.
  images = [decode_image(make_record(3, 'dev', i, 64).image) for i in range(3)]
  assert [image.mean() for image in images] == pytest.approx(MEANS, abs=0.1)


def test_the_small_world_keeps_to_its_definition():
  seen = set()
  for index in range(200):
    sample = make_sample(0, 'train', index, 'small')
    (group,) = sample.scene.groups
    assert not {'small', 'large'} & set(sample.tokens)
    low, high = SMALL.radii['small']
    assert low <= group.radius <= high
    seen |= {(group.asked.colour, group.asked.kind), group.drawn[2:4]}
    image = draw(sample.scene._replace(groups=()), 64)
    assert (image == SMALL.tone).all()
  assert seen == {(c, k) for c in SMALL.colours for k in SMALL.kinds}


def test_pairs_are_of_the_world():
  for index in range(20):
    for scene in pairs.make_pair(0, 'train', index, 'small').scenes:
      assert scene.background.start == SMALL.tone


def test_worlds_have_different_folders(tmp_path):
  sizes = {'train': 3, 'dev': 2, 'test': 0}
  full = builder.ShapesConfig(**sizes)
  folder = builder.prepare_shapes(tmp_path, **sizes, world='small')
  assert (full.name, folder.parent.name) == (
    '64px-3-2-0-seed0',
    '64px-3-2-0-seed0-small',
  )
  records = {record.uid: record for record in open_split(folder, 'dev')}
  made = make_record(0, 'dev', 1, 64, 'small')
  assert records[made.uid].image == made.image
  assert records[made.uid].prompt == made.prompt
  counts = {'train': 2, 'validation_unique': 1, 'test_unique': 1}
  names = [pairs.prepare_pairs(tmp_path, **counts, world=w).name for w in WORLDS]
  assert names == ['64px-2-1-1-seed0-v1', '64px-2-1-1-seed0-small-v1']


def test_unknown_worlds_are_refused(tmp_path):
  with pytest.raises(InputError, match="world 'tiny' is unknown; use one of"):
    builder.prepare_shapes(tmp_path, world='tiny')
  with pytest.raises(InputError, match="world 'tiny' is unknown"):
    pairs.prepare_pairs(tmp_path, world='tiny')
  with pytest.raises(InputError, match="world 'tiny' is unknown"):
    make_record(0, 'dev', 0, 64, 'tiny')
