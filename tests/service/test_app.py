"""The service over HTTP: answers, batches, refusals, health and metrics."""

import base64
import dataclasses
import functools
import io
import json
import math
import zlib

import image_files
import numpy as np
import pytest
from PIL import Image

import rahf
from rahf.data.images import codec
from rahf.service import messages
from rahf.service.admission import Admission
from rahf.service.engine import Engine
from served import (
  PROMPT,
  Gate,
  ask,
  ask_form,
  ask_json,
  make_image,
  read_metrics,
  running,
  together,
  wait_until,
)


def assert_same(found: dict, expected: dict) -> None:
  """Asserts equal answers: scores and probabilities to 1e-5, maps to 1/255."""
  assert found.keys() == expected.keys()
  for name in ('prompt', 'height', 'width', 'truncated'):
    assert found[name] == expected[name]
  assert found['scores'] == pytest.approx(expected['scores'], abs=1e-5)
  words, p = zip(
    *((k['word'], k['p_misaligned']) for k in found['keywords']), strict=True
  )
  others, q = zip(
    *((k['word'], k['p_misaligned']) for k in expected['keywords']), strict=True
  )
  assert words == others
  assert p == pytest.approx(q, abs=1e-5)
  for name, encoded in expected.get('heatmaps', {}).items():
    one, other = (
      codec.decode_map(base64.b64decode(text))
      for text in (found['heatmaps'][name], encoded)
    )
    np.testing.assert_allclose(one, other, atol=1.01 / 255)


def test_json_and_forms_agree_with_model_score(port, model):
  image = make_image()
  (feedback,) = model.score(image, PROMPT)
  with_maps, without = (feedback.to_dict(maps=maps) for maps in (True, False))
  for answer, expected in (
    (ask_json(port, image), with_maps),
    (ask_json(port, image, maps=False), without),
    (ask_form(port, image, prompt=PROMPT), with_maps),
    (ask_form(port, image, prompt=PROMPT, maps='false'), without),
  ):
    assert answer.status == 200
    assert answer.headers['content-type'] == 'application/json'
    messages.score_reply(model.outputs).model_validate_json(answer.body)
    assert_same(answer.json, expected)


def test_a_data_url_and_non_latin_words(port, model):
  image, prompt = make_image(), 'ein Käfer, 猫 <b>'
  (feedback,) = model.score(image, prompt)
  fields = {
    'image': 'data:image/png;base64,' + base64.b64encode(image).decode(),
    'prompt': prompt,
  }
  body = json.dumps(fields, ensure_ascii=False).encode()
  kind = 'Application/JSON; charset=utf-8'
  answer = ask(port, 'POST', '/score', body, Content_Type=kind)
  assert_same(answer.json, feedback.to_dict(maps=True))
  assert_same(ask_form(port, image, prompt=prompt).json, feedback.to_dict(maps=True))


def test_simultaneous_requests_share_a_batch(port, engine, model, monkeypatch):
  pixels = [make_image(number, 20 + number) for number in range(5)]
  prompts = [f'{"a red circle, " * number}a blue square' for number in range(5)]
  single = [model.score(*pair)[0] for pair in zip(pixels, prompts, strict=True)]
  gate = Gate(engine, monkeypatch)
  calls = [
    functools.partial(ask_json, port, *pair)
    for pair in zip(pixels, prompts, strict=True)
  ]
  (first,) = together(calls[0])
  wait_until(lambda: gate.sizes == [1])
  others = together(*calls[1:])
  wait_until(lambda: engine._batcher.waiting == 4)
  gate.open()
  for future, expected in zip([first, *others], single, strict=True):
    assert_same(future.result(60).json, expected.to_dict(maps=True))
  assert gate.sizes == [1, 4]
  # Nothing was compiled apart from the sizes of the warm-up.
  assert model._infer_pixels._cache_size() == len(model.buckets) == 2


def much_text(text: bytes = b'x' * 70_000_000) -> bytes:
  """Returns the image with 70 MB of text, compressed to a few kilobytes."""
  data = make_image()
  made = image_files.chunk(b'zTXt', b'a\0\0' + zlib.compress(text))
  return data[:33] + made + data[33:]


def odd_exif(*tags: tuple[int, int, int, bytes]) -> bytes:
  """Returns the image with EXIF tags."""
  image = Image.open(io.BytesIO(make_image()))
  return image_files.encode(image, exif=b'Exif\0\0' + image_files.tiff(*tags))


# Invalid tags: software without text, a resolution of -1/0, a date of unknown type.
ODD = ((0x0131, 5, 1, b'\x32\0\0\0'), (0x011A, 10, 1, b'\xff' * 4))
ODD += ((0x0132, 99, 2**32 - 1, b''.ljust(4)),)


