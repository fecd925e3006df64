"""Recipes: exactly what to build, and nothing about how it was found."""

from evomerge.recipe.layered import Filtered, interpolated
from evomerge.recipe.model import MODULES, Group, Merge, ModelRef, Recipe
from evomerge.recipe.path import Ends, Slot
from evomerge.recipe.text import from_yaml, to_yaml

__all__ = [
    "MODULES", "Ends", "Filtered", "Group", "Merge", "ModelRef", "Recipe", "Slot", "from_yaml",
    "interpolated", "to_yaml",
]  # fmt: skip
