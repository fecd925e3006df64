"""evomerge finds how to merge language models: it searches merge recipes and exports the best."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evomerge.archive.run import open_run
    from evomerge.controller.public import search
    from evomerge.evaluate.measure import measure
    from evomerge.merge.tensors import build_tensors, greedy_soup, merge_tensors
    from evomerge.mergekit.public import convert
    from evomerge.publish.evaluation import score
    from evomerge.publish.public import export
    from evomerge.recipe import Recipe
    from evomerge.space import load_space

__all__ = [
    "Recipe", "build_tensors", "convert", "export", "greedy_soup", "load_space", "measure",
    "merge_tensors", "open_run", "score", "search",
]  # fmt: skip

_HOMES = {
    "Recipe": "evomerge.recipe",
    "build_tensors": "evomerge.merge.tensors",
    "convert": "evomerge.mergekit.public",
    "export": "evomerge.publish.public",
    "greedy_soup": "evomerge.merge.tensors",
    "load_space": "evomerge.space",
    "measure": "evomerge.evaluate.measure",
    "merge_tensors": "evomerge.merge.tensors",
    "open_run": "evomerge.archive.run",
    "score": "evomerge.publish.evaluation",
    "search": "evomerge.controller.public",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: `import evomerge` alone loads nothing heavy."""
    if name not in _HOMES:
        raise AttributeError(f"module `evomerge` has no attribute `{name}`")
    return getattr(importlib.import_module(_HOMES[name]), name)
