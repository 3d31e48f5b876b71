"""TFRecords of other programs: which features are read."""

import tensorflow as tf

from rahf.data.sources.source import open_source


def write(path, *records: dict[str, list[bytes]]):
  with tf.io.TFRecordWriter(str(path)) as writer:
    for record in records:
      feature = {
        name: tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
        for name, values in record.items()
      }
      features = tf.train.Features(feature=feature)
      writer.write(tf.train.Example(features=features).SerializeToString())
  return path


def read(path) -> list[tuple]:
  items = [load() for _, load in open_source(str(path)).read(lambda _: True)]
  return [(item.uid, item.prompt, item.image, item.error) for item in items]


def test_names_of_features(tmp_path):
  both = {'image': [b'first'], 'image/encoded': [b'second']}
  path = write(
    tmp_path / 'x.tfrecord',
    {'image': [b'x'], 'prompt': [b'red'], 'uid': [b'1']},
    {'image/encoded': [b'x'], 'caption': [b'red'], 'id': [b'1']},
    {**both, 'prompt': [], 'caption': [b'red']},
    {'prompt': [b'red']},
  )
  assert read(path) == [
    ('1', 'red', b'x', ''),
    ('1', 'red', b'x', ''),
    ('', 'red', b'first', ''),
    ('', 'red', None, 'no bytes feature image or image/encoded'),
  ]


def test_records_of_several_images_or_prompts(tmp_path):
  path = write(
    tmp_path / 'x.tfrecord',
    {'image': [b'x', b'y'], 'prompt': [b'red'], 'uid': [b'1']},
    {'image': [b'x'], 'prompt': [b'red', b'blue'], 'uid': [b'2']},
  )
  assert read(path) == [
    ('1', None, None, '2 images in this record, not one'),
    ('2', None, None, '2 prompts in this record, not one'),
  ]


def test_prompts_that_are_not_utf_8(tmp_path):
  prompt = 'a red circle'.encode('utf-16-le')
  path = write(tmp_path / 'x.tfrecord', {'image': [b'x'], 'prompt': [prompt]})
  ((_, _, _, error),) = read(path)
  assert error.startswith('its prompt cannot be read: it has NUL characters')
