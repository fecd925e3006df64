"""Where a source comes from that evomerge itself has made: the recipe in its folder, and so on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from evomerge.archive.folder import MADE_FILE
from evomerge.errors import RecipeError
from evomerge.recipe import Recipe, from_yaml
from evomerge.recipe.text import RECIPE_FILE

_HUB_ID = re.compile(r"\w[\w.\-]*/\w[\w.\-]*", re.ASCII)


def on_hub(source: str) -> bool:
    """Return whether a source is a hub id, given that folders have absolute paths."""
    return _HUB_ID.fullmatch(source) is not None


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The recipe that made a model, and the origins of its models as far as they are known here."""

    recipe: Recipe
    origins: Mapping[str, Origin]

    def sources(self) -> Iterator[str]:
        """Yield what it was made of in the end, models that are themselves made left out."""
        yield from sources(self.recipe, self.origins)


def sources(recipe: Recipe, origins: Mapping[str, Origin]) -> Iterator[str]:
    """Yield the sources of the recipe's models, for those that were made what they were made of."""
    for name in recipe.used:
        if name in origins:
            yield from origins[name].sources()
        else:
            yield recipe.models[name].source


def origins_of(
    recipe: Recipe, folders: Mapping[str, Path], above: frozenset[Path] = frozenset()
) -> dict[str, Origin]:
    """Return the origins of those models in `folders` that evomerge made; `above` are not looked at again."""
    found: dict[str, Origin] = {}
    for name in recipe.used:
        ref = recipe.models[name]
        folder = folders.get(name, Path(ref.source))
        if on_hub(ref.source) or not folder.is_absolute() or folder in above:
            continue
        made = _made_by(folder, ref.digest)
        if made is not None:
            found[name] = Origin(recipe=made, origins=origins_of(made, {}, above | {folder}))
    return found


def _made_by(folder: Path, digest: str | None) -> Recipe | None:
    """Return the recipe in a folder, unless it is known to have made a model of another content."""
    try:
        made = folder / MADE_FILE
        if made.is_file() and json.loads(made.read_text(encoding="utf-8"))["digest"] != digest:
            return None
        return from_yaml((folder / RECIPE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError, RecipeError):
        return None  # a card tells what it can
