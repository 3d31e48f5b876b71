"""Trees of arrays by the paths of their leaves, such as 'vit/embedding/kernel'."""

from collections.abc import Callable
from typing import Any

import jax


def path_name(path: tuple) -> str:
  """Names a leaf alike for attributes, keys and indices, as Orbax stores them."""
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
