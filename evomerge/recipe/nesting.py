"""Merges that read other merges: in which order they are made, and which of them nothing reads."""

from __future__ import annotations

from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from typing import TypeAlias

from evomerge.errors import RecipeError

Reads: TypeAlias = Mapping[str, tuple[str, ...]]
"""For each merge the merges that it reads."""


def ordered(reads: Reads) -> tuple[str, ...]:
    """Return the merges, each after those that it reads. Raises `RecipeError` for a circle."""
    try:
        return tuple(TopologicalSorter(reads).static_order())
    except CycleError as error:
        first, *others = (f"`{name}`" for name in reversed(error.args[1]))
        circle = f"{first} reads {', which reads '.join(others)}"
        raise RecipeError(f"merges cannot read one another in a circle, and {circle}") from error


def unread(reads: Reads) -> tuple[str, ...]:
    """Return the merges that no other merge reads."""
    read = {each for names in reads.values() for each in names}
    return tuple(name for name in reads if name not in read)


def behind(merge: str, reads: Reads) -> tuple[str, ...]:
    """Return `merge` and the merges it is made of, each once."""
    found = {merge: None}
    for name in (waiting := [merge]):
        new = [each for each in reads[name] if each not in found]
        found |= dict.fromkeys(new)
        waiting += new
    return tuple(found)
