"""The numbers of an evaluation: per example, as tables, and compared with others."""
