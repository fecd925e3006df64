"""What a merge method declares of its parameters: name, range, default and meaning, stated once.

A method is a frozen dataclass whose fields are its parameters::

    weight: Annotated[PerSource, Gene(low=0.0, high=1.5, default=1.0, meaning="share of each task vector")]

Spaces, samplers, help texts and docs read the declaration through `declared`; nothing repeats it.
A field whose Python name ends in an underscore (`lambda_`) is spelled without it everywhere else.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from types import MappingProxyType
from typing import Annotated, Any, SupportsFloat, TypeAlias, get_args, get_origin, get_type_hints

from evomerge.errors import MergeError, unknown
from evomerge.types import Value

PerSource: TypeAlias = tuple[float, ...]
"""One number per source, in the order of the sources."""


@dataclass(frozen=True, kw_only=True)
class Gene:
    """A number a search may vary. `searched` says whether it does so unasked."""

    low: float
    high: float
    default: float
    meaning: str
    searched: bool = True
    least: float = -math.inf
    """What it may not go below: there the parameter means nothing, whatever a space says."""
    most: float = math.inf
    """What it may not exceed: beyond this more changes nothing, or means nothing."""
    also: Mapping[str, Callable[[float], float]] = field(default_factory=dict)
    """Other words for it in the literature, each with the conversion to ours."""
    whole: bool = False
    """One value for the whole model: groups of layers or modules cannot have their own."""
    grain: float = 0.0
    """Numbers this close together give merges that nobody can tell apart; 0 where nothing is known."""
    under: Mapping[str, float] = field(default_factory=dict)
    """The default under the semantics of another implementation (by `compat`), where it differs."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A named alternative (a bool or a word); searched only on request."""

    options: tuple[Value, ...]
    default: Value
    meaning: str
    searched: bool = False
    also: Mapping[Value, Value] = field(default_factory=dict)
    """Other words for an option, each with ours."""
    words: tuple[str, ...] = ()
    """Other words for the parameter itself."""
    whole: bool = False
    """One value for the whole model: groups of layers or modules cannot have their own."""
    under: Mapping[str, Value] = field(default_factory=dict)
    """The default under the semantics of another implementation (by `compat`), where it differs."""


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One declared parameter of a method."""

    name: str
    field: str
    per_source: bool
    spec: Gene | Choice

    def default(self, compat: str) -> Value:
        """Return what it is where nobody says, under the semantics of `compat`."""
        return self.spec.under.get(compat, self.spec.default)


def declared(method: type[Any]) -> Mapping[str, Parameter]:
    """Return the parameters of `method` by name, in the order they are declared."""
    return _declared(method)  # type: ignore[arg-type]  # to mypy `type[Any]` is not hashable


@cache
def _declared(method: Any) -> Mapping[str, Parameter]:
    hints = get_type_hints(method, include_extras=True)
    found = {}
    for entry in dataclasses.fields(method):
        hint = hints[entry.name]
        if get_origin(hint) is not Annotated:
            continue
        kind, spec = get_args(hint)[:2]
        name = entry.name.rstrip("_")
        found[name] = Parameter(name=name, field=entry.name, per_source=kind == PerSource, spec=spec)
    return MappingProxyType(found)


def bind(method: type[Any], values: Mapping[str, Any], sources: int, *, compat: str) -> Any:
    """Return `method` with its parameters set: `values` where given, else the declared defaults.

    A single number for a per-source parameter stands for every source. Raises `MergeError` for an
    unknown name, a sequence of the wrong length, or a value the parameter cannot have.
    """
    known, given = declared(method), _translated(method, values)
    arguments: dict[str, Any] = {}
    for name, parameter in known.items():
        value = given.pop(name, parameter.default(compat))
        arguments[parameter.field] = _checked(parameter, value, sources)
    if given:
        raise MergeError(unknown("parameter", next(iter(given)), known))
    if compat not in method.compats:
        raise MergeError(unknown("compat of this method", compat, method.compats))
    return method(**arguments, compat=compat)


def _translated(method: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return `values` in our words: each synonym a parameter declares replaced by its name."""
    ours = dict(values)
    for name, parameter in declared(method).items():
        spec = parameter.spec
        for word in spec.also if isinstance(spec, Gene) else spec.words:
            if word not in ours:
                continue
            if name in ours:
                raise MergeError(f"`{word}` is another word for `{name}`; give one of them, not both")
            theirs = ours.pop(word)
            ours[name] = _converted(spec, word, theirs) if isinstance(spec, Gene) else theirs
    return ours


def _converted(spec: Gene, word: str, theirs: Any) -> float | tuple[float, ...]:
    """Return what somebody calls `word` in our units: one number, or one per source."""
    convert = spec.also[word]
    if isinstance(theirs, list | tuple):
        return tuple(convert(_number(word, each)) for each in theirs)
    return convert(_number(word, theirs))


def _checked(parameter: Parameter, value: Any, sources: int) -> Any:
    """Return `value` as the method takes it. Raises `MergeError` for a value of the wrong kind."""
    if isinstance(parameter.spec, Choice):
        return _chosen(parameter.name, parameter.spec, value)
    if not parameter.per_source:
        if isinstance(value, list | tuple):
            raise MergeError(f"`{parameter.name}` is one number for all sources, found {list(value)}")
        return _within(parameter.name, parameter.spec, value)
    if not isinstance(value, list | tuple):
        return (_within(parameter.name, parameter.spec, value),) * sources
    if len(value) != sources:
        raise MergeError(f"`{parameter.name}` needs one number per source ({sources}), found {len(value)}")
    return tuple(_within(parameter.name, parameter.spec, each) for each in value)


def _chosen(name: str, spec: Choice, value: Any) -> Value:
    for word in (*spec.options, *spec.also):
        if type(word) is type(value) and word == value:
            return spec.also.get(word, word)
    raise MergeError(f"`{name}` is one of {said(spec.options)}, found {value!r}")


def said(values: Iterable[Value]) -> str:
    """Return values as YAML says them."""
    return ", ".join(str(each).lower() if isinstance(each, bool) else str(each) for each in values)


def _within(name: str, spec: Gene, value: Any) -> float:
    number = _number(name, value)
    if number < spec.least:
        raise MergeError(f"`{name}` must be at least {spec.least:g}, found {number:g}")
    if number > spec.most:
        raise MergeError(f"`{name}` must be at most {spec.most:g}, found {number:g}")
    return number


def _number(name: str, value: Any) -> float:
    """Return `value` as a float. Raises `MergeError` if it is none, or not a finite one."""
    if isinstance(value, bool | str) or not isinstance(value, float | int | SupportsFloat):
        raise MergeError(f"`{name}` must be a number, found {value!r}")
    number = float(value)
    if not math.isfinite(number):
        raise MergeError(f"`{name}` must be finite, found {number}")
    return number
