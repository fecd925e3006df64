"""From a space file to a validated `Space`; every mistake with its key and line."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml
from pydantic import ValidationError

from evomerge import plugins
from evomerge.errors import PluginError, SpaceError, unknown
from evomerge.merge.method import taken
from evomerge.parameters import Choice, Gene, declared, said
from evomerge.reading import read_text
from evomerge.space.document import Document, KeyPath, read_document
from evomerge.space.mistakes import mistakes
from evomerge.space.paths.form import MERGED, Stack, listed
from evomerge.space.paths.layer_swap import LayerSwap
from evomerge.space.schema import PathSpace, Space
from evomerge.space.tables import GeneRange, Range

LARGEST = 1 << 20
"""Bytes of a space: far above any real one, and below what takes long to read."""

_NO_CHANGES: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class SpaceFile:
    """A space and the file it stands in; `changes` are the keys that are not as in its `text`."""

    space: Space
    path: Path
    text: str
    changes: Mapping[str, Any]
    document: Document


def load_space(path: str | Path, changes: Mapping[str, Any] = _NO_CHANGES) -> Space:
    """Return the space in the file `path`, with `changes` in the place of its own keys.

    Raises `SpaceError` listing every mistake found.
    """
    return read_space(Path(path), changes).space


def read_space(path: Path, changes: Mapping[str, Any] = _NO_CHANGES) -> SpaceFile:
    """Return the space in the file `path` together with what messages about it need.

    Raises `SpaceError` listing every mistake found.
    """
    if not path.is_file():
        raise SpaceError(f"no space file at {path}")
    try:
        text = read_text(path, most=LARGEST)
    except OSError as error:
        raise SpaceError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SpaceError(f"{path} cannot be read as text: {error}") from error
    document = read_document(text, str(path)).but(changes)
    return SpaceFile(space=_validated(document), path=path, text=text, changes=changes, document=document)


def stated_space(space: Space, changes: Mapping[str, Any] = _NO_CHANGES) -> SpaceFile:
    """Return a space that stands in no file as if it did; its paths start from the working directory.

    Raises `SpaceError` if the `changes` are mistaken.
    """
    own = space.model_dump(mode="json", exclude_none=True)
    content = {**own, **changes}
    document = Document(name=space.name, content=content, lines={}, replaced=frozenset(content))
    return SpaceFile(
        space=_validated(document),
        path=Path(f"{space.name}.yaml"),
        text=yaml.safe_dump(own, sort_keys=False, allow_unicode=True),
        changes=changes,
        document=document,
    )


def parse_space(text: str, name: str = "space.yaml") -> Space:
    """Return the space written in `text`; `name` stands in error messages and names the space."""
    return _validated(read_document(text, name))


def _validated(document: Document) -> Space:
    content = dict(document.content)
    if "merge_method" in content:
        raise SpaceError(
            f"{document.where(('merge_method',))}: this is a recipe of mergekit, which says what to merge; "
            "a space says what to search (see search_spaces/ for examples)"
        )
    own_name = re.sub(r"[^A-Za-z0-9_.\-]", "-", Path(document.name).stem).lstrip(".-")
    content.setdefault("name", own_name or "space")
    try:
        space = Space.model_validate(content)
    except ValidationError as error:
        raise _all(document, mistakes(content, error, Space)) from error
    if found := list(_contradictions(space)):
        raise _all(document, found)
    return space


def _all(document: Document, found: Iterable[tuple[KeyPath, str]]) -> SpaceError:
    """Return the error that lists every mistake, in the order of the file's lines."""
    ordered = sorted(found, key=lambda mistake: document.line(mistake[0]))
    said = (f"{document.where(path)} {what}".replace("\n", "\\n") for path, what in ordered)
    return SpaceError("\n".join(said))


def _contradictions(space: Space) -> Iterator[tuple[KeyPath, str]]:
    """Yield what each key alone could not show: names that lead nowhere, genes no method has."""
    single = (("base", space.merge.base), ("template", space.merge.template))
    named = [(("merge", key), name) for key, name in single if name]
    listed = space.merge.sources or []
    named += [(("merge", "sources", i), name) for i, name in enumerate(listed)]  # type: ignore[misc]
    named += [
        (("sources", name, "adapts"), source.adapts)  # type: ignore[misc]
        for name, source in space.sources.items()
        if source.adapts is not None
    ]
    for path, name in named:
        if name not in space.sources:
            yield path, _unknown("source", name, space.sources)
    used = [*space.merged, *([space.merge.base] if space.merge.base else [])]
    if space.tokenizer not in (None, "base", "union", *used):
        known = ["base", "union", *used]
        yield ("tokenizer",), _unknown("tokenizer", str(space.tokenizer), dict.fromkeys(known))
    if not space.merged:
        yield ("sources",), "leaves nothing to merge: name at least one source besides the base"
    if space.merges:
        yield from _method_mistakes(space)
    yield from _path_mistakes(space)
    yield from _measure_mistakes(space)


def _unknown(what: str, asked: str, known: Iterable[str]) -> str:
    return f"is unknown: {unknown(what, asked, known)}"


def _method_mistakes(space: Space) -> Iterator[tuple[KeyPath, str]]:
    specs: dict[str, list[Gene | Choice]] = defaultdict(list)
    all_known = True
    for i, name in enumerate(space.merge.methods):
        path: KeyPath = (
            ("merge", "method", i) if isinstance(space.merge.method, list) else ("merge", "method")
        )
        try:
            method = plugins.load("methods", name)
        except PluginError as error:
            yield path, f"is unknown: {error}"
            all_known = False
            continue
        for key, parameter in declared(method).items():
            specs[key].append(parameter.spec)
        yield from _fit(space, name, method)
    for gene, value in space.merge.genes.items() if all_known else ():
        path = ("merge", "genes", gene)
        if gene not in specs:
            yield path, _unknown("parameter", gene, specs)
        elif wrong := next(filter(None, (_misfit(spec, value) for spec in specs[gene])), None):
            yield path, wrong


