"""Annotators, their invitations and sessions. Tokens are stored hashed."""

import hashlib
import secrets
import time
import unicodedata
from typing import NamedTuple

import sqlalchemy as sa

from rahf.annotation.database import Database
from rahf.annotation.tables import ANNOTATORS, ITEMS, PROJECT, SESSIONS
from rahf.errors import InputError

ANNOTATOR, ADMIN = ROLES = ('annotator', 'admin')
# The admin of whoever runs the server.
OWNER = 'owner'
SESSION_SECONDS = 30 * 24 * 3600
LONGEST_NAME = 80


class Person(NamedTuple):
  """Somebody who has a session.

  Attributes:
    id: of the annotator.
    name, role: as stored.
    rater: number in a study, from 1; None elsewhere.
    active: whether they may answer.
    csrf: what their pages send with each request that changes something.
  """

  id: int
  name: str
  role: str
  rater: int | None
  active: bool
  csrf: str


def clean_name(name: str) -> str:
  """Returns a name without white space around it.

  Raises:
    InputError: it is empty, too long, or has control characters.
  """
  name = unicodedata.normalize('NFC', name).strip()
  if not name or len(name) > LONGEST_NAME:
    raise InputError(f'a name has 1 to {LONGEST_NAME} characters')
  if any(unicodedata.category(sign)[0] == 'C' for sign in name):
    raise InputError('a name has no control characters')
  return name


def invite(store: Database, name: str, role: str = ANNOTATOR) -> str:
  """Returns a new invitation; an earlier one of the same name becomes invalid.

  Raises:
    InputError: the name cannot be used, or belongs to another role.
  """
  name, token = clean_name(name), secrets.token_urlsafe(24)
  with store.write(lock=True) as connection:
    row = connection.execute(
      sa.select(ANNOTATORS).where(ANNOTATORS.c.name == name)
    ).one_or_none()
    if row is None:
      _add(connection, name, role, token)
    elif row.role != role:
      raise InputError(f'{name} is {row.role} already; choose another name')
    else:
      # Whoever has the old link must not keep a session either.
      connection.execute(sa.delete(SESSIONS).where(SESSIONS.c.annotator == row.id))
      connection.execute(
        sa.update(ANNOTATORS)
        .where(ANNOTATORS.c.id == row.id)
        .values(invitation=_hash(token))
      )
  return token


def has_invited(store: Database) -> bool:
  """Returns whether anybody has an invitation, besides the owner."""
  with store.read() as connection:
    query = sa.select(ANNOTATORS.c.id).where(
      ANNOTATORS.c.invitation.is_not(None), ANNOTATORS.c.name != OWNER
    )
    return connection.execute(query).first() is not None


def enter_with_token(store: Database, token: str) -> str | None:
  """Returns the token of a new session for an invitation; None for an unknown one."""
  with store.write() as connection:
    query = sa.select(ANNOTATORS.c.id).where(ANNOTATORS.c.invitation == _hash(token))
    annotator = connection.scalar(query)
    return None if annotator is None else _open_session(connection, annotator)


def enter_with_name(store: Database, name: str) -> str:
  """Returns the token of a new session of a name, which is new or was used before.

  Only for servers that nobody else can reach.

  Raises:
    InputError: the name cannot be used, or needs an invitation.
  """
  name = clean_name(name)
  with store.write(lock=True) as connection:
    row = connection.execute(
      sa.select(ANNOTATORS).where(ANNOTATORS.c.name == name)
    ).one_or_none()
    if row is not None and (row.role == ADMIN or row.invitation):
      raise InputError(f'{name} enters with an invitation; choose another name')
    annotator = _add(connection, name, ANNOTATOR) if row is None else row.id
    return _open_session(connection, annotator)


def of_session(store: Database, token: str) -> Person | None:
  """Returns whose session it is; None if there is none or it has expired."""
  query = (
    sa.select(ANNOTATORS, SESSIONS.c.csrf)
    .join(SESSIONS, SESSIONS.c.annotator == ANNOTATORS.c.id)
    .where(SESSIONS.c.token == _hash(token), SESSIONS.c.expires > time.time())
  )
  with store.read() as connection:
    row = connection.execute(query).one_or_none()
  if row is None:
    return None
  return Person(row.id, row.name, row.role, row.rater, row.active, row.csrf)


def leave(store: Database, token: str) -> None:
  """Ends a session."""
  with store.write() as connection:
    connection.execute(sa.delete(SESSIONS).where(SESSIONS.c.token == _hash(token)))


def set_active(store: Database, annotator: int, active: bool) -> None:
  """Lets an annotator answer, or stops them; answers stay."""
  with store.write() as connection:
    connection.execute(
      sa.update(ANNOTATORS).where(ANNOTATORS.c.id == annotator).values(active=active)
    )


def _add(
  connection: sa.Connection, name: str, role: str, token: str | None = None
) -> int:
  rater = None
  if role == ANNOTATOR and connection.scalar(sa.select(PROJECT.c.task)) == 'compare':
    rater = _free_rater(connection)
  return connection.scalar(
    sa.insert(ANNOTATORS)
    .values(
      name=name,
      role=role,
      invitation=token and _hash(token),
      rater=rater,
      active=True,
      created=time.time(),
    )
    .returning(ANNOTATORS.c.id)
  )


def _free_rater(connection: sa.Connection) -> int:
  """Returns the first number of a study's raters that nobody has."""
  taken = sa.select(ANNOTATORS.c.rater).where(ANNOTATORS.c.rater.is_not(None))
  number = connection.scalar(
    sa.select(sa.func.min(ITEMS.c.rater)).where(ITEMS.c.rater.not_in(taken))
  )
  if number is None:
    raise InputError(
      'this study has no free place; whoever runs it can make one with more raters'
    )
  return number


def _open_session(connection: sa.Connection, annotator: int) -> str:
  token, now = secrets.token_urlsafe(24), time.time()
  connection.execute(sa.delete(SESSIONS).where(SESSIONS.c.expires < now))
  connection.execute(
    sa.insert(SESSIONS).values(
      token=_hash(token),
      annotator=annotator,
      csrf=secrets.token_urlsafe(24),
      expires=now + SESSION_SECONDS,
    )
  )
  return token


def _hash(token: str) -> str:
  # Tokens have 192 random bits, so that a slow hash would add nothing.
  return hashlib.sha256(token.encode()).hexdigest()
