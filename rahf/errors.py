"""What a user can mend."""


class InputError(ValueError):
  """What was given cannot be used: a config, a file, an argument.

  The message says what, where and what to do. Commands print it without a traceback;
  any other exception but an OSError is a bug, and its traceback says where.
  """