def _path_mistakes(space: Space) -> Iterator[tuple[KeyPath, str]]:
    """Yield models of the path that are not there, and genes that are searched by nothing."""
    if space.path is None:
        return
    known = [*space.sources, MERGED]
    if MERGED in space.sources:
        yield (
            ("sources", MERGED),
            "is what a path calls the space's own merge; give the source another name",
        )
    for key in ("models", "embed", "head", "task", "language"):
        names = getattr(space.path, key, None)
        for i, name in enumerate(listed(names)):
            if name not in known:
                yield (
                    ("path", key) if isinstance(names, str) else ("path", key, i),
                    _unknown("model", name, known),
                )
    if space.merge.genes and not space.merges:
        yield (
            ("merge", "genes"),
            "are searched by nothing: the path takes no layer from `merged`; list it in `path.models`",
        )
    if isinstance(space.path, LayerSwap) and not space.path.roles(space.path_models):
        yield ("path",), "needs two models to swap layers of, one for `task` and another for `language`"
    if space.merge.template is not None and not isinstance(space.path, LayerSwap):
        yield ("merge", "template"), "says nothing of stacks, which have the form of their embedding's model"
    if space.tokenizer is not None:
        yield from _word_mistakes(space, space.path)


def _word_mistakes(space: Space, path: PathSpace) -> Iterator[tuple[KeyPath, str]]:
    """Yield why tokens cannot be matched along the path: that is done to models, as they are merged."""
    first = space.path_models[:1]
    if isinstance(path, LayerSwap) and space.merges:
        yield (
            ("tokenizer",),
            f"matches the tokens of models, but the path swaps layers of the merge `{MERGED}`; leave one out",
        )
    elif isinstance(path, Stack) and {*(listed(path.embed) or first), *(listed(path.head) or first)} != {
        MERGED
    }:
        yield (
            ("tokenizer",),
            f"matches the tokens of what is merged, so a path needs its ends: set `embed: {MERGED}` and "
            f"`head: {MERGED}` under `path`",
        )


def _fit(space: Space, name: str, method: Any) -> Iterator[tuple[KeyPath, str]]:
    allowed = taken(method, len(space.merged))
    baseless = method.base == "needed" and space.merge.base is None
    if baseless:
        names = ", ".join(space.sources)
        yield ("merge",), f"needs `base`, which `{name}` merges the sources into: name one of {names}"
    # naming a base takes it off the sources; none at all is told of elsewhere
    counted = bool(space.merged) and (space.merge.sources is not None or not baseless)
    if counted and allowed:
        besides = " besides the base" if method.base == "needed" else ""
        yield (
            ("merge", "sources"),
            f"must name {allowed}{besides}, as `{name}` merges no more and no fewer, "
            f"found {len(space.merged)} ({', '.join(space.merged)})",
        )
    if space.merge.compat not in method.compats:
        yield ("merge", "compat"), _unknown(f"compat of `{name}`", space.merge.compat, method.compats)


def _misfit(spec: Gene | Choice, value: GeneRange) -> str | None:
    """Return why `value` cannot be the range of a parameter, or None."""
    listed = value if isinstance(value, list) else [] if isinstance(value, Range) else [value]
    if value == []:
        return "must not be empty: list what to choose from"
    if len(set(listed)) < len(listed):
        return f"must list each option once, found {said(listed)}"
    if isinstance(spec, Choice):
        known = said(spec.options)
        if isinstance(value, Range):
            return f"has no range: list some of {known}, or give one"
        options = {(type(each), each) for each in spec.options}  # 1 is not `true`
        bad = [each for each in listed if (type(each), each) not in options]
        return f"must be among {known}, found {said(bad)}" if bad else None
    if any(isinstance(each, bool | str) or not math.isfinite(each) for each in listed):
        return f"must be a number, a list of numbers or {{low, high}}, found {said(listed)}"
    ends = (value.low, value.high) if isinstance(value, Range) else tuple(map(float, listed))
    if min(ends) < spec.least:
        return f"must be at least {spec.least:g}, found {min(ends):g}"
    return f"must be at most {spec.most:g}, found {max(ends):g}" if max(ends) > spec.most else None


def _measure_mistakes(space: Space) -> Iterator[tuple[KeyPath, str]]:
    names: dict[str, str] = {}
    stated: dict[tuple[str | None, ...], str] = {}
    for kind, measures in space.measured.items():
        for i, measure in enumerate(measures):
            what, place = (measure.task, measure.metric, measure.filter), f"{kind}[{i}]"
            name = measure_name(space, kind, i)
            if kind == "held_out" and what in stated:
                yield (kind, i), f"is what {stated[what]} measures, so nothing is held out; leave one out"
            elif name in names:
                yield (kind, i), f"is named `{name}` like {names[name]}; give it a `name` of its own"
            names[name] = place
            if kind != "held_out":
                stated[what] = place


def measure_name(space: Space, kind: str, index: int) -> str:
    """Return the name of a measure: its own, else its task, with the metric if others ask the same task."""
    mine = space.measured[kind][index]
    if mine.name:
        return mine.name
    measures = [each for measures in space.measured.values() for each in measures]
    shared = sum(other.task == mine.task for other in measures) > 1
    parts = [mine.task, mine.metric, mine.filter] if shared else [mine.task]
    return "_".join(part for part in parts if part)
