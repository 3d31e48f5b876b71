"""The HTTP routes of annotation in the browser.

GET  /                      the task, or the page to enter
GET  /join                  the page to enter; the invitation follows the #
POST /api/enter, /api/leave begin and end a session
GET  /api/task              the next task, as POST /api/answer returns it too
POST /api/draft             keeps an unfinished answer
POST /api/answer            stores an answer
POST /api/prompt            adds an own prompt, if images are drawn
GET  /api/last              the latest answer; POST /api/revise changes it
GET  /image/ITEM/NUMBER     an image of an item
GET  /dashboard             for admins; POST /api/active stops an annotator
GET  /health                200
"""

from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import Depends, FastAPI, Header, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse

from rahf.annotation import (
  answering,
  dashboard,
  drawing,
  image_files,
  people,
  standing,
  summary,
  work_pages,
)
from rahf.annotation.answering import ConflictError
from rahf.annotation.bodies import Active, Draft, Enter, Number, Prompt, Submitted
from rahf.annotation.guard import Access, Guard, Rates
from rahf.annotation.people import ADMIN, ANNOTATOR, Person
from rahf.annotation.project import Project
from rahf.annotation.texts import language_of
from rahf.drawing.html_page import Page
from rahf.errors import InputError

LANGUAGE = 'rahf_language'
IMAGE_SECONDS = 3600


class Sessions:
  """Finds out who sends a request, and limits how often they do.

  Attributes:
    cookie: that has the token. Its name is the project's, since browsers send a host's
      cookies to all its ports.
    wrong_tokens: limits them for an address, so that nobody tries many.
  """

  def __init__(self, project: Project):
    """Starts without sessions in memory; they are in the store."""
    self._store = project.store
    self.cookie = f'rahf_{project.name}'
    self._requests = Rates(burst=60, per_second=20)
    self.wrong_tokens = Rates(burst=10, per_second=1 / 30)

  def person(self, request: Request) -> Person | None:
    """Returns whose session a request belongs to."""
    token = request.cookies.get(self.cookie)
    return people.of_session(self._store, token) if token else None

  def require(
    self, request: Request, x_csrf_token: Annotated[str, Header()] = ''
  ) -> Person:
    """Returns who sends a request.

    Raises:
      HTTPException: nobody with a session, or too many requests.
    """
    person = self.person(request)
    if person is None:
      raise HTTPException(401, 'the session has ended; enter again')
    if not self._requests.take(str(person.id)):
      raise HTTPException(429, 'too many requests; wait a moment', {'Retry-After': '2'})
    if request.method == 'POST' and x_csrf_token != person.csrf:
      raise HTTPException(403, 'the page is out of date; load it again')
    return person


def make_app(project: Project, access: Access) -> FastAPI:
  """Returns the application.

  Args:
    project: what people work on.
    access: who may use the server.
  """
  app = FastAPI(
    title='RAHF annotation', docs_url=None, redoc_url=None, openapi_url=None
  )
  app.add_middleware(Guard, access=access)
  sessions = Sessions(project)
  _add_errors(app)
  _add_entrance(app, project, access, sessions)
  _add_tasks(app, project, sessions)
  _add_pages(app, project, access, sessions)
  _add_dashboard(app, project, sessions)
  return app


def _add_errors(app: FastAPI) -> None:
  @app.exception_handler(InputError)
  def unusable(request: Request, error: InputError) -> JSONResponse:
    del request
    return _refusal(str(error))

  @app.exception_handler(RequestValidationError)
  def malformed(request: Request, error: RequestValidationError) -> JSONResponse:
    del request
    first = error.errors()[0]
    return _refusal(f'{".".join(map(str, first["loc"]))}: {first["msg"]}')

  @app.exception_handler(ConflictError)
  def conflict(request: Request, error: ConflictError) -> JSONResponse:
    del request
    return JSONResponse({'detail': str(error)}, 409)

  @app.exception_handler(sa.exc.DBAPIError)
  def not_stored(request: Request, error: sa.exc.DBAPIError) -> JSONResponse:
    """The transaction was undone; a page keeps its answer and sends it again."""
    del request
    print(f'The store failed: {error.orig}', flush=True)
    return JSONResponse({'detail': f'nothing was stored: {error.orig}'[:300]}, 507)


def _refusal(problem: str) -> JSONResponse:
  """Returns why a request is refused, without what UTF-8 cannot encode."""
  detail = problem[:300].encode('utf-8', 'replace').decode()
  return JSONResponse({'detail': detail}, 422)


