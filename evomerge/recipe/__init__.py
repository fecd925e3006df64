"""Recipes: exactly what to build, and nothing about how it was found."""

from evomerge.recipe.layer_swap import layer_swap
from evomerge.recipe.layered import Filtered, interpolated
from evomerge.recipe.merge import MODULES, Group, Merge
from evomerge.recipe.model import ModelRef, Recipe
from evomerge.recipe.path import Ends, Slot
from evomerge.recipe.stacks import cluster_centres, passthrough, shared_layers, without_layers
from evomerge.recipe.text import from_yaml, to_yaml

__all__ = [
    "MODULES", "Ends", "Filtered", "Group", "Merge", "ModelRef", "Recipe", "Slot", "cluster_centres",
    "from_yaml", "interpolated", "layer_swap", "passthrough", "shared_layers", "to_yaml", "without_layers",
]  # fmt: skip
