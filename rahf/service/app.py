"""The service's routes.

POST /score          an image and its prompt to scores, words and maps
GET  /               the page for people
GET  /health         200 when ready, else 503
GET  /metrics        for Prometheus
GET  /docs           the reference, made from /openapi.json
"""

import contextlib
import functools
import time
from collections.abc import Iterator

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST

import rahf
from rahf.errors import InputError
from rahf.page.parts import Page
from rahf.service import messages, pages, reading
from rahf.service.admission import Admission, Limits
from rahf.service.engine import Engine
from rahf.service.measures import Measures

PROBLEMS = {
  400: 'the body ends early',
  408: 'the body did not come in time',
  413: 'the body is larger than the limit',
  415: 'the body is neither JSON nor a form',
  422: 'image or prompt cannot be used; says why',
  429: 'too many requests are waiting; try again after Retry-After seconds',
  503: 'not ready yet, or stopping',
}
# FastAPI would read a body before anything else.
BODY = {
  'required': True,
  'content': {
    reading.JSON: {'schema': messages.ScoreRequest.model_json_schema()},
    reading.MULTIPART: {'schema': messages.ScoreForm.model_json_schema()},
  },
}


def make_app(engine: Engine, limits: Limits) -> FastAPI:
  """Returns the application, which refuses until the engine is warmed up."""
  app = FastAPI(
    title='RAHF',
    version=rahf.__version__,
    description='Rich human feedback for generated images: scores, heatmaps and '
    'misaligned words for an image and the prompt that it was made from.',
    # FastAPI's pages take scripts from other hosts.
    docs_url=None,
    redoc_url=None,
  )
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
    with _measured(engine.measures):
      await admission.check(request)
      with admission.inside():
        body = await admission.read(request)
        content_type = request.headers['content-type']
        try:
          found = await engine.score(
            functools.partial(reading.read, content_type, body)
          )
        except InputError as error:
          raise HTTPException(422, str(error)) from None
        return Response(found, media_type=reading.JSON)


@contextlib.contextmanager
def _measured(measures: Measures) -> Iterator[None]:
  start, status = time.perf_counter(), 500
  try:
    yield
    status = 200
    measures.seconds.observe(time.perf_counter() - start)
  except HTTPException as error:
    status = error.status_code
    raise
  finally:
    measures.requests.labels(status).inc()


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
