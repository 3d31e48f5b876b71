"""Values and files that come from outside: paths, JSON, locks, atomic writes."""