@pytest.mark.parametrize(
  ('image', 'turned'),
  [
    (much_text, False),
    (lambda: odd_exif(*ODD), False),
    (lambda: odd_exif(image_files.turned(6), *ODD), True),
    (lambda: odd_exif(image_files.turned(9), *ODD), False),
  ],
)
def test_odd_metadata_does_not_matter(port, model, image, turned):
  pixels = codec.decode_image(make_image())
  (expected,) = model.score(np.rot90(pixels, -1) if turned else pixels, PROMPT)
  answer = ask_json(port, image())
  assert answer.status == 200
  assert_same(answer.json, expected.to_dict(maps=True))


@pytest.mark.parametrize(
  ('image', 'message'),
  [
    (lambda: b'GIF89a', "not a PNG, JPEG or WEBP image (begins with b'GIF89a')"),
    (lambda: b'', 'not a PNG, JPEG or WEBP image (no bytes)'),
    (lambda: make_image()[:-200], 'the image cannot be decoded: '),
    (lambda: make_image(0, 8193, 1), '1x8193 pixels are more than the limit of 8192'),
    (lambda: make_image()[:60] + b'x' + make_image()[61:], 'damaged: the checksum'),
  ],
)
def test_unusable_images_are_refused(port, image, message):
  for answer in (ask_json(port, image()), ask_form(port, image(), prompt=PROMPT)):
    assert answer.status == 422
    assert answer.json['detail'].startswith(f'image: {message}')


def test_a_body_is_freed_while_its_image_waits(engine, monkeypatch):
  freed = []

  class Body(bytes):
    def __del__(self):
      freed.append(len(self))

  read = Admission.read

  async def watched(self, request):
    return Body(await read(self, request))

  monkeypatch.setattr(Admission, 'read', watched)
  with running(engine) as port:
    gate = Gate(engine, monkeypatch)
    call = functools.partial(ask_json, port, make_image())
    futures = together(call, call)
    wait_until(lambda: sum(gate.sizes) + engine._batcher.waiting == 2)
    wait_until(lambda: len(freed) == 2)
    gate.open()
    assert [future.result(60).status for future in futures] == [200, 200]


def test_non_finite_scores_are_an_error(port, engine, monkeypatch):
  real = engine.model.score_examples

  def spoil(examples):
    return [
      dataclasses.replace(one, scores={**one.scores, 'overall': math.nan})
      for one in real(examples)
    ]

  monkeypatch.setattr(engine.model, 'score_examples', spoil)
  answer = ask_json(port, make_image())
  assert answer.status == 500
  assert answer.json == {'detail': "the model's scores are not finite"}


def test_health_before_and_after_the_warm_up(model):
  engine, lines = Engine(model), []
  with running(engine) as port:
    health = ask(port, 'GET', '/health')
    assert health.status == 503
    assert health.json['status'] == 'compiling'
    assert health.json['compiled'] == 0
    refused = ask_json(port, make_image())
    assert refused.status == 503
    assert refused.headers['Retry-After']
    engine.warm_up(lines.append)
    assert [line.split(', in')[0] for line in lines] == [
      'Compiled batch size 1, 1 of 2',
      'Compiled batch size 4, 2 of 2',
    ]
    health = ask(port, 'GET', '/health')
    assert health.status == 200
    assert health.json == {
      **{'status': 'ready', 'version': rahf.__version__, 'step': 7},
      **{'batch_sizes': [1, 4], 'compiled': 2},
    }
    assert ask_json(port, make_image()).status == 200
    engine.begin_shutdown()
    assert ask(port, 'GET', '/health').json['status'] == 'stopping'
    assert ask_json(port, make_image()).status == 503
    assert engine.stop(30)


def test_metrics_count(port, engine, monkeypatch):
  before = read_metrics(port)
  for _ in range(3):
    ask_json(port, make_image())
  ask_json(port, b'')
  with monkeypatch.context() as patch:
    patch.setattr(engine.model, 'score_examples', lambda examples: 1 / 0)
    assert ask_json(port, make_image()).status == 500
  after = read_metrics(port)

  def added(name: str) -> float:
    return after[name] - before.get(name, 0)

  assert added('rahf_requests_total200') == 3
  assert added('rahf_requests_total422') == 1
  assert added('rahf_requests_total500') == 1
  assert added('rahf_request_seconds_count') == 3
  assert added('rahf_batch_size_sum') == added('rahf_batch_size_bucket1.0') == 3
  assert 0 < added('rahf_compute_seconds_sum') < added('rahf_request_seconds_sum')
  assert after['rahf_ready'] == 1
  assert after['rahf_requests_in_work'] == after['rahf_images_waiting'] == 0


def test_the_reference_is_complete_and_loads_nothing_external(port):
  described = ask(port, 'GET', '/openapi.json').json
  assert described['paths'].keys() == {'/score', '/health', '/metrics'}
  answer = ask(port, 'GET', '/docs')
  page = answer.body.decode()
  for text in (
    'POST /score',
    'p_misaligned',
    '0 to 1, higher is better',
    'Retry-After',
  ):
    assert text in page
  assert '<script' not in page
  assert 'https://' not in page
  assert "default-src 'none'" in answer.headers['Content-Security-Policy']
