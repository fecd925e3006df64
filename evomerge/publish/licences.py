"""The licence of a merge by those of its sources: the strictest of them, and unknown if one is unknown.

A merge is made of all its sources, so every licence among them holds for it. The families stand in the
order of what they ask for; which of two licences of one family is stricter nobody can say by their names.
Identifiers are the hub's, https://huggingface.co/docs/hub/repositories-licenses. This is no legal advice.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

OTHER = "other"
_UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class Stated:
    """What a model says of its licence: the hub's identifier; the name and link of one that is `other`."""

    license: str
    name: str | None = None
    link: str | None = None

    @property
    def shown(self) -> str:
        """The licence for people."""
        return self.name or self.license if self.license == OTHER else self.license


@dataclass(frozen=True, kw_only=True)
class Family:
    """Licences that ask for the same kind of thing. `means` says what, of the merged model."""

    name: str
    pattern: str
    means: str


FAMILIES: tuple[Family, ...] = (
    Family(name="public domain", pattern=r"cc0-1\.0|unlicense|wtfpl|0bsd|pddl", means="asks for nothing"),
    Family(
        name="permissive",
        pattern=r"apache-2\.0|mit|mit-0|bsd|bsd-.*|isc|zlib|ncsa|postgresql|afl-3\.0|artistic-2\.0|bsl-1\.0|ecl-2\.0|"
        r"ms-pl|cc-by-[\d.]+|cdla-permissive-.*|odc-by",
        means="asks for the notices of its authors",
    ),
    Family(
        name="share-alike",
        pattern=r"a?gpl.*|lgpl.*|mpl-2\.0|epl-.*|eupl-.*|osl-3\.0|cc-by-sa-.*|odbl|cdla-sharing-.*|lppl-.*|ofl-1\.1|"
        r"gfdl|lgpl-lr",
        means="asks that what is made of it stays under the same licence",
    ),
    Family(
        name="restricted use",
        pattern=r".*openrail.*|bigscience-.*|bigcode-.*",
        means="forbids some uses, also of what is made of it",
    ),
    Family(
        name="terms of its own",
        pattern=r"llama\d.*|gemma|other|grok2-community|deepfloyd-if-license|h-research|c-uda|tongyi-.*|qwen.*",
        means="has terms of its own, which also hold for what is made of it",
    ),
    Family(
        name="non-commercial",
        pattern=r"cc-by-nc.*|fair-noncommercial-.*|intel-research|apple-.*|.*-nc-.*|.*research.*",
        means="forbids commercial use, also of what is made of it",
    ),
    Family(
        name="no derivatives",
        pattern=r"cc-by(-nc)?-nd-.*",
        means="forbids publishing what is made of it, such as a merge",
    ),
)
"""From those that ask for the least to those that forbid most; a licence belongs to the last that fits."""


@dataclass(frozen=True, kw_only=True)
class Licence:
    """The licence of a merge, for its card: the metadata, and sentences that explain it."""

    stated: Stated
    sentences: tuple[str, ...]


def family_of(license: str) -> Family | None:
    """Return the family of the hub's identifier of a licence, None of one nobody has named here."""
    fits = [family for family in FAMILIES if re.fullmatch(family.pattern, license.lower())]
    return fits[-1] if fits else None


def strictest(sources: Mapping[str, Stated | None]) -> Licence:
    """Return the licence of what is made of these sources, by their names; None: it says nothing.

    It is `other`, and named unknown, as soon as that of one source is unknown.
    """
    silent = [
        name
        for name, stated in sources.items()
        if stated is None or _UNKNOWN in (stated.license, stated.name)
    ]
    known = {name: stated for name, stated in sources.items() if stated is not None and name not in silent}
    listed = "; ".join(
        f"{name}: {stated.shown if stated else 'not stated'}" for name, stated in sources.items()
    )
    told = [f"Licences of the sources: {listed}."]
    strict = {name: stated for name, stated in known.items() if _rank(stated) == _top(known)}
    if silent:
        them = "its licence" if len(silent) == 1 else "their licences"
        told.append(
            f"{_names(silent)} {'does' if len(silent) == 1 else 'do'} not state {them}, so the licence of "
            "this model is unknown; ask their authors before you use or share it."
        )
        if strict and _top(known) > 1:
            told.append(_meaning(strict))
        return Licence(stated=Stated(license=OTHER, name=_UNKNOWN), sentences=tuple(told))
    kinds = list(dict.fromkeys(strict.values()))
    told.append(_meaning(strict))
    if len(kinds) > 1:
        told.append(
            "They are different licences of the same kind, which hold at the same time; whether they can is "
            "for you to find out."
        )
        named = " and ".join(stated.shown for stated in kinds)
        return Licence(stated=Stated(license=OTHER, name=named), sentences=tuple(told))
    if any(_rank(stated) == 2 for stated in known.values()) and _top(known) > 2:
        told.append(
            "A share-alike licence is among them, which may not allow the stricter terms of the others."
        )
    return Licence(stated=kinds[0], sentences=tuple(told))


def _rank(stated: Stated) -> int:
    """Return a licence's place among the families; one that nobody knows stands with terms of their own."""
    family = family_of(stated.license) or family_of(OTHER)
    assert family is not None  # `other` has one
    return FAMILIES.index(family)


def _top(known: Mapping[str, Stated]) -> int:
    return max((_rank(stated) for stated in known.values()), default=-1)


def _meaning(strict: Mapping[str, Stated]) -> str:
    first = next(iter(strict.values()))
    family = FAMILIES[_rank(first)]
    shown = " and ".join(dict.fromkeys(stated.shown for stated in strict.values()))
    return f"The strictest is {shown} ({family.name}), of {_names(list(strict))}: it {family.means}."


def _names(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
