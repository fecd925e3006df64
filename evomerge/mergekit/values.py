"""The parameters of a run of layers in mergekit's words: by filters where module groups differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evomerge import plugins
from evomerge.mergekit.findings import Findings
from evomerge.mergekit.gradients import at, changed, outside
from evomerge.mergekit.known import METHODS, to_theirs
from evomerge.mergekit.regions import Fragments, Run
from evomerge.parameters import Parameter, declared
from evomerge.recipe.layered import Filtered, Layered
from evomerge.recipe.merge import IN_LAYERS, Merge, Setting
from evomerge.space.document import KeyPath
from evomerge.types import Value

Told = tuple[dict[str, Any], dict[str, dict[str, Any]]]
"""The parameters of a slice, and those of each model in it."""


@dataclass(frozen=True, kw_only=True)
class Words:
    """What it takes to say a merge's parameters: its place in the recipe, and mergekit's words."""

    merge: Merge
    at: KeyPath
    theirs: Mapping[str, str]
    fragments: Fragments
    findings: Findings


def parameters_of(merge: Merge, run: Run, words: Words, *, embed: bool, head: bool) -> Told:
    """Return the parameters of a run in mergekit's words: those of the slice, and those by model.

    `embed` and `head` say whether what lies before and behind the layers takes its parameters from here.
    """
    modules = [*IN_LAYERS, *(["embed"] if embed else []), *(["head"] if head else [])]
    known = declared(plugins.load("methods", merge.method))
    overall: dict[str, Any] = {}
    each: dict[str, dict[str, Any]] = {source: {} for source in merge.sources}
    for name in {name: None for module in modules for name in run.regions[module]}:
        if name not in known:
            words.findings.wrong(None, (*words.at, name), f"is no parameter of `{merge.method}`")
        elif name not in words.theirs:
            _check_usual(name, known[name], [run.regions[module].get(name) for module in modules], words)
    for name, theirs in words.theirs.items():
        parameter = known[name]
        default = METHODS[merge.method].parameters[theirs].default
        settings = {module: run.regions[module].get(name) for module in modules}
        if any(isinstance(setting, Mapping) for setting in settings.values()):
            for source in merge.sources:
                own = {module: _of_source(setting, source) for module, setting in settings.items()}
                if (said := _said(own, parameter, theirs, words)) != default or default is None:
                    each[source][theirs] = said
        else:
            same = {
                module: setting for module, setting in settings.items() if not isinstance(setting, Mapping)
            }
            if (said := _said(same, parameter, theirs, words)) != default or default is None:
                overall[theirs] = said
    return overall, each


def _of_source(setting: Setting | None, source: str) -> Layered | None:
    return setting.get(source) if isinstance(setting, Mapping) else setting


def _said(settings: Mapping[str, Layered | None], parameter: Parameter, theirs: str, words: Words) -> Any:
    """Return a parameter of all module groups as one value, anchors, or filters."""
    usual = parameter.default(words.merge.compat)
    full = {module: usual if each is None else each for module, each in settings.items()}
    translated = {
        module: changed(each, lambda value: _their_value(value, parameter, theirs, words))
        for module, each in full.items()
    }
    rest = translated["rest"]
    entries: list[Filtered] = []
    ends = {"embed": 0.0, "head": 1.0}
    for module in ("embed", "head", "attn", "mlp"):
        if module not in translated:
            continue
        seen = outside(at(rest, ends[module])) if module in ends else rest
        if translated[module] == seen:
            continue
        entries += _filtered(translated[module], words.fragments.of(module), parameter, words)
    if not entries:
        return _plain(rest)
    tail = rest if isinstance(rest, tuple) and any(isinstance(each, Filtered) for each in rest) else None
    last = tail if tail is not None else (Filtered(value=rest),)  # type: ignore[arg-type]
    if tail is not None and any(
        module in translated and translated[module] != rest for module in ("attn", "mlp")
    ):
        _refused(parameter, words)
    return _plain((*entries, *last))


def _filtered(
    setting: Layered, fragments: tuple[str, ...], parameter: Parameter, words: Words
) -> list[Filtered]:
    if isinstance(setting, tuple) and any(isinstance(each, Filtered) for each in setting):
        _refused(parameter, words)
        return []
    return [Filtered(filter=part, value=setting) for part in fragments]  # type: ignore[arg-type]


def _refused(parameter: Parameter, words: Words) -> None:
    words.findings.wrong(
        None,
        (*words.at, "groups", parameter.name),
        "has filters inside a module group of its own, and mergekit has one level of filters",
    )


def _their_value(value: Value, parameter: Parameter, theirs: str, words: Words) -> Value:
    found = to_theirs(parameter, METHODS[words.merge.method].parameters[theirs], value)
    if found is None:
        words.findings.wrong(
            None, (*words.at, "params", parameter.name), f"is `{value}`, which mergekit has no word for"
        )
        return value
    return found


def _check_usual(name: str, parameter: Parameter, settings: list[Setting | None], words: Words) -> None:
    """Tell of a parameter that mergekit does not have, unless it is as it is unasked."""
    usual = parameter.default(words.merge.compat)
    for setting in settings:
        values = list(setting.values()) if isinstance(setting, Mapping) else [setting]
        if any(value not in (None, usual) for value in values):
            words.findings.wrong(
                None,
                (*words.at, "params", name),
                f"has no equal in mergekit's `{words.merge.method}`; leave it at {usual!r}",
            )
            return


def _plain(setting: Layered) -> Any:
    """Return a setting as YAML values."""
    if not isinstance(setting, tuple):
        return setting
    return [_entry(each) if isinstance(each, Filtered) else each for each in setting]


def _entry(entry: Filtered) -> dict[str, Any]:
    own = {} if entry.filter is None else {"filter": entry.filter}
    return {**own, "value": _plain(entry.value)}
