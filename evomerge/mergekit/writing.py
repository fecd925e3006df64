"""From a recipe to mergekit's YAML, where mergekit can say it.

A merge is a document of models, or of slices where its parameters change between runs of layers; a stack of
one method's merges is one document of slices, any other a passthrough over a document for each merge, as
mergekit-multimerge reads them. Format: https://github.com/arcee-ai/mergekit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evomerge.mergekit.findings import Findings
from evomerge.mergekit.known import COMPAT, DRAWS, METHODS, PASSTHROUGH, their_words
from evomerge.mergekit.layout import alike, dumped, scale_of, stretches, with_parameters, with_shared
from evomerge.mergekit.regions import LLAMA, Fragments, Run, runs_of
from evomerge.mergekit.stacking import outer_factors
from evomerge.mergekit.values import Words, parameters_of
from evomerge.recipe import Merge, Recipe


def to_mergekit(
    recipe: Recipe, name: str = "the recipe", *, fragments: Fragments = LLAMA, layers: int | None = None
) -> tuple[str, tuple[str, ...]]:
    """Return the recipe as mergekit's YAML, and notes on how its result may differ.

    `fragments` are the parts of tensors' names by which filters tell module groups apart (default: those of
    Llama and its like), `layers` how many layers the models have, where the recipe does not show it.
    Raises `ConversionError` with a line for each key that mergekit has no words for.
    """
    findings = Findings(name=name)
    writer = _Writer(recipe, findings, fragments, layers)
    documents = writer.documents()
    findings.check()
    text = "---\n".join(dumped(document) for document in documents)
    return text, tuple(findings.notes)


class _Writer:
    def __init__(self, recipe: Recipe, findings: Findings, fragments: Fragments, layers: int | None) -> None:
        self._recipe = recipe
        self._findings = findings
        self._fragments = fragments
        self._layers = layers

    def documents(self) -> list[dict[str, Any]]:
        """Return the content of each document, the result's last."""
        recipe = self._recipe
        self._check()
        for name, merge in recipe.merges.items():
            self._check_merge(name, merge)
        self._findings.check()
        last = self._last()
        inner = self._inner()
        return [*({"name": name, **self._whole(name)} for name in inner), self._result(last)]

    def _wrong(self, path: tuple[str | int, ...], sentence: str) -> None:
        self._findings.wrong(None, path, sentence)

    def _check(self) -> None:
        """Tell of what no document of mergekit can say."""
        recipe = self._recipe
        if recipe.untie:
            self._wrong(("untie",), "has no equal in mergekit, which keeps tied models tied")
        if recipe.template:
            self._wrong(
                ("template",), "has no equal in mergekit, which takes the form of the base or first model"
            )
        for name, ref in recipe.models.items():
            if ref.source.startswith("zoo:"):
                self._findings.note(
                    ("models", name), f"is `{ref.source}`, which mergekit does not know; give it a folder"
                )

    def _check_merge(self, name: str, merge: Merge) -> None:
        known = METHODS.get(merge.method)
        if known is None:
            self._wrong(("merges", name, "method"), f"is `{merge.method}`, which mergekit does not have")
            return
        if merge.compat not in ("evomerge", COMPAT):
            self._wrong(
                ("merges", name, "compat"), f"is `{merge.compat}`, and mergekit has its own semantics only"
            )
        elif known.differs and merge.compat != COMPAT:
            self._wrong(
                ("merges", name, "compat"),
                f"must be `{COMPAT}`: mergekit's `{merge.method}` gives other numbers than evomerge's own",
            )
        if merge.base is not None and known.base == "merged":
            self._wrong(
                ("merges", name, "base"), f"has no meaning for mergekit's `{merge.method}`; leave it out"
            )
        if merge.method in DRAWS:
            self._findings.note((), f"mergekit's `{merge.method}` draws other random masks than evomerge")

    def _last(self) -> str | None:
        """Return the merge that the last document makes; None if it stacks layers."""
        return self._recipe.embed_from if self._recipe.path is None else None

    def _inner(self) -> list[str]:
        """Return the merges that have a document of their own, each after those it reads."""
        recipe = self._recipe
        if recipe.path is not None and self._stack_of_one_method():
            used = {name for part in recipe.parts if part in recipe.merges for name in self._read(part)}
            return [name for name in recipe.in_order if name in used]
        last = self._last()
        return [name for name in recipe.in_order if name != last]

    def _read(self, merge: str) -> set[str]:
        """Return the merges behind a merge, itself left out."""
        found: set[str] = set()
        for each in self._recipe.merges[merge].models:
            if each not in self._recipe.models:
                found |= {each, *self._read(each)}
        return found

    def _stack_of_one_method(self) -> bool:
        parts = self._recipe.parts
        if not all(part in self._recipe.merges for part in parts):
            return False
        merges = [self._recipe.merges[part] for part in parts]
        plain = all(
            not slot.weights and slot.scale == 1 and slot.norms is None for slot in self._recipe.path or ()
        )
        return plain and len({(merge.method, merge.compat) for merge in merges}) == 1

    def _result(self, last: str | None) -> dict[str, Any]:
        if last is not None:
            content = self._whole(last)
        else:
            self._check_ends()
            content = self._merged_slices() if self._stack_of_one_method() else self._passthrough()
        return {**content, **self._around()}

    def _around(self) -> dict[str, Any]:
        """Return what holds for the whole model: dtypes and tokenizer."""
        recipe = self._recipe
        found: dict[str, Any] = {}
        if recipe.dtype is not None:
            found = {"dtype": "float32", "out_dtype": recipe.dtype}
            if recipe.dtype == "float32":
                found = {"dtype": "float32"}
        else:
            self._findings.note(
                ("dtype",), "is not given, so mergekit computes in that of the models, not float32"
            )
        if recipe.tokenizer is not None:
            source = recipe.tokenizer
            found["tokenizer_source"] = source if source in ("base", "union") else self._model(source)
        return found

    def _model(self, name: str) -> str:
        """Return a model in mergekit's short form, or the name of a document."""
        ref = self._recipe.models.get(name)
        if ref is None:
            return name
        own = ref.source + (f"@{ref.revision}" if ref.revision else "")
        if "+" in ref.source or "@" in ref.source:
            self._wrong(
                ("models", name, "source"), f"is `{ref.source}`, whose `+` or `@` mergekit would split"
            )
        return own if ref.adapts is None else f"{self._model(ref.adapts)}+{own}"

    def _whole(self, name: str) -> dict[str, Any]:
        """Return the document of a merge of all layers."""
        merge = self._recipe.merges[name]
        runs = runs_of(merge, self._layers, ("merges", name), self._findings)
        if runs is None:
            return {}
        content = self._head(merge)
        words = self._words(name, merge)
        if len(runs) == 1:
            overall, each = parameters_of(merge, runs[0], words, embed=True, head=True)
            content["models"] = self._sources(merge, each, None)
            return {**content, **with_parameters(overall)}
        content["slices"] = [
            self._slice(merge, run, words, embed=i == 0, head=i == len(runs) - 1)
            for i, run in enumerate(runs)
        ]
        return with_shared(content)

    def _merged_slices(self) -> dict[str, Any]:
        """Return the document of a stack of merges of one method: a slice for each run of layers."""
        path = self._recipe.path or ()
        first = self._recipe.merges[path[0].model]
        runs_of_path = stretches(path)
        cut: list[tuple[str, Run]] = []
        for model, start, stop in runs_of_path:
            merge = self._recipe.merges[model]
            runs = runs_of(merge, self._layers, ("merges", model), self._findings, between=(start, stop - 1))
            if runs is None:
                return {}
            cut += [(model, run) for run in runs]
        content = self._head(first, base=len({self._recipe.merges[model].base for model, _ in cut}) == 1)
        slices = []
        for i, (model, run) in enumerate(cut):
            merge = self._recipe.merges[model]
            part = self._slice(merge, run, self._words(model, merge), embed=i == 0, head=i == len(cut) - 1)
            if "base_model" not in content and merge.base is not None:
                part = {**part, "base_model": self._model(merge.base)}
            slices.append(part)
        return with_shared({**content, "slices": slices})

    def _head(self, merge: Merge, *, base: bool = True) -> dict[str, Any]:
        own = {"base_model": self._model(merge.base)} if base and merge.base is not None else {}
        return {"merge_method": merge.method, **own}

    def _words(self, name: str, merge: Merge) -> Words:
        return Words(
            merge=merge,
            at=("merges", name),
            theirs=their_words(merge.method),
            fragments=self._fragments,
            findings=self._findings,
        )

    def _slice(self, merge: Merge, run: Run, words: Words, *, embed: bool, head: bool) -> dict[str, Any]:
        overall, each = parameters_of(merge, run, words, embed=embed, head=head)
        span = (run.first, run.last + 1)
        return {"sources": self._sources(merge, each, span), **with_parameters(overall)}

    def _sources(
        self, merge: Merge, each: Mapping[str, Mapping[str, Any]], span: tuple[int, int] | None
    ) -> list[dict[str, Any]]:
        """Return the models of a slice; a base stands among them where layers are named."""
        names = (*((merge.base,) if merge.base is not None and span is not None else ()), *merge.sources)
        found = []
        for name in names:
            own: dict[str, Any] = {"model": self._model(name)}
            if span is not None:
                own["layer_range"] = list(span)
            if each.get(name):
                own["parameters"] = dict(each[name])
            found.append(own)
        return found

    def _check_ends(self) -> None:
        path, ends = self._recipe.path or (), self._recipe.ends
        for key, named, usual in (
            ("embed", ends.embed, path[0].model),
            ("head", ends.head, path[-1].model),
        ):
            if named not in (None, usual):
                self._wrong(("ends", key), f"is `{named}`, and mergekit takes that of the slice, `{usual}`")
        if not outer_factors(path[0].weights) == outer_factors(path[-1].weights) == ends.weights:
            self._wrong(
                ("ends", "weights"),
                "are not those of the first and last layer, by which mergekit scales the ends",
            )
        for i, slot in enumerate(path):
            if slot.scale != 1:
                self._wrong(
                    ("path", i, "scale"), "multiplies the hidden state, and mergekit scales weights only"
                )
            if slot.norms not in (None, slot.layer):
                self._wrong(("path", i, "norms"), "takes norms of another layer, which mergekit cannot")

    def _passthrough(self) -> dict[str, Any]:
        path = self._recipe.path or ()
        slices = []
        for slots in alike(path):
            source: dict[str, Any] = {
                "model": self._model(slots[0].model),
                "layer_range": [slots[0].layer, slots[-1].layer + 1],
            }
            if slots[0].weights:
                source["parameters"] = {"scale": scale_of(slots[0].weights)}
            slices.append({"sources": [source]})
        return {"merge_method": PASSTHROUGH, "slices": slices}