def _add_entrance(
  app: FastAPI, project: Project, access: Access, sessions: Sessions
) -> None:
  @app.post('/api/enter')
  def enter(body: Enter, request: Request) -> JSONResponse:
    address = request.client.host if request.client else ''
    if sessions.wrong_tokens.is_empty(address):
      raise HTTPException(429, 'too many wrong invitations; wait a few minutes')
    if body.token:
      token = people.enter_with_token(project.store, body.token)
    elif access.public:
      raise HTTPException(403, 'open the link of your invitation')
    else:
      token = people.enter_with_name(project.store, body.name)
    if token is None:
      sessions.wrong_tokens.take(address)
      raise HTTPException(403, 'the invitation is unknown or was replaced by another')
    person = people.of_session(project.store, token)
    assert person
    home = '/' if person.role == ANNOTATOR else '/dashboard'
    response = JSONResponse({'next': home})
    response.set_cookie(
      sessions.cookie,
      token,
      max_age=people.SESSION_SECONDS,
      httponly=True,
      samesite='lax',
      secure=access.secure,
    )
    return response

  @app.post('/api/leave')
  def leave(
    request: Request, person: Annotated[Person, Depends(sessions.require)]
  ) -> JSONResponse:
    del person
    people.leave(project.store, request.cookies[sessions.cookie])
    response = JSONResponse({'next': '/'})
    response.delete_cookie(sessions.cookie)
    return response


def _add_tasks(app: FastAPI, project: Project, sessions: Sessions) -> None:
  def annotator(
    request: Request, person: Annotated[Person, Depends(sessions.require)]
  ) -> Person:
    if person.role != ANNOTATOR:
      raise HTTPException(403, 'admins do not answer; enter with another name')
    if request.method == 'POST' and not person.active:
      raise HTTPException(403, 'you were stopped by an admin; ask whoever runs this')
    return person

  Asker = Annotated[Person, Depends(annotator)]

  def following(person: Person) -> dict[str, Any]:
    return {
      'task': answering.next_task(project, person),
      'progress': standing.progress(project, person),
    }

  @app.get('/api/task')
  def task(person: Asker) -> dict[str, Any]:
    return following(person)

  @app.get('/api/last')
  def last(person: Asker) -> dict[str, Any]:
    return {'task': answering.last_answer(project, person)}

  @app.post('/api/draft')
  def draft(body: Draft, person: Asker) -> dict[str, bool]:
    return {'kept': answering.save_draft(project, person, body.lease, body.value)}

  @app.post('/api/answer')
  def answer(body: Submitted, person: Asker) -> dict[str, Any]:
    number = answering.submit(project, person, body.lease, body.answer())
    if project.settings.assist != 'after':
      return following(person)
    shown = answering.prediction_after(project, number)
    return {**following(person), 'prediction': shown}

  @app.post('/api/revise')
  def revise(body: Submitted, person: Asker) -> dict[str, Any]:
    answering.revise(project, person, body.lease, body.answer())
    return following(person)

  @app.post('/api/prompt')
  def prompt(body: Prompt, person: Asker) -> dict[str, bool]:
    return {'ready': drawing.add_prompt(project, person, body.prompt)}

  @app.get('/image/{item}/{number}')
  def image(
    item: Number, number: Number, person: Annotated[Person, Depends(sessions.require)]
  ) -> Response:
    del person
    try:
      found = image_files.read(project, item, number)
    except InputError as error:
      # File names may say which model made an image, so people do not get them.
      print(f'Image {number} of item {item}: {error}', flush=True)
      raise HTTPException(422, 'the image cannot be shown; leave a remark') from None
    if found is None:
      raise HTTPException(404, 'no such image')
    headers = {'Cache-Control': f'private, max-age={IMAGE_SECONDS}'}
    return Response(found.data, media_type=found.kind, headers=headers)


def _add_pages(
  app: FastAPI, project: Project, access: Access, sessions: Sessions
) -> None:
  @app.get('/')
  def home(request: Request, lang: str = '') -> Response:
    language, person = _language(request, lang), sessions.person(request)
    if person is not None and person.role == ADMIN:
      return RedirectResponse('/dashboard')
    if person is None:
      page = work_pages.enter(language, by_name=not access.public)
    else:
      page = work_pages.work(project, person, language)
    response = html(page)
    if lang:
      response.set_cookie(LANGUAGE, language, samesite='lax', secure=access.secure)
    return response

  @app.get('/join')
  def join(request: Request, lang: str = '') -> Response:
    return html(work_pages.enter(_language(request, lang), by_name=False))

  @app.get('/health')
  def health() -> dict[str, str]:
    with project.store.read() as connection:
      connection.execute(sa.select(1))
    return {'status': 'ready'}


def _add_dashboard(app: FastAPI, project: Project, sessions: Sessions) -> None:
  def admin(person: Annotated[Person, Depends(sessions.require)]) -> Person:
    if person.role != ADMIN:
      raise HTTPException(403, 'only admins may do this; open the link of an admin')
    return person

  @app.get('/dashboard')
  def show(request: Request) -> Response:
    person = sessions.person(request)
    if person is None or person.role != ADMIN:
      return RedirectResponse('/')
    return html(dashboard.page(project, person, summary.summarise(project)))

  @app.post('/api/active')
  def set_active(
    body: Active, person: Annotated[Person, Depends(admin)]
  ) -> dict[str, bool]:
    del person
    people.set_active(project.store, body.annotator, body.active)
    return {'active': body.active}


def html(page: Page) -> HTMLResponse:
  """Returns a page with its policy."""
  policy = f"{page.policy}; frame-ancestors 'none'"
  return HTMLResponse(page.html, headers={'Content-Security-Policy': policy})


def _language(request: Request, wanted: str) -> str:
  wanted = wanted or request.cookies.get(LANGUAGE, '')
  return language_of(wanted, request.headers.get('accept-language', ''))
