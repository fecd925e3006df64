"""From a recipe and checkpoint headers to a plan: one operation per output tensor.

Two executors carry out the same plan, one into a live model (`memory.py`), one onto disk (`disk.py`);
both call `execute.produce`, so what was scored is what is exported. Planning reads headers only.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from evomerge import plugins
from evomerge.checkpoints.architecture import Architecture, is_vocabulary
from evomerge.checkpoints.folder import Checkpoint
from evomerge.checkpoints.headers import TensorSpec
from evomerge.checkpoints.language import TOWERS, is_multimodal
from evomerge.checkpoints.measured import Measured, statistics_name
from evomerge.checkpoints.rows import RowMap
from evomerge.checkpoints.shared_rows import unshared_rows
from evomerge.checkpoints.tied import head_name, read_structure
from evomerge.checkpoints.tokenizer import TokenizerFiles
from evomerge.checkpoints.vocabulary import BASE, Vocabulary, merged_vocabulary, with_special
from evomerge.errors import CheckpointError, MergeError, RecipeError, unknown
from evomerge.merge.depth import check_layers, config_along
from evomerge.merge.method import MergeMethod, Surveying, statistic_of, taken
from evomerge.merge.path import Member, Route, is_tied, route
from evomerge.parameters import bind, declared
from evomerge.recipe import Merge, Recipe
from evomerge.types import Value

_log = logging.getLogger(__name__)

_SIZES = ("vocab_size", "vocab_size_per_layer_input")
DTYPE_CODES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}


@dataclass(frozen=True, kw_only=True)
class Operand:
    """A tensor of a source model; with `rows`, gathered from `donors`, which are those of its picks."""

    model: str
    tensor: str
    rows: RowMap | None = None
    donors: tuple[Operand, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Copy:
    """The output is the operand, cast."""

    operand: Operand


@dataclass(frozen=True, kw_only=True)
class SharedRows:
    """Of a table of tokens, the first `count` rows are merged, but for those in `own`.

    These and all that follow are `home`'s.
    """

    home: Operand
    count: int
    own: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Apply:
    """The output is a method applied to the operands, with what was measured on each, if it asks for that.

    Of a table of tokens, it may be applied to the `rows` that the operands share only.
    """

    method: MergeMethod
    base: Operand | None
    operands: tuple[Operand, ...]
    statistics: tuple[Operand | None, ...] = ()
    inputs_first: bool = False
    rows: SharedRows | None = None


@dataclass(frozen=True, kw_only=True)
class Routed:
    """The output is the tensor `part` of a merge or model, itself not part of the output, times `factor`.

    The part keeps the name it has in its merge: random masks and surveys go by it, wherever it ends up.
    """

    merge: str
    part: Output
    factor: float


Operation: TypeAlias = Copy | Apply | Routed


@dataclass(frozen=True, kw_only=True)
class Output:
    """One tensor of the merged model."""

    name: str
    spec: TensorSpec
    operation: Operation


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Every tensor of the merged model, in writing order, its config and its tokenizer.

    `special` are the ids of special tokens where they are not the template's; `parts` the merges that a path
    takes tensors from and that must be looked at as a whole first.
    """

    outputs: tuple[Output, ...]
    config: Mapping[str, Any]
    template: str
    seed: int
    tokenizer: TokenizerFiles | None = None
    special: Mapping[str, Any] | None = None
    parts: Mapping[str, tuple[Output, ...]] = field(default_factory=dict)

    @property
    def models(self) -> tuple[str, ...]:
        """The models the plan reads, each once."""
        read = {self.template: None}
        for output in (*self.outputs, *(each for part in self.parts.values() for each in part)):
            for operand in operands_of(output.operation):
                read |= dict.fromkeys([operand.model, *(donor.model for donor in operand.donors)])
        return tuple(read)

    @property
    def nbytes(self) -> int:
        """Bytes of the merged model."""
        return sum(output.spec.nbytes for output in self.outputs)

    @property
    def surveyed(self) -> tuple[Output, ...]:
        """The outputs that must all be looked at before any can be made."""
        return surveyed(self.outputs)


def surveyed(outputs: tuple[Output, ...]) -> tuple[Output, ...]:
    """Return those of the outputs that must all be looked at before any can be made."""
    return tuple(output for output in outputs if survey_key(output.operation) is not None)


