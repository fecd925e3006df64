"""The example in the guide for people who come from mergekit is what the conversion makes of it."""

from __future__ import annotations

import re
from pathlib import Path

from evomerge.mergekit.evolve import _FILTERS
from evomerge.mergekit.reading import from_mergekit
from evomerge.recipe import to_yaml

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "coming-from-mergekit.md"


def test_the_example_is_converted_as_it_says() -> None:
    theirs, ours = re.findall(r"```yaml\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    recipe, notes = from_mergekit(theirs, layers_of=lambda model: 6)
    assert notes == ()
    assert to_yaml(recipe) == ours


def test_the_filters_it_names_are_known() -> None:
    assert {"self_attn", "mlp"} <= set(_FILTERS)
