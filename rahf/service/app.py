"""The service's routes.

POST /score          an image and its prompt to scores, words and maps
GET  /               the page for people
GET  /health         200 when ready, else 503
GET  /metrics        for Prometheus
GET  /docs           the reference, made from /openapi.json
"""

import asyncio
import contextlib
import functools
import time
from collections.abc import Coroutine, Iterator

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST

import rahf
from rahf.errors import InputError
from rahf.page.parts import Page
from rahf.service import messages, pages, reading
from rahf.service.admission import RETRY, Admission, Limits
from rahf.service.engine import Engine
from rahf.service.origins import LoopbackHosts

PROBLEMS = {
  400: 'the body ends early',
  403: 'a page of another origin asks',
  408: 'the body did not come in time',
  413: 'the body is larger than the limit',
  415: 'the body is neither JSON nor a form',
  422: 'image or prompt cannot be used; says why',
  429: 'too many requests are waiting; try again after Retry-After seconds',
  500: "the model's scores are not finite, or an error of the service",
  503: 'not ready yet, or stopping',
}
LEFT = 499  # As nginx counts it; nobody is there to read it.
LONGEST_DETAIL = 300  # characters
# FastAPI would read a body before anything else.
BODY = {
  'required': True,
  'content': {
    reading.JSON: {'schema': messages.ScoreRequest.model_json_schema()},
    reading.MULTIPART: {'schema': messages.ScoreForm.model_json_schema()},
  },
}


def make_app(engine: Engine, limits: Limits, *, loopback: bool = False) -> FastAPI:
  """Returns the application, which refuses until the engine is warmed up.

  Args:
    engine: what answers.
    limits: what is refused.
    loopback: whether only this machine can ask, by its own names.
  """
  app = FastAPI(
    title='RAHF',
    version=rahf.__version__,
    description='Rich human feedback for generated images: scores, heatmaps and '
    'misaligned words for an image and the prompt that it was made from.',
    # FastAPI's pages take scripts from other hosts.
    docs_url=None,
    redoc_url=None,
  )
  if loopback:
    app.add_middleware(LoopbackHosts)
  _add_score(app, engine, Admission(engine, limits))
  _add_state(app, engine)
  _add_pages(app, engine, limits)
  return app


def _add_score(app: FastAPI, engine: Engine, admission: Admission) -> None:
  @app.post(
    '/score',
    response_model=messages.ScoreReply,
    response_description='what the model says of the image',
    responses={
      status: {'model': messages.Problem, 'description': text}
      for status, text in PROBLEMS.items()
    },
    openapi_extra={'requestBody': BODY},
  )
  async def score(request: Request) -> Response:
    """Scores one image. Requests that come together are computed together."""
    with _measured(engine):
      await admission.check(request)
      read = functools.partial(
        reading.read, request.headers['content-type'], await admission.read(request)
      )
      with admission.inside():
        work = engine.score(read)
        # The engine lets go of the body as soon as it has read it.
        del read
        try:
          found = await _unless_left(request, work)
        except InputError as error:
          raise HTTPException(422, str(error)[:LONGEST_DETAIL]) from None
        except FloatingPointError as error:
          raise HTTPException(500, str(error)) from None
        return Response(found, media_type=reading.JSON)


async def _unless_left(request: Request, work: Coroutine[None, None, bytes]) -> bytes:
  """Returns what the work gives; cancels it when the sender leaves before."""

  async def leave() -> None:
    while (await request.receive())['type'] != 'http.disconnect':
      pass

  tasks = working, _ = asyncio.create_task(work), asyncio.create_task(leave())
  try:
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    if not working.done():
      raise HTTPException(LEFT, 'the sender has left')
    return working.result()
  finally:
    for task in tasks:
      task.cancel()


@contextlib.contextmanager
def _measured(engine: Engine) -> Iterator[None]:
  start, status = time.perf_counter(), 500
  try:
    yield
    status = 200
    engine.measures.seconds.observe(time.perf_counter() - start)
  except HTTPException as error:
    status = error.status_code
    raise
  except asyncio.CancelledError:
    # The server does so when its time to stop is over.
    status = 503
    engine.dropped += 1
    raise HTTPException(status, 'the service has stopped', RETRY) from None
  finally:
    engine.measures.requests.labels(status).inc()


def _add_state(app: FastAPI, engine: Engine) -> None:
  @app.get(
    '/health',
    response_model=messages.Health,
    response_description='images are scored',
    responses={503: {'model': messages.Health, 'description': PROBLEMS[503]}},
  )
  async def health() -> JSONResponse:
    """Says whether images are scored yet."""
    found = messages.Health(
      status=engine.state,
      version=rahf.__version__,
      step=engine.model.description.step,
      batch_sizes=list(engine.model.buckets),
      compiled=engine.compiled,
    )
    ready = engine.state == 'ready'
    return JSONResponse(found.model_dump(), 200 if ready else 503)

  @app.get(
    '/metrics',
    response_class=Response,
    response_description='the metrics',
    responses={200: {'content': {'text/plain': {}}}},
  )
  async def metrics() -> Response:
    """Gives what is counted, as Prometheus reads it."""
    return Response(engine.measures.exposition(), media_type=CONTENT_TYPE_LATEST)


def _add_pages(app: FastAPI, engine: Engine, limits: Limits) -> None:
  home = pages.home(engine.model.description, limits.body)

  @app.get('/', include_in_schema=False)
  async def page() -> HTMLResponse:
    return _html(home)

  @app.get('/docs', include_in_schema=False)
  async def reference() -> HTMLResponse:
    return _html(pages.reference(app.openapi()))


def _html(page: Page) -> HTMLResponse:
  headers = {
    'Content-Security-Policy': f"{page.policy}; frame-ancestors 'none'",
    'X-Content-Type-Options': 'nosniff',
    'Referrer-Policy': 'no-referrer',
  }
  return HTMLResponse(page.html, headers=headers)
