"""The recipe: frozen, canonical, hashable."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from evomerge.errors import RecipeError, unknown
from evomerge.recipe.layered import Filtered
from evomerge.recipe.merge import Group, Merge
from evomerge.recipe.nesting import Reads, behind, ordered, unread
from evomerge.recipe.path import LONGEST, NO_ENDS, Ends, Slot, slot_at
from evomerge.types import Statistic


@dataclass(frozen=True, kw_only=True)
class ModelRef:
    """A source model: a folder, a hub id or `zoo:NAME`; `digest` pins its content once resolved.

    `fisher` and `gram` are files of what was measured on it, pinned likewise. Where it is a LoRA adapter,
    `adapts` names the model it changes (None: the merge's base).
    """

    source: str
    revision: str | None = None
    digest: str | None = None
    adapts: str | None = None
    fisher: str | None = None
    fisher_digest: str | None = None
    gram: str | None = None
    gram_digest: str | None = None

    @property
    def measured(self) -> dict[Statistic, tuple[str, str | None]]:
        """The files of what was measured on it, each with its digest, by kind."""
        both: tuple[tuple[Statistic, str | None, str | None], ...] = (
            ("fisher", self.fisher, self.fisher_digest),
            ("gram", self.gram, self.gram_digest),
        )
        return {kind: (path, digest) for kind, path, digest in both if path is not None}

    def informed_by(self, kind: Statistic | None) -> ModelRef:
        """Return the model with no statistics but those of `kind`."""
        others = [each for each in self.measured if each != kind]
        none: dict[str, Any] = {key: None for each in others for key in (each, f"{each}_digest")}
        return replace(self, **none)

    @property
    def content(self) -> Any:
        """What its tensors and statistics depend on, as JSON values; a digest stands for its place."""
        tensors: Any = self.digest or [self.source, self.revision]
        if self.adapts is not None:
            tensors = [tensors, self.adapts]
        measured = {kind: digest or path for kind, (path, digest) in self.measured.items()}
        return [tensors, measured] if measured else tensors


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What to build: the merge that no other merge reads, or the layers of `path` between its `ends`.

    A merge that others read is one more model to them, computed in float32 and not rounded in between.

    `dtype` is that of the merged tensors (None: as the template's). `tokenizer` is `base` (the template's),
    `union` or a model's name, and matches the models' tokens by their strings; None: the models share one.
    Models whose output head is their embedding (tied) merge to one like them, unless `untie` gives it a head
    of its own with the parameters of `head`.

    `template` is the model that gives the output of a recipe without a path its tensor names, config and
    tokenizer (empty: the base, or the first source, or where that is a merge the template of it; naming just
    that leaves it empty, too). Where one of the models also sees, it is that one.
    """

    models: Mapping[str, ModelRef]
    merges: Mapping[str, Merge] = field(default_factory=dict)
    path: tuple[Slot, ...] | None = None
    ends: Ends = NO_ENDS
    dtype: str | None = None
    seed: int = 0
    tokenizer: str | None = None
    untie: bool = False
    template: str = ""

    def __post_init__(self) -> None:
        for name, merge in self.merges.items():
            self._check_merge(name, merge)
        order = self.in_order  # finds circles, which nothing below could follow
        if self.path is None:
            self._check_no_path()
        else:
            self._check_path(self.path)
        if self.tokenizer is not None:
            self._check_words(order)
        if self.template == self.usual_template:
            object.__setattr__(self, "template", "")  # said or not, it is the same recipe
        if self.form_from not in self.models:
            raise RecipeError(unknown("model", self.form_from, self.models))
        for name, ref in self.models.items():
            if ref.adapts is not None and ref.adapts not in self.models:
                raise RecipeError(f"`models.{name}.adapts`: {unknown('model', ref.adapts, self.models)}")

    def _check_merge(self, name: str, merge: Merge) -> None:
        if not merge.sources:
            raise RecipeError("a merge needs at least one source, found none")
        if len(set(merge.sources)) < len(merge.sources):
            raise RecipeError(f"a merge names each source once, found {', '.join(merge.sources)}")
        several = len(self.merges) > 1
        if name in self.models and (several or self.path is not None):
            raise RecipeError(f"`{name}` is both a model and a merge; give one of the two another name")
        for each in merge.models:
            if each not in self.models and each not in self.merges:
                known = [*self.models, *(other for other in self.merges if other != name)]
                raise RecipeError(unknown("model or merge" if several else "model", each, known))

    def _check_no_path(self) -> None:
        if len(found := unread(self._reads)) != 1:
            names = f" ({', '.join(f'`{name}`' for name in found)})" if found else ""
            raise RecipeError(
                "a recipe without a path needs exactly one merge that no other reads, "
                f"found {len(found)}{names}"
            )
        if self.ends != NO_ENDS:
            raise RecipeError("`ends` belong to a `path`, and this recipe has none")

    def _check_path(self, path: tuple[Slot, ...]) -> None:
        if not path:
            raise RecipeError("a path needs at least one layer, found none")
        if len(path) > LONGEST:
            raise RecipeError(
                f"{slot_at(LONGEST, path[LONGEST])} lies beyond the longest path, of {LONGEST} layers; "
                f"this one has {len(path)}"
            )
        for name in self.parts:
            if name not in self.merges and name not in self.models:
                raise RecipeError(unknown("model or merge", name, [*self.models, *self.merges]))
        taken = {each for name in self.parts if name in self.merges for each in behind(name, self._reads)}
        for name in self.merges:
            if name not in taken:
                raise RecipeError(f"the path takes nothing from the merge `{name}`; leave the merge out")
        if self.template not in ("", self.usual_template):
            raise RecipeError(
                f"a path has the form of its embedding's model, `{self.usual_template}`, "
                f"so leave out `template: {self.template}`"
            )

    def _check_words(self, order: tuple[str, ...]) -> None:
        """Refuse to match the tokens of merges, or of ends that are not those of one merge."""
        for name in order:
            if inner := self._reads[name]:
                raise RecipeError(
                    f"`tokenizer` matches the tokens of models, and `{name}` reads the merge `{inner[0]}`; "
                    f"leave `tokenizer` out, or export `{inner[0]}` and merge that"
                )
        if self.path is not None and not self.embed_from == self.head_from in self.merges:
            raise RecipeError(
                "`tokenizer` matches the tokens of merged models, so a path needs embedding and head of one "
                f"merge, found `{self.embed_from}` and `{self.head_from}`; name it in `ends`"
            )

    def __hash__(self) -> int:
        return hash(self.key)

    @property
    def merge(self) -> Merge:
        """The merge that a recipe without a path makes. Raises `RecipeError` if there is a path."""
        if self.path is not None:
            raise RecipeError("this recipe has a path, so it is not one merge")
        return self.merges[self.embed_from]

    @property
    def in_order(self) -> tuple[str, ...]:
        """Its merges, each after those that it reads."""
        return ordered(self._reads)

    @property
    def _reads(self) -> Reads:
        """For each merge the merges that it reads; a name that a model has, too, is the model's."""
        return {
            name: tuple(each for each in merge.models if each not in self.models)
            for name, merge in self.merges.items()
        }

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods of its merges, each once; none where a path takes layers from models alone."""
        return tuple(dict.fromkeys(merge.method for merge in self.merges.values()))

    @property
    def embed_from(self) -> str:
        """The model or merge that gives the embedding."""
        if self.path is None:
            return unread(self._reads)[0]
        return self.path[0].model if self.ends.embed is None else self.ends.embed

    @property
    def head_from(self) -> str:
        """The model or merge that gives the final norm and the output head."""
        if self.path is None:
            return self.embed_from
        return self.path[-1].model if self.ends.head is None else self.ends.head

    @property
    def parts(self) -> tuple[str, ...]:
        """The models and merges the output is made of, each once, that of the embedding first."""
        layers = [slot.model for slot in self.path or ()]
        return tuple(dict.fromkeys([self.embed_from, *layers, self.head_from]))

    @property
    def form_from(self) -> str:
        """The model that is its template: the one it names, or the usual one."""
        return self.template or self.usual_template

    @property
    def usual_template(self) -> str:
        """The template of a recipe that names none."""
        part = self.embed_from
        return self._first_of(self.merges[part].models[0]) if part in self.merges else part

    def _first_of(self, name: str) -> str:
        """Return the model that a model or merge has its form from."""
        return name if name in self.models else self._first_of(self.merges[name].models[0])

    @property
    def used(self) -> tuple[str, ...]:
        """The models it needs, each once, the template first: those it reads, and what those adapt."""
        return self.with_adapted(tuple(name for part in self.parts for name in self.read_by(part)))

    def with_adapted(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Return the models of these names, each once, and those that they are said to adapt."""
        under = (self.models[name].adapts for name in names)
        return tuple(dict.fromkeys((*names, *(name for name in under if name is not None))))

    def base_of(self, source: str) -> str | None:
        """Return the model that is the base of the merges that a source goes into, if they have but one."""
        over = (merge.base for merge in self.merges.values() if source in merge.sources)
        bases = {base for base in over if base in self.models}
        return bases.pop() if len(bases) == 1 else None

    def operands(self, merge: str) -> tuple[str, ...]:
        """Return the models and merges that a merge reads, each once, the one that gives its form first."""
        own = self.merges[merge].models
        asked = self.template and merge == self.embed_from  # a path has none
        return tuple(dict.fromkeys((self.template, *own))) if asked else own

    def read_by(self, part: str) -> tuple[str, ...]:
        """Return the models behind a model or merge, each once, the one that gives it its form first."""
        if part not in self.merges:
            return (part,)
        behind = ((each,) if each in self.models else self.read_by(each) for each in self.operands(part))
        return tuple(dict.fromkeys(name for names in behind for name in names))

    @property
    def key(self) -> str:
        """Sixteen hex digits that two recipes share exactly when they ask for the same tensors.

        Names of merges and of unused models do not matter; a digest stands for its source.
        """
        models = {name: ref.content for name, ref in self.models.items() if name in self.used}
        content = [models, *self._content(), self.dtype, self.seed]
        if self.tokenizer is not None:
            content.append("base" if self.tokenizer == self.form_from else self.tokenizer)
        if self.untie:
            content.append({"untie": True})
        if self.template:
            content.append({"template": self.template})
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def _content(self) -> list[Any]:
        """Return what is made of the models: the merge, or the path with its merges in the order of use."""
        if self.path is None:
            return [self._merged(self.embed_from)]
        merges: list[str] = []
        names: dict[str, str | int] = {part: part for part in self.parts}
        for part in self.parts:
            if part in self.merges:
                merge = json.dumps(self._merged(part), sort_keys=True)
                if merge not in merges:
                    merges.append(merge)
                names[part] = merges.index(merge)
        path = [[names[slot.model], *slot.content()] for slot in self.path]
        ends = [names[self.embed_from], names[self.head_from], plain(self.ends.weights)]
        return [merges, path, ends]

    def _merged(self, name: str) -> Any:
        """Return a merge's content, that of the merges it reads in the place of their names."""
        merge = self.merges[name]
        if not self._reads[name]:
            return plain(merge)
        inside: dict[str | None, Any] = {each: self._merged(each) for each in self._reads[name]}
        return plain(merge.by_place()) | {
            "base": inside.get(merge.base, merge.base),
            "sources": [inside.get(source, source) for source in merge.sources],
        }


def plain(value: Any) -> Any:
    """Return `value` as dicts, lists and scalars, floats that are whole numbers included as floats."""
    if isinstance(value, Filtered | Group | Merge | ModelRef):
        return {key: plain(each) for key, each in vars(value).items()}
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [plain(each) for each in value]
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value
