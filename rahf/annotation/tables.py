"""The tables of a project's store.

`migrations/` creates them; a test checks that both agree. Times are seconds since 1970.
"""

import sqlalchemy as sa

# What a lease and an answer are for; only TASK counts towards an item's answers.
TASK, REPEAT, GOLD = PURPOSES = ('task', 'repeat', 'gold')
DONE, SKIPPED = STATUSES = ('done', 'skipped')

METADATA = sa.MetaData(
  naming_convention={
    'ix': 'ix_%(table_name)s_%(column_0_N_name)s',
    'uq': 'uq_%(table_name)s_%(column_0_N_name)s',
    'fk': 'fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s',
    'pk': 'pk_%(table_name)s',
  }
)


def _reference(column: str) -> sa.ForeignKey:
  return sa.ForeignKey(column, ondelete='RESTRICT')


# One row. Whoever assigns tasks locks it, so that two servers never assign at once.
PROJECT = sa.Table(
  'project',
  METADATA,
  sa.Column('id', sa.Integer, primary_key=True),
  sa.Column('task', sa.String(20), nullable=False),
  sa.Column('settings', sa.JSON, nullable=False),
  sa.Column('created', sa.Float, nullable=False),
)
# What is asked about: an image, a pair, or a prompt with its images.
ITEMS = sa.Table(
  'items',
  METADATA,
  sa.Column('id', sa.Integer, primary_key=True),
  sa.Column('uid', sa.Text, nullable=False, unique=True),
  sa.Column('position', sa.Integer, nullable=False),
  sa.Column('prompt', sa.Text, nullable=False),
  # A list of {uid, file, sha256, model}; the model may be ''.
  sa.Column('images', sa.JSON, nullable=False),
  # Whether it has all of its images.
  sa.Column('ready', sa.Boolean, nullable=False),
  # The annotator whose prompt it is; NULL for those of the table.
  sa.Column('asked_by', sa.Integer),
  # The only rater who is asked, from 1; NULL for anyone.
  sa.Column('rater', sa.Integer),
  # The known answer of a gold question.
  sa.Column('gold', sa.JSON(none_as_null=True)),
  sa.Column('prediction', sa.JSON(none_as_null=True)),
  # Higher comes first.
  sa.Column('priority', sa.Float, nullable=False),
  # Annotators who have completed it, without skips.
  sa.Column('completed', sa.Integer, nullable=False),
)
# In the order in which items are asked about.
sa.Index(
  'ix_items_order', ITEMS.c.priority.desc(), ITEMS.c.completed.desc(), ITEMS.c.position
)
ANNOTATORS = sa.Table(
  'annotators',
  METADATA,
  sa.Column('id', sa.Integer, primary_key=True),
  sa.Column('name', sa.String(80), nullable=False, unique=True),
  sa.Column('role', sa.String(20), nullable=False),
  sa.Column('invitation', sa.String(64), unique=True),
  sa.Column('rater', sa.Integer, unique=True),
  sa.Column('active', sa.Boolean, nullable=False),
  sa.Column('created', sa.Float, nullable=False),
)
SESSIONS = sa.Table(
  'sessions',
  METADATA,
  sa.Column('token', sa.String(64), primary_key=True),
  sa.Column('annotator', _reference('annotators.id'), nullable=False, index=True),
  sa.Column('csrf', sa.String(64), nullable=False),
  sa.Column('expires', sa.Float, nullable=False),
)
# Who works on what, until when, with the draft of the answer.
LEASES = sa.Table(
  'leases',
  METADATA,
  sa.Column('id', sa.Integer, primary_key=True),
  sa.Column('item', _reference('items.id'), nullable=False, index=True),
  # One task at a time.
  sa.Column('annotator', _reference('annotators.id'), nullable=False, unique=True),
  sa.Column('purpose', sa.String(20), nullable=False),
  sa.Column('turn', sa.Integer, nullable=False),
  sa.Column('started', sa.Float, nullable=False),
  sa.Column('expires', sa.Float, nullable=False),
  sa.Column('draft', sa.JSON(none_as_null=True)),
  # Whether a prediction is shown: '', 'start' or 'after'; see `settings`.
  sa.Column('assist', sa.String(20), nullable=False),
  # Otherwise SQLite would give the number of an old lease to a new one.
  sqlite_autoincrement=True,
)
ANSWERS = sa.Table(
  'answers',
  METADATA,
  sa.Column('id', sa.Integer, primary_key=True),
  # Chosen by the page, so that sending an answer again does not store it twice.
  sa.Column('key', sa.String(64), nullable=False, unique=True),
  sa.Column('item', _reference('items.id'), nullable=False),
  sa.Column('annotator', _reference('annotators.id'), nullable=False, index=True),
  sa.Column('purpose', sa.String(20), nullable=False),
  sa.Column('turn', sa.Integer, nullable=False),
  sa.Column('status', sa.String(20), nullable=False),
  sa.Column('value', sa.JSON, nullable=False),
  sa.Column('flag', sa.Text, nullable=False),
  sa.Column('assist', sa.String(20), nullable=False),
  sa.Column('seconds', sa.Float, nullable=False),
  sa.Column('created', sa.Float, nullable=False),
  sa.UniqueConstraint('item', 'annotator', 'purpose', 'turn'),
)
# Answers that their annotator has changed, as they were before.
REVISIONS = sa.Table(
  'revisions',
  METADATA,
  sa.Column('id', sa.Integer, primary_key=True),
  sa.Column('answer', _reference('answers.id'), nullable=False, index=True),
  sa.Column('status', sa.String(20), nullable=False),
  sa.Column('value', sa.JSON, nullable=False),
  sa.Column('seconds', sa.Float, nullable=False),
  sa.Column('created', sa.Float, nullable=False),
)