def operands_of(operation: Operation) -> tuple[Operand, ...]:
    """Return what the operation reads."""
    if isinstance(operation, Routed):
        return operands_of(operation.part.operation)
    if isinstance(operation, Copy):
        return (operation.operand,)
    others = (operation.base, operation.rows.home if operation.rows else None)
    return operation.operands + tuple(other for other in others if other)


def survey_key(operation: Operation) -> Hashable | None:
    """Return what the operation's survey depends on, or None if it needs none."""
    if isinstance(operation, Apply) and isinstance(operation.method, Surveying):
        return operation.method.survey_key()
    return None


def compile_plan(recipe: Recipe, checkpoints: Mapping[str, Checkpoint]) -> Plan:
    """Return the plan that builds `recipe` from `checkpoints` (by the recipe's model names).

    Raises `RecipeError` for a recipe the method cannot carry out.
    """
    if recipe.path is not None:
        return _stack(recipe, checkpoints)
    part = _merged(recipe, recipe.embed_from, checkpoints, _code(recipe.dtype))
    return _plan(recipe, part, outputs=part.outputs, config=part.config, tied=part.tied)


def _plan(
    recipe: Recipe, part: _Part, *, outputs: tuple[Output, ...], config: Mapping[str, Any], tied: bool
) -> Plan:
    """Return the plan of `outputs` in the words of `part`."""
    vocabulary = part.vocabulary
    return Plan(
        outputs=outputs,
        config=_edited(config, recipe.dtype, tied=tied, vocabulary=vocabulary),
        template=part.template,
        seed=recipe.seed,
        tokenizer=vocabulary.tokenizer if vocabulary else TokenizerFiles(folder=part.home),
        special=vocabulary.special if vocabulary else None,
    )


@dataclass(frozen=True, kw_only=True)
class _Part:
    """A merge, or a model of a path as if it were one, in the form of the model `template`.

    `vocabulary` is None if it is that of `home`.
    """

    template: str
    outputs: tuple[Output, ...]
    config: Mapping[str, Any]
    home: Path
    tied: bool
    vocabulary: Vocabulary | None = None


def _merged(recipe: Recipe, name: str, checkpoints: Mapping[str, Checkpoint], code: str | None) -> _Part:
    """Return a merge of the recipe as a whole, its floats in the dtype `code` (None: as the template's)."""
    merge = recipe.merges[name]
    used = {model: checkpoints[model] for model in recipe.read_by(name)}
    structures = {name: read_structure(model) for name, model in used.items()}
    template = _form(structures)
    _check_sources(merge)
    _check_groups(merge, structures[template].layers)
    _check_measured(merge, used)
    words = recipe.tokenizer
    if words is not None and name != recipe.embed_from:
        words = BASE  # its layers are wanted, not its words
    planner = _Planner(
        merge=merge,
        used=used,
        structures=structures,
        template=template,
        own=_own_rows(template, used, structures),
        vocabulary=_vocabulary(words, merge, template, used, structures),
        untie=recipe.untie,
    )
    names, tied = planner.names()
    outputs = tuple(planner.output(name, code) for name in names)
    _check_surveys(outputs)
    config, home = used[template].config, used[template].home
    return _Part(
        template=template,
        outputs=outputs,
        config=config,
        home=home,
        tied=tied,
        vocabulary=planner.vocabulary,
    )


def _alone(name: str, model: Checkpoint) -> _Part:
    """Return a source as it is; of a tied one no copy of the embedding as head."""
    structure = read_structure(model)
    outputs = tuple(
        Output(name=tensor, spec=spec, operation=Copy(operand=Operand(model=name, tensor=tensor)))
        for tensor, spec in model.specs.items()
        if not (structure.tied and tensor == structure.head)
    )
    return _Part(template=name, outputs=outputs, config=model.config, home=model.home, tied=structure.tied)


