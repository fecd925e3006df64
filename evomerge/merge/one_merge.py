"""The plan of one merge: which tensors of which models a method turns into each tensor of the output."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from evomerge import plugins
from evomerge.checkpoints.architecture import Architecture, is_vocabulary
from evomerge.checkpoints.folder import Checkpoint
from evomerge.checkpoints.headers import TensorSpec
from evomerge.checkpoints.measured import statistics_name
from evomerge.checkpoints.shared_rows import unshared_rows
from evomerge.checkpoints.tied import head_name, read_structure
from evomerge.checkpoints.vocabulary import BASE, Vocabulary, merged_vocabulary
from evomerge.errors import CheckpointError, MergeError, RecipeError, unknown
from evomerge.merge.checks import (
    check_filters,
    check_fits,
    check_groups,
    check_measured,
    check_sources,
    check_surveys,
)
from evomerge.merge.method import MergeMethod, statistic_of
from evomerge.merge.plan import Apply, Copy, Operand, Operation, Output, SharedRows, routed
from evomerge.parameters import bind, declared
from evomerge.recipe import Merge, Recipe
from evomerge.types import Statistic, Value

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Part:
    """A merge, or a model of a path as if it were one, in the form of the model `template`.

    `vocabulary` is None if it is that of `home`, the folder of the template.
    """

    template: str
    outputs: tuple[Output, ...]
    config: Mapping[str, Any]
    home: Path
    tied: bool
    vocabulary: Vocabulary | None = None

    @cached_property
    def made(self) -> Mapping[str, Output]:
        """Its tensors by name."""
        return {output.name: output for output in self.outputs}

    @cached_property
    def as_model(self) -> Checkpoint:
        """What other merges see of it: a model whose tensors no file holds."""
        specs = {name: output.spec for name, output in self.made.items()}
        return Checkpoint(path=self.home, config=self.config, specs=specs, files={})


def plan_merge(
    recipe: Recipe,
    name: str,
    checkpoints: Mapping[str, Checkpoint],
    merges: Mapping[str, Part],
    code: str | None,
) -> Part:
    """Return a merge of the recipe as a whole, its floats in the dtype `code` (None: as the template's).

    `merges` are those that it may read.
    """
    merge = recipe.merges[name]
    operands = recipe.operands(name)
    inner = {each: merges[each] for each in operands if each not in recipe.models}
    used = {each: inner[each].as_model if each in inner else checkpoints[each] for each in operands}
    structures = {name: read_structure(model) for name, model in used.items()}
    template = _form(structures)
    if recipe.template not in ("", template) and name == recipe.embed_from:
        raise RecipeError(
            f"`template: {recipe.template}` is a plain language model and `{template}` also sees, so the "
            "merge has the form of that one; name it instead, or leave `template` out"
        )
    check_sources(merge)
    check_groups(merge, structures[template].layers)
    check_measured(merge, used, inner)
    words = recipe.tokenizer
    if words is not None and name != recipe.embed_from:
        words = BASE  # its layers are wanted, not its words
    planner = _Planner(
        merge=merge,
        inner=inner,
        used=used,
        structures=structures,
        template=template,
        own=_own_rows(template, used, structures),
        vocabulary=_vocabulary(words, merge, template, used, structures),
        untie=recipe.untie,
    )
    names, tied = planner.names()
    outputs = tuple(planner.output(name, code) for name in names)
    check_filters(merge, names)
    check_surveys(merge, outputs)
    config, home = used[template].config, used[template].home
    return Part(
        template=inner[template].template if template in inner else template,
        outputs=outputs,
        config=config,
        home=home,
        tied=tied,
        vocabulary=planner.vocabulary,
    )


def _form(structures: Mapping[str, Architecture]) -> str:
    """Return the model whose form the output has: the first that sees, or else the first."""
    return next((name for name, structure in structures.items() if structure.tower), next(iter(structures)))


def _own_rows(
    template: str, used: Mapping[str, Checkpoint], structures: Mapping[str, Architecture]
) -> frozenset[int] | None:
    """Return the rows of the token tables that are the template's alone; None if it does not see."""
    if structures[template].tower is None:
        return None
    return unshared_rows(used[template], (model for name, model in used.items() if name != template))


def _vocabulary(
    words: str | None,
    merge: Merge,
    template: str,
    used: Mapping[str, Checkpoint],
    structures: Mapping[str, Architecture],
) -> Vocabulary | None:
    """Return how tokens are matched; None if models share them, or the template sees and keeps its own."""
    if structures[template].tower is None:
        return merged_vocabulary(words, template=template, base=merge.base, models=used)
    if words is not None:
        raise RecipeError(
            f"`{template}` is a vision-language model, which keeps its own words; leave out `tokenizer`"
        )
    return None


@dataclass(frozen=True, kw_only=True)
class _Planner:
    merge: Merge
    inner: Mapping[str, Part]
    used: Mapping[str, Checkpoint]
    structures: Mapping[str, Architecture]
    template: str
    own: frozenset[int] | None
    vocabulary: Vocabulary | None
    untie: bool
    _bound: dict[str, MergeMethod] = field(default_factory=dict, init=False, repr=False, compare=False)
    """Methods made so far, by their parameters as text; most tensors share them."""

    @cached_property
    def kind(self) -> type[MergeMethod]:
        """The merge's method, its parameters open."""
        kind: type[MergeMethod] = plugins.load("methods", self.merge.method)
        return kind

    @cached_property
    def statistic(self) -> Statistic | None:
        """What the method needs measured on each source, if anything."""
        return statistic_of(self.kind)

    @cached_property
    def heads(self) -> tuple[str, ...]:
        """What a plain LLM calls the output heads that the models have, each once."""
        found = ((each, each.head) for each in self.structures.values() if each.head)
        return tuple(dict.fromkeys(each.plain(head) or head for each, head in found))

    def names(self) -> tuple[list[str], bool]:
        """Return the tensors of the merged model, and whether its head is its embedding.

        It is if that holds for every model, unless it is to be untied; then a head of its own is written.
        """
        form = self.structures[self.template]
        heads = [form.own(head) for head in self.heads]
        names = list(self.used[self.template].specs)
        if all(each.tied for each in self.structures.values()):
            if not self.untie:
                return [name for name in names if name not in heads], True
            heads = heads or [self._new_head()]
        return [*names, *(head for head in heads if head not in names)], False

    def _new_head(self) -> str:
        """Return the name of the head that a merge of tied models gets."""
        model_type = self.structures[self.template].model_type
        if (name := head_name(model_type)) is None:
            raise RecipeError(
                f"the output head of a `{model_type}` is its embedding and has no name of its own, so "
                "it cannot be untied; leave out `untie`"
            )
        return name

    def output(self, name: str, code: str | None) -> Output:
        plain = self.structures[self.template].plain(name)
        stored: dict[str, Operand | None] = {self.template: Operand(model=self.template, tensor=name)}
        found = stored if plain is None else self._aligned(plain)
        home = found[self.template]
        if home is None:
            raise CheckpointError(f"`{self.template}` has no `{name}`")
        spec = self.used[self.template].specs[home.tensor]
        if not spec.is_float:
            return Output(name=name, spec=spec, operation=self._copy(home))
        shape = (home.rows.length, *spec.shape[1:]) if home.rows else spec.shape
        target = TensorSpec(dtype=code or spec.dtype, shape=shape)
        operation = self._copy(home) if plain is None else self._operation(name, plain, found)
        return Output(name=name, spec=target, operation=operation)

    def _copy(self, home: Operand) -> Operation:
        """Return the operation that takes `home` as it is."""
        if home.model in self.inner and home.rows is None:
            return routed(home.model, self.inner[home.model].made[home.tensor])
        return Copy(operand=home)

    def _operation(self, name: str, plain: str, models: Mapping[str, Operand | None]) -> Operation:
        over = self.merge.base if self.kind.base != "unused" else None
        base = models[over] if over is not None else None
        home = models[self.template]
        assert home is not None  # `output` has looked
        found = [models[source] for source in self.merge.sources]
        operands = tuple(operand for operand in found if operand is not None)
        if len(operands) < len(found) or (over is not None and base is None):
            _log.warning("`%s` is not in every source: copied from `%s`", name, self.template)
            return self._copy(home)
        statistics, inputs_first = self._statistics(plain, operands)
        return Apply(
            method=self._method(name),
            base=base,
            operands=operands,
            statistics=statistics,
            inputs_first=inputs_first,
            rows=self._rows(home, (*operands, *([base] if base else []))),
        )

    def _rows(self, home: Operand, read: tuple[Operand, ...]) -> SharedRows | None:
        """Return which rows are merged of a table of a model that sees; None if all are."""
        structure = self.structures[self.template]
        if self.own is None or home.tensor not in (structure.embedding, structure.head):
            return None
        lengths = {self.used[each.model].specs[each.tensor].shape[0] for each in (home, *read)}
        count = min(lengths)
        own = tuple(sorted(row for row in self.own if row < count))
        return SharedRows(home=home, count=count, own=own) if own or len(lengths) > 1 else None

    def _statistics(
        self, plain: str, operands: tuple[Operand, ...]
    ) -> tuple[tuple[Operand | None, ...], bool]:
        """Return what was measured for each operand, and whether the weight is stored inputs first.

        A tied model's output head is its embedding once more, of which nothing is counted twice. Where rows
        are matched by token, a number per entry goes with its row, and of a token that a model lacks it is 0.
        """
        if (kind := self.statistic) is None:
            return (), False
        found: list[Operand | None] = []
        turned = set()
        for operand in operands:
            model = self.used[operand.model]
            measured = model.statistics[kind]
            own = self.structures[operand.model].own(plain)
            stored = measured.find(operand.tensor) if operand.tensor == own else None
            if stored is None:
                found.append(None)
                continue
            turned.add(operand.tensor in measured.origin.inputs_first)
            check_fits(measured, stored, operand, model.specs[operand.tensor].shape)
            numbers = Operand(model=statistics_name(operand.model, kind), tensor=stored)
            if kind == "fisher" and operand.rows is not None:
                numbers = replace(numbers, rows=operand.rows.own(), donors=(numbers,))
            found.append(numbers)
        if len(turned) > 1:
            raise RecipeError(f"the {kind} files of the sources disagree on how `{plain}` is stored")
        return tuple(found), turned == {True}

    def _aligned(self, name: str) -> dict[str, Operand | None]:
        """Return each model's operand for `name`, its rows matched where they stand for tokens."""
        found = {model: self._find(model, name) for model in self.used}
        there = {model: operand for model, operand in found.items() if operand is not None}
        if self.vocabulary is None or not self._by_token(name, there):
            return found
        rows = tuple((model, self._spec(operand).shape[0]) for model, operand in there.items())
        for model, operand in there.items():
            if (gathered := self.vocabulary.row_map(model, rows)) is not None:
                donors = tuple(there[pick.model] for pick in gathered.picks)
                found[model] = replace(operand, rows=gathered, donors=donors)
        return found

    def _by_token(self, name: str, there: Mapping[str, Operand]) -> bool:
        """Return whether a row of `name` stands for a token in every model that has it."""
        if not is_vocabulary(name):
            return False
        return all(
            self._spec(operand).shape[:1]
            == self.used[model].specs[self.structures[model].embedding].shape[:1]
            for model, operand in there.items()
        )

    def _spec(self, operand: Operand) -> TensorSpec:
        return self.used[operand.model].specs[operand.tensor]

    def _method(self, name: str) -> MergeMethod:
        """Return the merge's method with the parameters in force at the tensor `name`."""
        structure = self.structures[self.template]
        settled = self.merge.settings(name, *structure.place(name), structure.layers)
        settings = {
            key: self._by_source(key, value) if isinstance(value, Mapping) else value
            for key, value in settled.items()
            if value is not None
        }
        if (said := repr(settings)) not in self._bound:
            try:
                bound = bind(self.kind, settings, len(self.merge.sources), compat=self.merge.compat)
            except MergeError as error:
                raise RecipeError(f"`{self.merge.method}` cannot merge `{name}` so: {error}") from error
            self._bound[said] = bound
        return self._bound[said]

    def _by_source(self, key: str, values: Mapping[str, Value | None]) -> tuple[Value, ...]:
        """Return the values in the order of the sources, each of which is named; None is the default."""
        for source in self.merge.sources:
            if source not in values:
                raise RecipeError(f"`{key}` has no value for the source `{source}`")
        for source in values:
            if source not in self.merge.sources:
                raise RecipeError(f"`{key}`: {unknown('source', source, self.merge.sources)}")
        known = declared(self.kind)
        default = known[key].default(self.merge.compat) if key in known else 0.0  # `bind` refuses other keys
        given = (values[source] for source in self.merge.sources)
        return tuple(default if value is None else value for value in given)

    def _find(self, model: str, plain: str) -> Operand | None:
        """Return where `model` keeps what a plain LLM calls `plain`; a tied model's head is its embedding."""
        structure, form = self.structures[model], self.structures[self.template]
        own = structure.own(plain)
        beyond = form.own(plain) not in self.used[self.template].specs  # only a head is added to those
        if structure.tied and (plain in self.heads or beyond):
            return Operand(model=model, tensor=structure.embedding)
        if own in self.used[model].specs:
            return Operand(model=model, tensor=own)
        return None
