"""What the model cards of the sources say: licence and languages, from the front matter of README.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from evomerge.publish.licences import Licence, Stated, strictest
from evomerge.publish.origin import Origin, on_hub
from evomerge.reading import read_text

CARD = "README.md"
_LARGEST = 4 << 20
_HUB = "https://huggingface.co"
_ZOO = Stated(license="apache-2.0")
"""The zoo's models are part of evomerge."""


@dataclass(frozen=True, kw_only=True)
class About:
    """What the sources' cards say together, for the card of what is made of them."""

    licence: Licence
    languages: tuple[str, ...]


def about(folders: Mapping[str, Path], sources: Mapping[str, str], origins: Mapping[str, Origin]) -> About:
    """Return what the cards in `folders` say; `sources` are the models' own words for where they are.

    A model without a card whose `origins` are known has the licence of those.
    """
    licences: dict[str, Stated | None] = {}
    languages: list[str] = []
    for name, folder in folders.items():
        content = front_matter(folder / CARD)
        zoo = sources[name].startswith("zoo:")
        licences[name] = _ZOO if zoo else _linked(stated_in(content), sources[name])
        languages += _words(content.get("language"))
        if licences[name] is None and name in origins:
            inner = about_origin(origins[name])
            licences[name] = inner.licence.stated
            languages += inner.languages
    return About(licence=strictest(licences), languages=tuple(dict.fromkeys(languages)))


def _linked(stated: Stated | None, source: str) -> Stated | None:
    """Return the licence with a link that leads there from another repository, or none."""
    if stated is None or stated.link is None or stated.link.startswith(("https://", "http://")):
        return stated
    link = f"{_HUB}/{source}/blob/main/{stated.link.lstrip('/')}" if on_hub(source) else None
    return replace(stated, link=link)


def about_origin(origin: Origin) -> About:
    """Return what the cards of the models say of which a model was made, as far as they lie here."""
    refs = {name: origin.recipe.models[name].source for name in origin.recipe.used}
    return about({name: Path(source) for name, source in refs.items()}, refs, origin.origins)


def stated_in(content: Mapping[str, Any]) -> Stated | None:
    """Return the licence that a card's front matter states, None if none."""
    found = _words(content.get("license"))
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


def front_matter(path: Path) -> dict[str, Any]:
    """Return the YAML between the `---` lines that a card begins with; nothing where there is none."""
    try:
        text = read_text(path, most=_LARGEST)
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


def _words(content: Any) -> list[str]:
    listed = content if isinstance(content, list) else [content]
    return [each.strip() for each in listed if isinstance(each, str) and each.strip()]