def _stack(recipe: Recipe, checkpoints: Mapping[str, Checkpoint]) -> Plan:
    """Return the plan of a path: each tensor is one of a model or merge, under the name of its slot."""
    path, code = recipe.path or (), _code(recipe.dtype)
    for name in recipe.used:
        if is_multimodal(checkpoints[name].config):
            raise RecipeError(f"a path takes its layers from plain language models, and `{name}` also sees")
    parts = {
        name: _merged(recipe, name, checkpoints, None)
        if name in recipe.merges
        else _alone(name, checkpoints[name])
        for name in recipe.parts
    }
    members = {
        name: Member(name=name, config=part.config, specs={each.name: each.spec for each in part.outputs})
        for name, part in parts.items()
    }
    check_layers(recipe.embed_from, path, members)
    made = {name: {output.name: output for output in part.outputs} for name, part in parts.items()}
    outputs = tuple(_routed(each, made[each.part][each.tensor], code) for each in route(recipe, members))
    config = config_along(recipe.embed_from, path, members)
    plan = _plan(
        recipe, parts[recipe.embed_from], outputs=outputs, config=config, tied=is_tied(recipe, members)
    )
    looked_at = {name: part.outputs for name, part in parts.items() if surveyed(part.outputs)}
    return replace(plan, parts=looked_at)


def _routed(route: Route, part: Output, code: str | None) -> Output:
    spec = replace(route.spec, dtype=code) if code and route.spec.is_float else route.spec
    if route.factor == 1 and isinstance(part.operation, Copy):
        return Output(name=route.name, spec=spec, operation=part.operation)
    operation = Routed(merge=route.part, part=part, factor=route.factor)
    return Output(name=route.name, spec=spec, operation=operation)


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
    used: Mapping[str, Checkpoint]
    structures: Mapping[str, Architecture]
    template: str
    own: frozenset[int] | None
    vocabulary: Vocabulary | None
    untie: bool

    def names(self) -> tuple[list[str], bool]:
        """Return the tensors of the merged model, and whether its head is its embedding.

        It is if that holds for every model, unless it is to be untied; then a head of its own is written.
        """
        form = self.structures[self.template]
        heads = dict.fromkeys(
            form.own(each.plain(each.head) or each.head) for each in self.structures.values() if each.head
        )
        names = list(self.used[self.template].specs)
        if all(each.tied for each in self.structures.values()):
            if not self.untie:
                return [name for name in names if name not in heads], True
            heads = heads or {self._new_head(): None}
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
            return Output(name=name, spec=spec, operation=Copy(operand=home))
        shape = (home.rows.length, *spec.shape[1:]) if home.rows else spec.shape
        target = TensorSpec(dtype=code or spec.dtype, shape=shape)
        operation = Copy(operand=home) if plain is None else self._operation(name, plain, found)
        return Output(name=name, spec=target, operation=operation)

    def _operation(self, name: str, plain: str, models: Mapping[str, Operand | None]) -> Operation:
        over = self.merge.base if plugins.load("methods", self.merge.method).base != "unused" else None
        base = models[over] if over is not None else None
        home = models[self.template]
        assert home is not None  # `output` has looked
        found = [models[source] for source in self.merge.sources]
        operands = tuple(operand for operand in found if operand is not None)
        if len(operands) < len(found) or (over is not None and base is None):
            _log.warning("`%s` is not in every source: copied from `%s`", name, self.template)
            return Copy(operand=home)
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

        A tied model's output head is its embedding once more, of which nothing is counted twice.
        """
        kind = statistic_of(plugins.load("methods", self.merge.method))
        if kind is None:
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
            _check_fits(measured, stored, operand, model.specs[operand.tensor].shape)
            found.append(Operand(model=statistics_name(operand.model, kind), tensor=stored))
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
        structure, kind = self.structures[self.template], plugins.load("methods", self.merge.method)
        settled = self.merge.settings(name, *structure.place(name), structure.layers)
        settings = {
            key: self._by_source(key, value) if isinstance(value, Mapping) else value
            for key, value in settled.items()
            if value is not None
        }
        try:
            bound: MergeMethod = bind(kind, settings, len(self.merge.sources), compat=self.merge.compat)
        except MergeError as error:
            raise RecipeError(f"`{self.merge.method}` cannot merge `{name}` so: {error}") from error
        return bound

    def _by_source(self, key: str, values: Mapping[str, Value | None]) -> tuple[Value, ...]:
        """Return the values in the order of the sources, each of which is named; None is the default."""
        for source in self.merge.sources:
            if source not in values:
                raise RecipeError(f"`{key}` has no value for the source `{source}`")
        for source in values:
            if source not in self.merge.sources:
                raise RecipeError(f"`{key}`: {unknown('source', source, self.merge.sources)}")
        known = declared(plugins.load("methods", self.merge.method))
        default = known[key].default(self.merge.compat) if key in known else 0.0  # `bind` refuses other keys
        given = (values[source] for source in self.merge.sources)
        return tuple(default if value is None else value for value in given)

    def _find(self, model: str, plain: str) -> Operand | None:
        """Return where `model` keeps what a plain LLM calls `plain`; a tied model's head is its embedding."""
        structure, form = self.structures[model], self.structures[self.template]
        own = structure.own(plain)
        heads = {each.plain(each.head) for each in self.structures.values() if each.head}
        beyond = form.own(plain) not in self.used[self.template].specs  # only a head is added to those
        if structure.tied and (plain in heads or beyond):
            return Operand(model=model, tensor=structure.embedding)
        if own in self.used[model].specs:
            return Operand(model=model, tensor=own)
        return None


