"""mergekit's parameters of a slice in the words of a merge: each level's, by source, over our defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from evomerge.errors import unknown
from evomerge.mergekit.findings import Findings
from evomerge.mergekit.form import Config, Input, Parameters, Slice
from evomerge.mergekit.gradients import at, changed, composed, outside
from evomerge.mergekit.known import COMPAT, METHODS, NO_EFFECT, WORDS, Theirs, ours, settled, to_ours
from evomerge.parameters import Choice, Parameter
from evomerge.recipe.layered import Layered
from evomerge.recipe.merge import Setting
from evomerge.space.document import KeyPath
from evomerge.types import Value

Settings: TypeAlias = dict[str, Setting]


def settings_of(config: Config, part: Slice, sources: Mapping[str, Input], findings: Findings) -> Settings:
    """Return the parameters of a slice whose merged models are `sources`, by our names.

    What is as our method has it unasked is left out.
    """
    known = METHODS[config.method].parameters
    _check_names(config, part, sources, findings)
    found: Settings = {}
    for word, theirs in known.items():
        parameter = ours(config.method, word)
        setting: Setting | None
        if theirs.each:
            setting = _by_source(config, part, sources, word, theirs, findings)
        else:
            setting = _settled(config, part, None, word, theirs, findings)
        if setting is not None:
            setting = _translated(setting, parameter)
            if not _as_usual(setting, parameter):
                found[parameter.name] = setting
    return found


def at_ends(settings: Mapping[str, Setting], depth: float) -> Settings:
    """Return the settings as they are before the first layer (depth 0) or behind the last (1)."""
    return {
        name: {source: outside(at(each, depth)) for source, each in setting.items()}
        if isinstance(setting, Mapping)
        else outside(at(setting, depth))
        for name, setting in settings.items()
    }


def _by_source(
    config: Config,
    part: Slice,
    sources: Mapping[str, Input],
    word: str,
    theirs: Theirs,
    findings: Findings,
) -> Setting | None:
    """Return one setting for all sources where they agree, else one for each."""
    each = {name: _settled(config, part, model, word, theirs, findings) for name, model in sources.items()}
    values = list(each.values())
    if all(value == values[0] for value in values):
        return values[0]
    return {name: value for name, value in each.items() if value is not None}


def _settled(
    config: Config, part: Slice, model: Input | None, word: str, theirs: Theirs, findings: Findings
) -> Layered | None:
    """Return what the levels say of a parameter, or mergekit's default."""
    own = model.parameters if model else {}
    levels = [level.get(word) for level in (own, part.parameters, config.parameters)]
    found, everywhere = composed(levels, theirs.default)
    if found is None and theirs.default is not None:
        return theirs.default
    where = _place(config, part, model, word)
    if found is None:
        findings.wrong(config.document, where, f"is missing: mergekit's `{config.method}` needs it")
    elif not everywhere:
        findings.wrong(
            config.document,
            where,
            "leaves tensors that no filter matches without a value, and mergekit needs one; add `- value: …` "
            "as the last entry",
        )
    return found


def _place(config: Config, part: Slice, model: Input | None, word: str) -> KeyPath:
    levels: list[tuple[KeyPath, Parameters]] = [(part.where, part.parameters), ((), config.parameters)]
    if model is not None:
        levels.insert(0, (model.where, model.parameters))
    for path, parameters in levels:
        if word in parameters:
            return (*path, "parameters", word)
    return (*(model.where if model else part.where if not config.whole else ()), "parameters", word)


def _check_names(config: Config, part: Slice, sources: Mapping[str, Input], findings: Findings) -> None:
    """Tell of parameters that mergekit would not read where they stand."""
    known = METHODS[config.method].parameters
    levels: list[tuple[KeyPath, Parameters, bool]] = [
        ((), config.parameters, False),
        (part.where, part.parameters, False),
        *((model.where, model.parameters, True) for model in sources.values()),
    ]
    for path, parameters, own in levels:
        for word, value in parameters.items():
            at_key: KeyPath = (*path, "parameters", word)
            if word in known:
                if own and not known[word].each:
                    findings.note(at_key, "is not read by mergekit from a single model and left out")
            elif word in NO_EFFECT:
                findings.note(at_key, "changes nothing in the result and is left out")
            elif word in ("rescale", "embed_slerp") and value is not False:
                findings.wrong(config.document, at_key, f"is not converted: `{config.method}` has none here")
            elif word in WORDS or word == "embed_slerp":
                findings.note(at_key, f"is not read by mergekit's `{config.method}` and left out")
            else:
                words = (*known, *NO_EFFECT)
                findings.wrong(config.document, at_key, f"is unknown: {unknown('parameter', word, words)}")


def _translated(setting: Setting, parameter: Parameter) -> Setting:
    def change(value: Value) -> Value:
        return to_ours(parameter, value)

    if isinstance(setting, Mapping):
        return {source: changed(each, change) for source, each in setting.items()}
    return changed(setting, change)


def _as_usual(setting: Setting, parameter: Parameter) -> bool:
    """Return whether our method has the parameter so where nobody says."""
    if isinstance(setting, Mapping | tuple):
        return False
    if isinstance(setting, bool | str) and not isinstance(parameter.spec, Choice):
        return False
    return bool(settled(parameter, setting) == settled(parameter, parameter.default(COMPAT)))
