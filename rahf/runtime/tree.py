"""Handles trees of arrays by leaf path, such as 'vit/embedding/kernel'."""

from collections.abc import Callable
from typing import Any

import jax


def path_name(path: tuple) -> str:
  """Returns a leaf's path; attributes, keys and indices look alike, as in Orbax."""
  return jax.tree_util.keystr(path, simple=True, separator='/')


def by_path(tree: Any) -> dict[str, Any]:
  """Maps the path of each leaf to the leaf."""
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {path_name(path): leaf for path, leaf in leaves}


def map_paths(function: Callable[[str], Any], tree: Any) -> Any:
  """Returns a tree of the same shape with `function(path)` at each leaf."""
  return jax.tree_util.tree_map_with_path(
    lambda path, _: function(path_name(path)), tree
  )
