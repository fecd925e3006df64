"""What each merge method says of itself, as reference pages; nothing here knows a method by name."""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from evomerge import plugins
from evomerge.merge.method import EVERYONES, Informed, Surveying
from evomerge.parameters import Choice, Gene, Parameter, bind, declared

_COSTS = {
    "elementwise": "one reading and one writing",
    "norms": "sums over each tensor, then one writing",
    "ranks": "order statistics, some ten times as much as adding up",
    "decomposition": "an SVD or a solve per matrix, which dominates everything",
}
_BASES = {"needed": "a base", "optional": "a base if there is one", "unused": "no base"}
_STATISTICS = {
    "fisher": "the diagonal Fisher information of each source",
    "gram": "the Gram matrices of each source's layer inputs",
}


@dataclass(frozen=True, kw_only=True)
class MethodPage:
    """A method's own declarations, in words."""

    name: str
    kind: Any

    @cached_property
    def _paragraphs(self) -> list[str]:
        """The paragraphs of the file's docstring, each on one line."""
        text = inspect.cleandoc(sys.modules[self.kind.__module__].__doc__ or "")
        return [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]

    @property
    def title(self) -> str:
        """The method in one line."""
        return self._paragraphs[0]

    @property
    def source(self) -> str:
        """Where the formula comes from, and where it differs from there."""
        return "\n\n".join(self._paragraphs[1:])

    @property
    def takes(self) -> str:
        """How many sources, and whether over a base."""
        least, most = self.kind.sources
        many = f"{least} or more" if most is None else str(least) if least == most else f"{least} to {most}"
        return f"{many} {'source' if many == '1' else 'sources'}, {_BASES[self.kind.base]}"

    @property
    def cost(self) -> str:
        """What dominates a merge."""
        return _COSTS[self.kind.cost]

    @property
    def data(self) -> str:
        """What must be measured beforehand."""
        return _STATISTICS[self.kind.statistic] if isinstance(self.kind, Informed) else "none"

    @property
    def passes(self) -> str:
        """Whether a tensor can be merged without a look at the others."""
        if not issubclass(self.kind, Surveying):
            return "one tensor at a time"
        bound = bind(self.kind, {}, self.kind.sources[0], compat="evomerge")
        if bound.survey_key() is None:
            return "one tensor at a time; over the whole model where its parameters say so, in passes"
        return "passes over the whole model first, holding one tensor at a time"

    @property
    def facts(self) -> dict[str, str]:
        """What a user asks of a method, by heading."""
        return {
            "takes": self.takes,
            "needs data": self.data,
            "sees": self.passes,
            "costs": self.cost,
            "compat": "all the same" if self.kind.compats == EVERYONES else ", ".join(self.kind.compats),
        }

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """The declared parameters, in order."""
        return tuple(declared(self.kind).values())


def method_pages() -> tuple[MethodPage, ...]:
    """Return a page for every method found, by name."""
    return tuple(method_page(name) for name in plugins.names("methods"))


def method_page(name: str) -> MethodPage:
    """Return the page of one method. Raises `PluginError` if there is none of this name."""
    return MethodPage(name=name, kind=plugins.load("methods", name))


def parameter_row(parameter: Parameter) -> tuple[str, str, str, str, str]:
    """Return a parameter's name, default, searched values, other words and meaning."""
    spec = parameter.spec
    each = "one per source: " if parameter.per_source else ""
    whole = "for the whole model: " if spec.whole else ""
    words = ", ".join(map(_said, spec.also if isinstance(spec, Gene) else (*spec.words, *spec.also)))
    other = "".join(f"; {_said(value)} under `{compat}`" for compat, value in spec.under.items())
    return (
        parameter.name,
        f"{_said(spec.default)}{other}",
        _values(spec),
        words,
        f"{each}{whole}{spec.meaning}",
    )


def reference() -> str:
    """Return the page on every method, in Markdown."""
    pages = method_pages()
    lines = [
        "# Merge methods",
        "",
        "Made by `make docs` from what each method declares in `evomerge/merge/methods/`; do not edit.",
        "`evomerge methods NAME` shows the same in a terminal. *Searched* is what a space varies unless it",
        "says otherwise; in brackets, what it varies only on request.",
        "",
        "| method | takes | costs | data |",
        "|---|---|---|---|",
        *(
            f"| [`{page.name}`](#{page.name}) {_summary(page)} | {page.takes} | {page.cost} | {page.data} |"
            for page in pages
        ),
    ]
    for page in pages:
        lines += ["", *_section(page)]
    return "\n".join(lines) + "\n"


def _section(page: MethodPage) -> Iterator[str]:
    yield f"## {page.name}"
    yield ""
    yield page.title
    if page.source:
        yield ""
        yield page.source
    yield ""
    for heading, fact in page.facts.items():
        yield f"- {heading}: {fact}"
    if page.parameters:
        yield ""
        yield "| parameter | default | searched | also called | meaning |"
        yield "|---|---|---|---|---|"
        for name, *others in map(parameter_row, page.parameters):
            yield f"| `{name}` | {' | '.join(others)} |"


def _summary(page: MethodPage) -> str:
    """Return the first line of the method's class, as the rest of a table's cell."""
    return (page.kind.__doc__ or "").partition("\n")[0].rstrip(".").replace("|", "\\|")


def _values(spec: Gene | Choice) -> str:
    if isinstance(spec, Choice):
        values = ", ".join(map(_said, spec.options))
    else:
        bounds = ((spec.least, "at least"), (spec.most, "at most"))
        limits = ", ".join(f"{word} {bound:g}" for bound, word in bounds if math.isfinite(bound))
        values = f"{spec.low:g} to {spec.high:g}" + (f" ({limits})" if limits else "")
    return values if spec.searched else f"[{values}]"


def _said(value: object) -> str:
    """Return a value as YAML says it."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
