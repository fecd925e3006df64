"""Plug-ins by (kind, name): a file of that name in the kind's package, or an entry point.

A file `evomerge/merge/methods/ties.py` that defines `METHOD` *is* the method `ties`; nothing is
registered. Other distributions add plug-ins under the entry-point group `evomerge.KIND`.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import pkgutil
from functools import cache
from typing import Any

from evomerge.errors import PluginError, unknown

KINDS = {
    "methods": ("evomerge.merge.methods", "METHOD", "merge method"),
    "samplers": ("evomerge.controller.samplers", "SAMPLER", "sampler"),
}


@cache
def names(kind: str) -> tuple[str, ...]:
    """Return the names of every plug-in of `kind`, sorted."""
    package = importlib.import_module(KINDS[kind][0])
    files = {module.name for module in pkgutil.iter_modules(package.__path__)}
    return tuple(sorted(files | set(_entry_points(kind))))


@cache
def load(kind: str, name: str) -> Any:
    """Return the plug-in `name` of `kind`. Raises `PluginError` if there is none."""
    package, attribute, noun = KINDS[kind]
    if name not in names(kind):
        raise PluginError(unknown(noun, name, names(kind)))
    outside = _entry_points(kind)
    if name in outside:
        return outside[name].load()
    return getattr(importlib.import_module(f"{package}.{name}"), attribute)


def _entry_points(kind: str) -> dict[str, importlib.metadata.EntryPoint]:
    return {point.name: point for point in importlib.metadata.entry_points(group=f"evomerge.{kind}")}
