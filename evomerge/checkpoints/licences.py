"""Licences as model cards state them, and that of a merge: the strictest, and unknown if one is unknown.

A merge is made of all its sources, so every licence among them holds for it. The families stand in the
order of what they ask for; which of two licences of one family is stricter nobody can say by their names.
Identifiers are the hub's, https://huggingface.co/docs/hub/repositories-licenses. This is no legal advice.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from evomerge.reading import read_text

CARD = "README.md"
_LARGEST = 4 << 20

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
    """The licence of a merge: its metadata, sentences that explain it, and those that call for a person."""

    stated: Stated
    sentences: tuple[str, ...]
    doubts: tuple[str, ...] = ()


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
    if strict and (not silent or _top(known) > 1):
        told.append(_meaning(strict))
    kinds = list(dict.fromkeys(strict.values()))
    doubts = []
    if silent:
        them = "its licence" if len(silent) == 1 else "their licences"
        stated = Stated(license=OTHER, name=_UNKNOWN)
        doubts.append(
            f"{_names(silent)} {'does' if len(silent) == 1 else 'do'} not state {them}, so the licence of "
            "this model is unknown; ask their authors before you use or share it."
        )
    elif len(kinds) > 1:
        stated = Stated(license=OTHER, name=" and ".join(each.shown for each in kinds))
        doubts.append(
            f"{stated.name} are different licences of the same kind, which hold at the same time; whether "
            "they can is for you to find out."
        )
    else:
        [stated] = kinds
    if any(_rank(each) == 2 for each in known.values()) and _top(known) > 2:
        doubts.append(
            "A share-alike licence is among them, which may not allow the stricter terms of the others."
        )
    return Licence(stated=stated, sentences=tuple(told), doubts=tuple(doubts))


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


def stated_in(content: Mapping[str, Any]) -> Stated | None:
    """Return the licence that a card's front matter states, None if none."""
    found = words(content.get("license"))
    if len(found) != 1:
        name = " and ".join(found)
        return Stated(license="other", name=name) if found else None
    named, link = content.get("license_name"), content.get("license_link")
    other = found[0] == "other"
    return Stated(
        license=found[0],
        name=named if other and isinstance(named, str) else None,
        link=link if other and isinstance(link, str) else None,
    )


def read_licence(folder: Path) -> Stated | None:
    """Return the licence that the model card in a folder states, None if none."""
    return stated_in(front_matter(folder))


def front_matter(folder: Path) -> dict[str, Any]:
    """Return the YAML between the `---` lines that a folder's model card begins with; nothing if none is."""
    try:
        text = read_text(folder / CARD, most=_LARGEST)
    except (OSError, ValueError):
        return {}
    lines = text.removeprefix("\ufeff").splitlines()
    if not lines or lines[0].strip() != "---" or "---" not in (ends := [line.strip() for line in lines[1:]]):
        return {}
    try:
        content = yaml.safe_load("\n".join(lines[1 : 1 + ends.index("---")]))
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def words(content: Any) -> list[str]:
    """Return a word or a list of words as a list."""
    listed = content if isinstance(content, list) else [content]
    return [each.strip() for each in listed if isinstance(each, str) and each.strip()]
