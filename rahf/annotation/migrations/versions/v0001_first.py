"""The first version of the store."""

import sqlalchemy as sa
from alembic import op

revision = '0001'
down_revision = None


def upgrade() -> None:
  """Creates the tables."""
  op.create_table(
    'annotators',
    sa.Column('id', sa.Integer(), nullable=False),
    sa.Column('name', sa.String(length=80), nullable=False),
    sa.Column('role', sa.String(length=20), nullable=False),
    sa.Column('invitation', sa.String(length=64), nullable=True),
    sa.Column('rater', sa.Integer(), nullable=True),
    sa.Column('active', sa.Boolean(), nullable=False),
    sa.Column('created', sa.Float(), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_annotators')),
    sa.UniqueConstraint('invitation', name=op.f('uq_annotators_invitation')),
    sa.UniqueConstraint('name', name=op.f('uq_annotators_name')),
    sa.UniqueConstraint('rater', name=op.f('uq_annotators_rater')),
  )
  op.create_table(
    'items',
    sa.Column('id', sa.Integer(), nullable=False),
    sa.Column('uid', sa.Text(), nullable=False),
    sa.Column('position', sa.Integer(), nullable=False),
    sa.Column('prompt', sa.Text(), nullable=False),
    sa.Column('images', sa.JSON(), nullable=False),
    sa.Column('ready', sa.Boolean(), nullable=False),
    sa.Column('asked_by', sa.Integer(), nullable=True),
    sa.Column('rater', sa.Integer(), nullable=True),
    sa.Column('gold', sa.JSON(), nullable=True),
    sa.Column('prediction', sa.JSON(), nullable=True),
    sa.Column('priority', sa.Float(), nullable=False),
    sa.Column('completed', sa.Integer(), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_items')),
    sa.UniqueConstraint('uid', name=op.f('uq_items_uid')),
  )
  op.create_index(
    'ix_items_order',
    'items',
    [sa.text('priority DESC'), sa.text('completed DESC'), 'position'],
    unique=False,
  )
  op.create_table(
    'project',
    sa.Column('id', sa.Integer(), nullable=False),
    sa.Column('task', sa.String(length=20), nullable=False),
    sa.Column('settings', sa.JSON(), nullable=False),
    sa.Column('created', sa.Float(), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_project')),
  )
  op.create_table(
    'answers',
    sa.Column('id', sa.Integer(), nullable=False),
    sa.Column('key', sa.String(length=64), nullable=False),
    sa.Column('item', sa.Integer(), nullable=False),
    sa.Column('annotator', sa.Integer(), nullable=False),
    sa.Column('purpose', sa.String(length=20), nullable=False),
    sa.Column('turn', sa.Integer(), nullable=False),
    sa.Column('status', sa.String(length=20), nullable=False),
    sa.Column('value', sa.JSON(), nullable=False),
    sa.Column('flag', sa.Text(), nullable=False),
    sa.Column('assist', sa.String(length=20), nullable=False),
    sa.Column('seconds', sa.Float(), nullable=False),
    sa.Column('created', sa.Float(), nullable=False),
    sa.ForeignKeyConstraint(
      ['annotator'],
      ['annotators.id'],
      name=op.f('fk_answers_annotator_annotators'),
      ondelete='RESTRICT',
    ),
    sa.ForeignKeyConstraint(
      ['item'], ['items.id'], name=op.f('fk_answers_item_items'), ondelete='RESTRICT'
    ),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_answers')),
    sa.UniqueConstraint(
      'item',
      'annotator',
      'purpose',
      'turn',
      name=op.f('uq_answers_item_annotator_purpose_turn'),
    ),
    sa.UniqueConstraint('key', name=op.f('uq_answers_key')),
  )
  op.create_index(op.f('ix_answers_annotator'), 'answers', ['annotator'], unique=False)
  op.create_table(
    'leases',
    sa.Column('id', sa.Integer(), nullable=False),
    sa.Column('item', sa.Integer(), nullable=False),
    sa.Column('annotator', sa.Integer(), nullable=False),
    sa.Column('purpose', sa.String(length=20), nullable=False),
    sa.Column('turn', sa.Integer(), nullable=False),
    sa.Column('started', sa.Float(), nullable=False),
    sa.Column('expires', sa.Float(), nullable=False),
    sa.Column('draft', sa.JSON(), nullable=True),
    sa.Column('assist', sa.String(length=20), nullable=False),
    sa.ForeignKeyConstraint(
      ['annotator'],
      ['annotators.id'],
      name=op.f('fk_leases_annotator_annotators'),
      ondelete='RESTRICT',
    ),
    sa.ForeignKeyConstraint(
      ['item'], ['items.id'], name=op.f('fk_leases_item_items'), ondelete='RESTRICT'
    ),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_leases')),
    sa.UniqueConstraint('annotator', name=op.f('uq_leases_annotator')),
    sqlite_autoincrement=True,
  )
  op.create_index(op.f('ix_leases_item'), 'leases', ['item'], unique=False)
  op.create_table(
    'sessions',
    sa.Column('token', sa.String(length=64), nullable=False),
    sa.Column('annotator', sa.Integer(), nullable=False),
    sa.Column('csrf', sa.String(length=64), nullable=False),
    sa.Column('expires', sa.Float(), nullable=False),
    sa.ForeignKeyConstraint(
      ['annotator'],
      ['annotators.id'],
      name=op.f('fk_sessions_annotator_annotators'),
      ondelete='RESTRICT',
    ),
    sa.PrimaryKeyConstraint('token', name=op.f('pk_sessions')),
  )
  op.create_index(
    op.f('ix_sessions_annotator'), 'sessions', ['annotator'], unique=False
  )
  op.create_table(
    'revisions',
    sa.Column('id', sa.Integer(), nullable=False),
    sa.Column('answer', sa.Integer(), nullable=False),
    sa.Column('status', sa.String(length=20), nullable=False),
    sa.Column('value', sa.JSON(), nullable=False),
    sa.Column('seconds', sa.Float(), nullable=False),
    sa.Column('created', sa.Float(), nullable=False),
    sa.ForeignKeyConstraint(
      ['answer'],
      ['answers.id'],
      name=op.f('fk_revisions_answer_answers'),
      ondelete='RESTRICT',
    ),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_revisions')),
  )
  op.create_index(op.f('ix_revisions_answer'), 'revisions', ['answer'], unique=False)
