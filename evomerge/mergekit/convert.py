"""A file in the other form: what it is shows in its content, and so what it becomes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from evomerge.errors import ConversionError, RecipeError
from evomerge.mergekit.evolve import from_evolve
from evomerge.mergekit.reading import LayersOf, from_mergekit, no_layers
from evomerge.mergekit.regions import LLAMA, Fragments
from evomerge.mergekit.writing import to_mergekit
from evomerge.recipe import Recipe, from_yaml, to_yaml
from evomerge.space.document import read_documents

Form: TypeAlias = Literal["recipe", "mergekit", "space"]

_KINDS = {
    "mergekit": "a recipe of mergekit",
    "evolve": "a config of mergekit-evolve",
    "recipe": "a recipe of evomerge",
    "space": "a space of evomerge",
}
_BECOMES: dict[str, Form] = {"mergekit": "recipe", "evolve": "space", "recipe": "mergekit"}
_KIND = (
    "a file to convert is a table of keys: a recipe of evomerge or mergekit, or a config of mergekit-evolve"
)


@dataclass(frozen=True, kw_only=True)
class Converted:
    """A file in the other form: its text, which form that is, and notes worth telling."""

    text: str
    form: Form
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Around:
    """What is known of a recipe's models besides their names."""

    layers_of: LayersOf = no_layers
    fragments_of: Callable[[Recipe], Fragments] = lambda _: LLAMA
    depth_of: Callable[[Recipe], int | None] = lambda _: None
    adapted: Callable[[Recipe], Recipe] = lambda recipe: recipe
    """Returns the recipe with what each adapter adapts, where it does not say so itself."""


def convert_text(text: str, name: str, *, to: Form | None = None, around: Around | None = None) -> Converted:
    """Return the file `text`, called `name`, as a recipe, as mergekit's YAML or as a space.

    By default a recipe becomes mergekit's and the reverse, a config of mergekit-evolve a space. Raises
    `ConversionError` with a line for each key that cannot be converted, `RequestError` if it is none of
    these.
    """
    around = around or Around()
    kind = kind_of(text, name)
    form = _BECOMES.get(kind)
    if form is None or (to is not None and to != form):
        asked = f"to {_KINDS[to]}" if to is not None else "to anything"
        becomes = f"; it becomes {_KINDS[form]}" if form else ""
        raise ConversionError(f"{name} is {_KINDS[kind]}, which is not converted {asked}{becomes}")
    if form == "recipe":
        recipe, notes = from_mergekit(text, name, layers_of=around.layers_of)
        return Converted(text=to_yaml(recipe), form=form, notes=notes)
    if form == "space":
        space, notes = from_evolve(text, name, layers_of=around.layers_of)
        return Converted(text=space, form=form, notes=notes)
    try:
        recipe = around.adapted(from_yaml(text))
    except RecipeError as error:
        raise RecipeError(f"{name}: {error}") from error
    written, notes = to_mergekit(
        recipe, name, fragments=around.fragments_of(recipe), layers=around.depth_of(recipe)
    )
    return Converted(text=written, form=form, notes=notes)


def kind_of(text: str, name: str) -> str:
    """Return what a file is, by its keys. Raises `ConversionError` if it is nothing known here."""
    keys = {key for document in read_documents(text, name, _KIND) for key in document.content}
    if "genome" in keys:
        return "evolve"
    if "merge_method" in keys:
        return "mergekit"
    if "objectives" in keys:
        return "space"
    if "merges" in keys or "path" in keys:
        return "recipe"
    raise ConversionError(
        f"{name} is neither {', '.join(list(_KINDS.values())[:2])} nor {_KINDS['recipe']}: it has none of "
        "`merge_method`, `genome`, `merges` and `path`"
    )
