"""The service's HTTP routes.

POST /score          scores an image and its prompt
GET  /               a page for people
GET  /health         200 when ready, otherwise 503
GET  /metrics        metrics for Prometheus
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

from rahf.drawing.html_page import Page
from rahf.errors import InputError
from rahf.service import messages, pages, reading
from rahf.service.admission import RETRY, Admission, Limits
from rahf.service.engine import Engine
from rahf.service.origins import LoopbackHosts
from rahf.service.targets import Targets
from rahf.version import __version__

PROBLEMS = {
  400: 'the body ends early',
  403: 'a page from another origin sent the request',
  408: 'the body did not arrive in time',
  413: 'the body is larger than the limit',
  415: 'the body is neither JSON nor a form, or is compressed',
  421: 'the Host is not a loopback name; the service only serves this machine',
  422: 'the image or the prompt cannot be used; the detail says why',
  429: 'too many requests are waiting; try again after Retry-After seconds',
  500: "the model's scores are not finite, or the service has a bug",
  503: 'the service is not ready yet, or is stopping',
}
CLIENT_CLOSED = 499  # As nginx logs clients that disconnect; nobody reads it.
LONGEST_DETAIL = 300  # characters
# Only for the reference: FastAPI itself would read the body before any check.
BODY = {
  'required': True,
  'content': {
    reading.JSON: {'schema': messages.ScoreRequest.model_json_schema()},
    reading.MULTIPART: {'schema': messages.ScoreForm.model_json_schema()},
  },
}


def make_app(engine: Engine, limits: Limits, *, loopback: bool = False) -> FastAPI:
  """Returns the application, which refuses requests until the engine is warm.

  Args:
    engine: scores images.
    limits: requests beyond them are refused.
    loopback: whether to serve only this machine, under its loopback names.
  """
  app = FastAPI(
    title='RAHF',
    version=__version__,
    description='Feedback for a generated image and the prompt it was made from. '
    f'{engine.model.description.summary}. {engine.model.outputs.ranges}.',
    # FastAPI's own pages load scripts from other hosts.
    docs_url=None,
    redoc_url=None,
  )
  if loopback:
    app.add_middleware(LoopbackHosts)
  # The middleware added last sees requests first.
  app.add_middleware(Targets)
  _add_score(app, engine, Admission(engine, limits))
  _add_state(app, engine)
  _add_pages(app, engine, limits)
  return app


def _add_score(app: FastAPI, engine: Engine, admission: Admission) -> None:
  @app.post(
    '/score',
    response_model=messages.score_reply(engine.model.outputs),
    response_description='what the model says about the image',
    responses={
      status: {'model': messages.Problem, 'description': text}
      for status, text in PROBLEMS.items()
    },
    openapi_extra={'requestBody': BODY},
  )
  async def score(request: Request) -> Response:
    """Scores one image. Requests that arrive together are computed together."""
    with _recorded(engine):
      await admission.check(request)
      read = functools.partial(
        reading.read, request.headers['content-type'], await admission.read(request)
      )
      with admission.admitted():
        work = engine.score(read)
        # Drops the body here, so that the engine can free it once parsed.
        del read
        try:
          found = await _cancel_on_disconnect(request, work)
        except InputError as error:
          raise HTTPException(422, str(error)[:LONGEST_DETAIL]) from None
        except FloatingPointError as error:
          raise HTTPException(500, str(error)) from None
        return Response(found, media_type=reading.JSON)

  # Few clients follow redirects of POST requests.
  app.add_api_route('/score/', score, methods=['POST'], include_in_schema=False)


async def _cancel_on_disconnect(
  request: Request, work: Coroutine[None, None, bytes]
) -> bytes:
  """Returns the result of `work`; cancels it if the client disconnects first."""

  async def disconnect() -> None:
    while (await request.receive())['type'] != 'http.disconnect':
      pass

  tasks = working, _ = asyncio.create_task(work), asyncio.create_task(disconnect())
  try:
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    if not working.done():
      raise HTTPException(CLIENT_CLOSED, 'the client has disconnected')
    return working.result()
  finally:
    for task in tasks:
      task.cancel()


@contextlib.contextmanager
def _recorded(engine: Engine) -> Iterator[None]:
  start, status = time.perf_counter(), 500
  try:
    yield
    status = 200
    engine.metrics.seconds.observe(time.perf_counter() - start)
  except HTTPException as error:
    status = error.status_code
    raise
  except asyncio.CancelledError:
    # The server cancels unfinished requests at the end of its grace period.
    status = 503
    engine.dropped += 1
    raise HTTPException(status, 'the service has stopped', RETRY) from None
  finally:
    engine.metrics.requests.labels(status).inc()


def _add_state(app: FastAPI, engine: Engine) -> None:
  @app.get(
    '/health',
    response_model=messages.Health,
    response_description='ready',
    responses={503: {'model': messages.Health, 'description': PROBLEMS[503]}},
  )
  async def health() -> JSONResponse:
    """Reports whether the service is ready."""
    found = messages.Health(
      status=engine.state,
      version=__version__,
      step=engine.model.description.step,
      batch_sizes=list(engine.model.buckets),
      compiled=engine.compiled,
    )
    ready = engine.state == 'ready'
    return JSONResponse(found.model_dump(exclude_none=True), 200 if ready else 503)

  @app.get(
    '/metrics',
    response_class=Response,
    response_description='the metrics',
    responses={200: {'content': {'text/plain': {}}}},
  )
  async def metrics() -> Response:
    """Returns the metrics in Prometheus format."""
    return Response(engine.metrics.exposition(), media_type=CONTENT_TYPE_LATEST)


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
