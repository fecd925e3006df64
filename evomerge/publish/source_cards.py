"""What the model cards of the sources say: licence and languages, from the front matter of README.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from evomerge.checkpoints.licences import Licence, Stated, front_matter, stated_in, strictest, words
from evomerge.publish.origin import Origin, on_hub

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
        content = front_matter(folder)
        zoo = sources[name].startswith("zoo:")
        licences[name] = _ZOO if zoo else _linked(stated_in(content), sources[name])
        languages += words(content.get("language"))
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
