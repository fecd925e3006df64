"""The language model inside a vision-language model, found by its tensor names.

transformers places it in three ways, and on disk often otherwise than in the live module: as
`model.language_model.…`, as `language_model.model.…`, or as a plain `model.…` beside `visual.…`. What they
share is read here: the language tower is what surrounds a token table beside a numbered stack of layers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from evomerge.errors import CheckpointError

NUMBERED = re.compile(r"^(.*?)\.(\d+)\.(.+)$")
EMBEDDING = re.compile(r"embed|(^|\.)w[tp]e(\.|$)|(^|[_.])emb(_|$|\.weight$)")
OUTPUT = re.compile(r"lm_head|embed_out|output_embed|(^|\.)output(\.|$)")

_VISION = re.compile(r"vision|visual")
TOWERS = ("text_config", "vision_config")
"""Keys under which a config describes the parts of a model that is more than a language model."""

_OF_NO_WORD = re.compile(r"(^|[._])(pos|position|positions|patch|class|cls|token_type|wpe)([._]|$)")
_WRAPPER = re.compile(r"(^|.*\.)(language|text)_(model|tower)(\.|$)")
_HEAD = re.compile(r"((^|.*\.)(lm_head|embed_out))\.weight$")


@dataclass(frozen=True, kw_only=True)
class Tower:
    """Where a language model stands inside another: pairs of module names, there and in a plain LLM."""

    modules: tuple[tuple[str, str], ...]

    def plain(self, name: str) -> str | None:
        """Return what the plain LLM calls the tensor `name`, or None if it lies outside the tower."""
        return _renamed(name, self.modules)

    def own(self, plain: str) -> str:
        """Return the name here of what the plain LLM calls `plain`."""
        return _renamed(plain, [(there, here) for here, there in self.modules]) or plain


def _renamed(name: str, modules: Iterable[tuple[str, str]]) -> str | None:
    for before, after in modules:
        if name.startswith(before + "."):
            return after + name[len(before) :]
    return None


def language_names(names: Iterable[str], config: Mapping[str, Any]) -> dict[str, str | None]:
    """Return for each tensor the name it has in the plain LLM; None outside the language tower.

    Names may be those on disk or those of the live module. A plain LLM's are its own.
    """
    names = list(names)
    tower = find_tower(names, config)
    return {name: tower.plain(name) if tower else name for name in names}


def find_tower(names: Iterable[str], config: Mapping[str, Any]) -> Tower | None:
    """Return the language tower of a model that also sees or hears; None if the model is a plain LLM.

    Raises `CheckpointError` if there is not exactly one.
    """
    names = list(names)
    if not is_multimodal(config) and not any(_VISION.search(name) for name in names):
        return None
    roots = _roots(names)
    if len(roots) != 1:
        found = "none" if not roots else " and ".join(f"`{root}`" for root in roots)
        raise CheckpointError(
            f"a `{config.get('model_type')}` should have one language model (a token table beside numbered "
            f"layers) among its tensors; found {found}"
        )
    root = roots[0]
    inner = _WRAPPER.sub("", root) or "model"
    head = next((match[1] for name in sorted(names) if (match := _HEAD.match(name))), None)
    if head is None:  # tied; this is where an own one would stand
        head = root.removesuffix("model") + "lm_head" if root.endswith(".model") else "lm_head"
    return Tower(modules=((root, inner), (head, head.rpartition(".")[2])))


def is_multimodal(config: Mapping[str, Any]) -> bool:
    """Return whether a config describes a language model with other towers beside it."""
    return not config.keys().isdisjoint(TOWERS)


def language_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the part of a config that describes the language model."""
    inner = config.get("text_config")
    if not isinstance(inner, Mapping):
        return config
    return {"model_type": config.get("model_type"), **inner}


def _roots(names: Iterable[str]) -> list[str]:
    """Return the modules that hold both a token table and a numbered stack of layers."""
    names = list(names)
    stacked = {match[1].rpartition(".")[0] for name in names if (match := NUMBERED.match(name))}
    tables = [name.removesuffix(".weight") for name in names if name.endswith(".weight")]
    parents = {
        parent
        for parent, _, table in (name.rpartition(".") for name in tables)
        if EMBEDDING.search(table) and not OUTPUT.search(table) and not _OF_NO_WORD.search(table)
    }
    return sorted(parents & stacked)
