"""A recipe in mergekit's words for the folder of an export, where mergekit has words for all of it."""

from __future__ import annotations

from evomerge.checkpoints.architecture import read_architecture
from evomerge.checkpoints.folder import Checkpoint
from evomerge.errors import CheckpointError, ConversionError
from evomerge.mergekit.public import fragments_in
from evomerge.mergekit.writing import to_mergekit
from evomerge.recipe import Recipe


def mergekit_recipe(recipe: Recipe, template: Checkpoint) -> str | None:
    """Return the recipe as mergekit's YAML with comments on where its result differs; None if there is none.

    Module groups are told apart by the names of the `template`'s tensors. mergekit merges a model that sees
    by other rules, so there is none for it.
    """
    try:
        structure = read_architecture(template.specs, template.config)
        if structure.tower is not None:
            return None
        fragments = fragments_in(list(template.specs), structure)
        text, notes = to_mergekit(recipe, fragments=fragments, layers=structure.layers)
    except (ConversionError, CheckpointError):
        return None
    lines = ["Written by evomerge beside recipe.yaml, which alone makes this very model.", *notes]
    local = [name for name, ref in recipe.models.items() if not {"/", ":"} & {*ref.source}]
    if local:
        lines.append(f"Give the folders of {', '.join(local)} in the place of their names.")
    return "".join(f"# {line}\n" for line in lines) + text
