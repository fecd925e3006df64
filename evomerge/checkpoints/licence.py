"""The licences of source models, as their model cards state them, and the strictest of several.

A hub repository's README.md begins with a table between `---` lines in which `license` is an identifier of
https://huggingface.co/docs/hub/repositories-licenses, and `license_name` says more of an `other`. What is
said here of a licence is a summary of its kind, for people to look closer; it is no legal advice.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

import yaml

from evomerge.reading import read_text

_CARD = "README.md"
_LONGEST = 1 << 20
_FRONT = re.compile(r"\A\s*---\s*\n(.*?)\n---\s*(?:\n|\Z)", re.DOTALL)
_LONGEST_NAME = 100


class Strictness(IntEnum):
    """Kinds of licences, by how little they let people do with what is made of the model."""

    FREE = 0
    PERMISSIVE = 1
    SHARE_ALIKE = 2
    COPYLEFT = 3
    OF_ITS_OWN = 4
    NON_COMMERCIAL = 5
    NONE = 6
    NO_DERIVATIVES = 7


MEANING: Mapping[Strictness, str] = {
    Strictness.FREE: "anybody may do anything with a merge",
    Strictness.PERMISSIVE: "a merge may be used and shared freely, with the notices of its sources",
    Strictness.SHARE_ALIKE: "a merge that is shared must stay under this licence or one that it allows",
    Strictness.COPYLEFT: "a merge that is shared must be under this licence",
    Strictness.OF_ITS_OWN: "a merge comes under the terms of this licence, so read what they ask of names "
    "and uses before sharing it",
    Strictness.NON_COMMERCIAL: "a merge may not be used commercially",
    Strictness.NONE: "nobody was given leave to share what is made of it, so ask its authors before "
    "publishing a merge",
    Strictness.NO_DERIVATIVES: "a merge may not be shared at all",
}

_FREE = ("cc0", "unlicense", "wtfpl", "0bsd", "pddl", "public-domain")
_PERMISSIVE = (
    "apache", "mit", "bsd", "isc", "zlib", "afl", "artistic", "bsl", "ms-pl", "ncsa", "postgresql", "cc-by",
    "cdla-permissive", "ecl", "odc-by", "etalab",
)  # fmt: skip
_SHARE_ALIKE = ("lgpl", "mpl", "epl", "cc-by-sa", "cdla-sharing", "odbl", "ofl", "eupl", "lppl")
_COPYLEFT = ("gpl", "agpl", "osl", "gfdl")


@dataclass(frozen=True, kw_only=True)
class Licence:
    """A licence as a model card states it: its identifier, and a name where that says little.

    `key` is empty where none is stated.
    """

    key: str = ""
    name: str = ""

    def __str__(self) -> str:
        if not self.key:
            return "none stated"
        return f"{self.key} ({self.name})" if self.name else self.key

    @property
    def strictness(self) -> Strictness:
        """What kind it is of; one that is not known has terms of its own."""
        said = f"{self.key} {self.name}".lower()
        words = re.split(r"[^a-z0-9]+", said)
        if not self.key or self.key in ("unknown", "none"):
            return Strictness.NONE
        if "nd" in words:
            return Strictness.NO_DERIVATIVES
        if "nc" in words or "noncommercial" in said.replace("-", "") or "research" in words:
            return Strictness.NON_COMMERCIAL
        kinds = (
            (Strictness.FREE, _FREE),
            (Strictness.SHARE_ALIKE, _SHARE_ALIKE),  # before `cc-by`, with which one of them begins
            (Strictness.COPYLEFT, _COPYLEFT),
            (Strictness.PERMISSIVE, _PERMISSIVE),
        )
        key = self.key.lower()
        found = (kind for kind, names in kinds if any(_is_of(key, name) for name in names))
        return next(found, Strictness.OF_ITS_OWN)


def read_licence(folder: Path) -> Licence:
    """Return the licence that the model card in a folder states; of a broken or missing card, none."""
    card = folder / _CARD
    try:
        text = read_text(card, most=_LONGEST) if card.is_file() else ""
        found = _FRONT.match(text)
        front: Any = yaml.safe_load(found[1]) if found else None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError, RecursionError):
        return Licence()
    if not isinstance(front, dict):
        return Licence()
    stated = front.get("license")
    if isinstance(stated, list):  # of several, those that use it may choose; the first is the card's own
        stated = next(iter(stated), None)
    name = front.get("license_name")
    return Licence(key=_word(stated), name=_word(name))


def strictest(licences: Mapping[str, Licence]) -> str:
    """Return the name of the model whose licence leaves the least to what is made of it; of equals the first.

    Raises `ValueError` if there are none.
    """
    return max(licences, key=lambda name: licences[name].strictness)


def conflict(licences: Mapping[str, Licence]) -> tuple[str, str] | None:
    """Return two models whose licences both want to be that of a merge and differ, or None.

    One that asks for itself (copyleft, share-alike) cannot be kept beside another that does, or beside terms
    that forbid more than it allows to forbid.
    """
    asking = [n for n, each in licences.items() if each.strictness in _FOR_THEMSELVES]
    stricter = [n for n, each in licences.items() if each.strictness in _FORBIDDING]
    for name in asking:
        for other in [*asking, *stricter]:
            if licences[other].key != licences[name].key:
                return name, other
    return None


_FOR_THEMSELVES = (Strictness.SHARE_ALIKE, Strictness.COPYLEFT)
_FORBIDDING = (Strictness.OF_ITS_OWN, Strictness.NON_COMMERCIAL, Strictness.NO_DERIVATIVES)


def _is_of(key: str, name: str) -> bool:
    """Return whether an identifier is of a family: `gpl-3.0` and `gpl` are, `gplx` is not."""
    return key == name or key.startswith(f"{name}-") or (key.startswith(name) and key[len(name)].isdigit())


def _word(stated: object) -> str:
    return " ".join(stated.split())[:_LONGEST_NAME] if isinstance(stated, str) else ""