def _code(dtype: str | None) -> str | None:
    if dtype is not None and dtype not in DTYPE_CODES:
        raise RecipeError(unknown("dtype of a merged model", dtype, DTYPE_CODES))
    return DTYPE_CODES[dtype] if dtype else None


def _check_sources(merge: Merge) -> None:
    kind = plugins.load("methods", merge.method)
    if allowed := taken(kind, len(merge.sources)):
        raise RecipeError(f"`{merge.method}` takes {allowed} source(s), found {len(merge.sources)}")
    if kind.base == "needed" and merge.base is None:
        raise RecipeError(f"`{merge.method}` needs a base model; add `base: NAME`")


def _check_measured(merge: Merge, used: Mapping[str, Checkpoint]) -> None:
    kind = statistic_of(plugins.load("methods", merge.method))
    for source in merge.sources if kind else ():
        if kind not in used[source].statistics:
            raise RecipeError(
                f"`{merge.method}` merges by the {kind} of each source, and `{source}` has none; make its "
                f"file with `evomerge measure {kind}` and name it as `{kind}: FILE` where the source stands"
            )


def _check_fits(measured: Measured, stored: str, operand: Operand, shape: tuple[int, ...]) -> None:
    """Raise `RecipeError` if the statistic of a weight of this `shape` has another shape than it must."""
    origin, found = measured.origin, measured.specs[stored].shape
    want = shape
    if origin.kind == "gram":
        inputs = shape[0 if operand.tensor in origin.inputs_first else -1]
        want = (inputs, inputs)
    if found != want:
        raise RecipeError(
            f"{measured.path} does not fit `{operand.model}`: its {origin.kind} of `{operand.tensor}` is "
            f"{list(found)}, not {list(want)}; measure it again"
        )


def _check_groups(merge: Merge, layers: int) -> None:
    for group in merge.groups:
        if group.layers is not None and group.layers[1] >= layers:
            raise RecipeError(
                f"a group covers layers {list(group.layers)}, but the model's last layer is {layers - 1}"
            )


def _check_surveys(outputs: tuple[Output, ...]) -> None:
    keys = {survey_key(output.operation) for output in outputs} - {None}
    if len(keys) > 1:
        raise RecipeError(
            "a method that looks at the whole model needs the same parameters (weights aside) in all groups; "
            "fix them at one value each, or use `scope: tensor` where there is one"
        )


def _edited(
    config: Mapping[str, Any], dtype: str | None, *, tied: bool, vocabulary: Vocabulary | None
) -> dict[str, Any]:
    """Return the config of the merged model: its dtype, its words, and whether the head is the embedding.

    A model that sees may say dtype and head again of its towers.
    """
    edited = {**config, "tie_word_embeddings": tied}
    changed = config.get("tie_word_embeddings") is not tied
    if dtype is not None:
        edited.pop("torch_dtype", None)
        edited["dtype"] = dtype
    for key, part in config.items():
        if key in TOWERS and isinstance(part, Mapping):
            again: dict[str, Any] = {
                said: dtype for said in ("dtype", "torch_dtype") if dtype is not None and said in part
            }
            if "tie_word_embeddings" in part or (key == "text_config" and changed):
                again["tie_word_embeddings"] = tied
            edited[key] = {**part, **again}
    if vocabulary is not None:
        edited |= {key: vocabulary.length for key in _SIZES if key in edited}
    if vocabulary is not None and vocabulary.special is not None:
        edited = with_special(edited, vocabulary.special)
    return edited
