"""From mergekit's YAML to a recipe that merges to what mergekit would make of it.

Numbers differ where `docs/guides/coming-from-mergekit.md` says so: evomerge computes in float32 and rounds
once, and draws random masks of its own. Format: https://github.com/arcee-ai/mergekit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from evomerge import plugins
from evomerge.errors import RecipeError, unknown
from evomerge.merge.method import taken
from evomerge.mergekit.config import read_config
from evomerge.mergekit.findings import Findings
from evomerge.mergekit.form import Config, Input, Reference, Slice
from evomerge.mergekit.known import DRAWS, METHODS, PASSTHROUGH
from evomerge.mergekit.models import Names
from evomerge.mergekit.parameters import settings_of
from evomerge.mergekit.parts import Part, in_slices, overlap, whole
from evomerge.mergekit.stacking import passthrough_of
from evomerge.recipe import Merge, ModelRef, Recipe, Slot
from evomerge.recipe.path import NO_ENDS, Ends
from evomerge.space.document import read_documents

LayersOf = Callable[[ModelRef], int | None]
"""Tells how many layers a model has, None where that is not known here."""

_KIND = "a recipe of mergekit is a table of keys, like `merge_method:` and `models:`"
_MERGED = "merged"
_METHODS = (*METHODS, PASSTHROUGH)


def no_layers(model: ModelRef) -> int | None:
    """Return None: nothing is known of the models."""
    del model
    return None  # mypy asks for it


def from_mergekit(
    text: str, name: str = "mergekit.yaml", *, layers_of: LayersOf = no_layers
) -> tuple[Recipe, tuple[str, ...]]:
    """Return the recipe that a recipe of mergekit stands for, and notes on what changes nothing.

    The file may have several documents, as mergekit-multimerge reads them. `layers_of` tells whether slices
    are all of a model. Raises `ConversionError` with a line for each key that cannot be converted.
    """
    findings = Findings(name=name)
    documents = read_documents(text, name, _KIND)
    read = [read_config(document, findings) for document in documents]
    if not documents:
        findings.wrong(None, (), "has no recipe in it")
    configs = [config for config in read if config is not None]
    if not configs or len(configs) < len(read) or any(config.method not in _METHODS for config in configs):
        findings.check()
    recipe = _Builder(configs, findings, layers_of).recipe()
    return recipe, tuple(findings.notes)


@dataclass(frozen=True, kw_only=True)
class _Made:
    """What a document makes: a merge, or a stack of layers."""

    merge: str | None = None
    path: tuple[Slot, ...] | None = None
    ends: Ends = NO_ENDS


class _Builder:
    def __init__(self, configs: list[Config], findings: Findings, layers_of: LayersOf) -> None:
        self._configs = configs
        self._findings = findings
        self._layers_of = layers_of
        self._inner = [config.name for config in configs if config.name is not None]
        self._names = Names((*self._inner, _MERGED))
        self._merges: dict[str, Merge] = {}

    def recipe(self) -> Recipe:
        """Return the recipe of all documents. Raises `ConversionError` if there is none."""
        last = self._last()
        for config in [each for each in self._configs if each is not last] + [last]:
            made = self._made(config, last=config is last)
        self._findings.check()
        for config in self._configs:
            if config.method in DRAWS:
                self._findings.note(
                    (), f"mergekit's `{config.method}` draws other random masks than evomerge"
                )
        tokenizer = self._tokenizer(last, made)
        self._findings.check()
        try:
            return Recipe(
                models=self._names.models,
                merges=self._merges,
                path=made.path,
                ends=made.ends,
                dtype=last.dtype,
                tokenizer=tokenizer,
            )
        except RecipeError as error:
            self._findings.wrong(last.document, (), f"is no recipe: {error}")
            self._findings.check()
            raise

    def _last(self) -> Config:
        """Return the document that no other reads; the others are merges that it is made of."""
        names = self._inner
        for config in self._configs:
            if config.name is not None and names.count(config.name) > 1:
                self._findings.wrong(config.document, ("name",), f"is given twice: `{config.name}`")
        read = {each.path for config in self._configs for each in _references(config)}
        final = [config for config in self._configs if config.name is None or config.name not in read]
        if len(final) != 1:
            found = ", ".join(f"`{each.name}`" if each.name else "one without a name" for each in final)
            document = self._configs[-1].document
            self._findings.wrong(
                document, (), f"must make one model that no other document reads, found {found or 'none'}"
            )
            self._findings.check()
        return final[0]

    def _made(self, config: Config, *, last: bool) -> _Made:
        name = _MERGED if last else config.name or _MERGED
        stacks = config.method == PASSTHROUGH
        made = self._passthrough(config, name) if stacks else self._merged(config, name)
        if not last and made.path is not None:
            self._findings.wrong(
                config.document,
                ("name",),
                f"is a stack of layers, `{config.name}`, which others cannot merge",
            )
        if not last:
            for key, value in (("tokenizer_source", config.tokenizer), ("dtype", config.dtype)):
                if key == "dtype" and value not in (None, "float32"):
                    self._findings.note((), f"`{config.name}` is not rounded to {value} before it is merged")
                elif key != "dtype" and value is not None:
                    self._findings.wrong(
                        config.document, config.tokenizer_at, "belongs to the document that makes the result"
                    )
        return made

    def _passthrough(self, config: Config, name: str) -> _Made:
        if config.whole:
            (inputs,) = (part.inputs for part in config.slices)
            if len(inputs) == 1 and not inputs[0].parameters and not config.parameters:
                source = self._model(inputs[0].model)
                self._merges[name] = Merge(method="linear", sources=(source,))
                return _Made(merge=name)
        stacked = passthrough_of(config, self._model, self._findings)
        return _Made(path=stacked[0], ends=stacked[1]) if stacked else _Made()

    def _merged(self, config: Config, name: str) -> _Made:
        """Return the merge of a document, or the stack of layers of merges, which is then in `merges`."""
        parts = [self._part(config, part) for part in config.slices]
        if any(part is None for part in parts):
            return _Made()
        found = [part for part in parts if part is not None]
        first = found[0]
        if config.whole or (len(found) == 1 and self._all_layers(found)):
            self._merges[name] = whole(first)
            return _Made(merge=name)
        alike = all(part.key == first.key for part in found)
        if alike and len(found) > 1 and self._all_layers(found):
            self._merges[name] = in_slices(found, embed=True, head=True)
            return _Made(merge=name)
        return _Made(path=self._stacked(name, found))

    def _all_layers(self, parts: list[Part]) -> bool:
        """Return whether the slices are all layers of their models in order, as far as that is known."""
        spans = [part.span for part in parts]
        if spans[0][0] != 0 or any(before[1] != after[0] for before, after in pairwise(spans)):
            return False
        count = spans[-1][1]
        models = [self._names.models[each] for each in parts[0].models if each in self._names.models]
        known = [layers for model in models if (layers := self._layers_of(model)) is not None]
        if not known:
            self._findings.note(
                ("slices",),
                f"are taken to be all layers of the models, which have {count}; not looked at here",
            )
        return all(layers == count for layers in known)

    def _stacked(self, name: str, parts: list[Part]) -> tuple[Slot, ...]:
        """Return the layers of as many merges as it takes, which are then in `merges`."""
        runs: list[list[Part]] = []
        where: list[int] = []
        for part in parts:
            fits = [
                i for i, run in enumerate(runs)
                if run[0].key == part.key and all(not overlap(part, other) for other in run)
            ]  # fmt: skip
            if not fits:
                runs.append([])
            where.append(fits[-1] if fits else len(runs) - 1)
            runs[where[-1]].append(part)
        names = [name if len(runs) == 1 else f"{name}{i}" for i in range(1, len(runs) + 1)]
        for i, run in enumerate(runs):
            self._merges[names[i]] = in_slices(run, embed=i == where[0], head=i == where[-1])
        return tuple(
            Slot(model=names[i], layer=layer)
            for i, part in zip(where, parts, strict=True)
            for layer in range(*part.span)
        )

    def _part(self, config: Config, part: Slice) -> Part | None:
        """Return what a slice merges, None if it cannot be converted."""
        known, document = METHODS[config.method], config.document
        base = part.base or config.base
        if known.base == "needed" and base is None:
            self._findings.wrong(document, ("base_model",), f"is missing: `{config.method}` needs a base")
            return None
        inputs = part.inputs
        spans = {each.layers for each in inputs}
        if len(spans) > 1:
            self._findings.wrong(
                document,
                (*part.where, "sources"),
                "merge layers of different places, and evomerge merges a layer with the same layer of the "
                f"others, found {' and '.join(str(list(span)) for span in spans if span)}",
            )
            return None
        listed = base is not None and any(each.model == base for each in inputs)
        if known.base == "merged":
            if base is not None and not listed:
                self._findings.wrong(
                    document,
                    ("base_model",),
                    f"is merged by mergekit's `{config.method}` as one more model; list it with the others, "
                    "or leave `base_model` out",
                )
                return None
            inputs = tuple(sorted(inputs, key=lambda each: each.model != base))
        elif base is not None:
            for each in inputs:
                if each.model == base and each.parameters:
                    self._findings.note(
                        (*each.where, "parameters"), "belong to the base, which has none, and are left out"
                    )
            inputs = tuple(each for each in inputs if each.model != base)
        return self._settled(config, part, base if known.base != "merged" else None, inputs)

    def _settled(
        self, config: Config, part: Slice, base: Reference | None, merged: tuple[Input, ...]
    ) -> Part | None:
        if refusal := _count_refused(config.method, len(merged)):
            self._findings.wrong(config.document, part.where, refusal)
            return None
        over = None if base is None else self._model(base)
        sources = {self._model(each.model): each for each in merged}
        settings = settings_of(config, part, sources, self._findings)
        span = part.inputs[0].layers or (0, 0)
        key = (config.method, over, tuple(sources))
        return Part(key=key, span=span, settings=settings)

    def _model(self, reference: Reference) -> str:
        """Return the name of a model or of another document's merge."""
        if reference.path in self._inner and reference.lora is None:
            return reference.path
        return self._names.of(reference)

    def _tokenizer(self, config: Config, made: _Made) -> str | None:
        source = config.tokenizer
        if source is None or (isinstance(source, str) and made.path is None):
            return source
        given = None if isinstance(source, str) else self._model(source)
        if made.path is None:
            models = self._merges[made.merge or _MERGED].models
            if given not in models:
                self._findings.wrong(
                    config.document,
                    config.tokenizer_at,
                    f"must be one of the merged models: {unknown('model', str(source), models)}",
                )
            return given
        ends = {made.path[0].model, made.path[-1].model}
        if len(ends) == 1 and ends <= set(self._merges):
            return given or str(source)
        if len(ends) == 1 and (source == "base" or given in ends):
            return None  # all tokens are that model's own
        self._findings.wrong(
            config.document,
            config.tokenizer_at,
            "is not converted for a stack whose embedding and head are not those of one merge; leave it out "
            "if the models share one tokenizer",
        )
        return None


def _references(config: Config) -> list[Reference]:
    """Return the models that a document names, bases included."""
    bases = [config.base, *(part.base for part in config.slices)]
    listed = [each.model for part in config.slices for each in part.inputs]
    return [*listed, *(base for base in bases if base is not None)]


def _count_refused(method: str, count: int) -> str | None:
    """Return why the method cannot merge so many sources, None if it can."""
    allowed = taken(plugins.load("methods", method), count)
    if allowed is None:
        return None
    besides = " besides the base" if METHODS[method].base == "needed" else ""
    return f"`{method}` takes {allowed} model(s){besides}, found {count}"
