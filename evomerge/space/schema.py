"""The space file: every key, its kind, its default and what it means."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, FiniteFloat, field_validator, model_validator

from evomerge.recipe import MODULES
from evomerge.recipe.merge import IN_LAYERS
from evomerge.space.paths.blocks import Blocks
from evomerge.space.paths.form import MERGED
from evomerge.space.paths.layer_swap import LayerSwap
from evomerge.space.paths.ranked import Prune, Repeat
from evomerge.space.paths.slots import Slots
from evomerge.space.tables import Anchored, Count, GeneRange, Name, Number, Runs, Table, check_pairs
from evomerge.types import Backend, Value


class Source(Table):
    """A model to merge: a folder, a hub id or `zoo:NAME`.

    Instead of `source`, `run` names the folder of an earlier run, and `pick` one of its trials: the `best`
    (default; in the run's first objective, or in `objective`), the `knee` of its front, or one by number.

    `fisher`, `gram` and `influence` are files of what `evomerge measure` found on it. Where it is a LoRA
    adapter, `adapts` names the source it changes; without, that is the merge's base.
    """

    source: str | None = None
    run: str | None = None
    pick: Literal["best", "knee"] | Annotated[int, Field(ge=0)] | None = None
    objective: str | None = None
    revision: str | None = None
    adapts: Name | None = None
    fisher: str | None = None
    gram: str | None = None
    influence: str | None = None

    @model_validator(mode="after")
    def _of_one_kind(self) -> Source:
        if (self.source is None) == (self.run is None):
            found = "neither" if self.source is None else "both"
            raise ValueError(
                f"needs either `source` (a model) or `run` (the folder of an earlier run), found {found}"
            )
        of_run = {"pick": self.pick, "objective": self.objective}
        of_model = {"revision": self.revision, "adapts": self.adapts}
        kind, other, foreign = (
            ("source", "a `run`", of_run) if self.run is None else ("run", "a `source`", of_model)
        )
        if named := [f"`{key}`" for key, value in foreign.items() if value is not None]:
            verb, them = ("belongs", "it") if len(named) == 1 else ("belong", "them")
            raise ValueError(f"has a `{kind}`, and {' and '.join(named)} {verb} to {other}: leave {them} out")
        if self.objective is not None and self.pick not in (None, "best"):
            raise ValueError("has an `objective`, which says in what `pick: best` is best: leave one out")
        return self

    @property
    def stated(self) -> str:
        """Where it is said to be found: the model, or the run that made it."""
        return self.source or self.run or ""


PathSpace: TypeAlias = Annotated[Slots | Blocks | LayerSwap | Prune | Repeat, Field(discriminator="form")]
"""What may vary in the stack of layers: the forms that it may have."""


class MergeSpace(Table):
    """What may vary in the merge of `sources` over `base`.

    `layers` cuts the layers into that many equal runs (by default four, or each layer where there are
    fewer), or into the runs listed as [first, last]; "each" gives every layer its own genes, and
    {anchors: 3} three that are interpolated along the layers. `modules` lists the module groups that have
    genes of their own. `template` gives the form of the merged model: tensor
    names, config, tokenizer, and of a vision-language model all that is not language. By default it is the
    first vision-language model among base and sources, or else the base, or else the first source.
    """

    base: Name | None = None
    template: Name | None = None
    sources: list[Name] | None = None
    method: Name | list[Name] = "task_arithmetic"
    layers: Runs | Anchored = None
    modules: list[str | list[str]] = Field(default=[list(IN_LAYERS), "embed", "head"])
    genes: dict[str, GeneRange] = Field(default_factory=dict)
    compat: str = "evomerge"

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods to choose among."""
        return tuple(self.method) if isinstance(self.method, list) else (self.method,)

    @property
    def module_groups(self) -> tuple[tuple[str, ...], ...]:
        """The module groups, each a tuple of module names."""
        return tuple((each,) if isinstance(each, str) else tuple(each) for each in self.modules)

    @field_validator("modules")
    @classmethod
    def _each_module_once(cls, groups: list[str | list[str]]) -> list[str | list[str]]:
        named = [m for each in groups for m in ([each] if isinstance(each, str) else each)]
        if sorted(named) != sorted(MODULES):
            raise ValueError(
                f"must hold each of {', '.join(MODULES)} in exactly one group, found {', '.join(named)}"
            )
        for each in groups:
            inside = {module in IN_LAYERS for module in ([each] if isinstance(each, str) else each)}
            if len(inside) > 1:
                raise ValueError(
                    f"must keep {' and '.join(MODULES[3:])} apart from what lies in layers, found {each}"
                )
        return groups

    @field_validator("layers")
    @classmethod
    def _pairs(cls, layers: Runs | Anchored) -> Runs | Anchored:
        check_pairs(layers)
        return layers

    @field_validator("sources", "method")
    @classmethod
    def _no_repeats(cls, names: str | list[str] | None) -> str | list[str] | None:
        if isinstance(names, list) and (not names or len(set(names)) < len(names)):
            raise ValueError(f"must name at least one, and each once, found {', '.join(names) or 'none'}")
        return names


class Measured(Table):
    """A number lm-eval reads off a model: a task, one of its metrics, one of its filters."""

    task: str
    metric: str | None = None
    filter: str | None = None
    name: Name | None = None


class Objective(Measured):
    """A measure to improve; which way is better is read from lm-eval."""


class Constraint(Measured):
    """A measure that must stay at or above `min`, at or below `max`, or both."""

    min: FiniteFloat | None = None
    max: FiniteFloat | None = None

    @model_validator(mode="after")
    def _bounded(self) -> Constraint:
        if self.min is None and self.max is None:
            raise ValueError("needs `min`, `max` or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"must have `min` at most `max`, found {self.min:g} and {self.max:g}")
        return self

    def missed_by(self, score: float) -> float:
        """Return how far `score` lies outside the bounds; at most 0 inside them."""
        below = self.min - score if self.min is not None else -math.inf
        above = score - self.max if self.max is not None else -math.inf
        return max(below, above)

    @property
    def bounds(self) -> tuple[str, ...]:
        """The bounds as people write them."""
        both = (("≥", self.min), ("≤", self.max))
        return tuple(f"{sign} {bound:g}" for sign, bound in both if bound is not None)


HashFile: TypeAlias = Annotated[str, Field(min_length=1)]
"""A file of items' content hashes, one to a line."""


class Items(Table):
    """How many items of each task to search on, how many others to choose the winners on, and to report on.

    With `select: 0` the winners are chosen on the search items. In place of a number stands a file that
    names the items of all tasks by their content hash, one to a line.
    """

    search: Count | HashFile | None = None
    select: Number | HashFile | None = None
    report: Count | HashFile | None = None


class Racing(Table):
    """When a candidate is given up before all its search items are scored.

    After each of `looks` items it is compared with the incumbent (with several objectives: with every
    member of the front), and given up if it is confidently worse. `alpha` is the risk, over all looks
    together, of giving up one that is as good. `margin` also gives up those that confidently cannot be that
    much better. The first `cold_start` candidates compete with one another, too: a third of them goes on
    from each rung.
    """

    looks: list[Count] = Field(default=[25, 50, 100, 200, 350], min_length=1)
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.2
    margin: Annotated[float, Field(ge=0)] = 0.01
    cold_start: Annotated[int, Field(ge=0)] | None = None


class SamplerChoice(Table):
    """A sampler by name (its file, an entry point, or `optunahub:PACKAGE`) with its own options."""

    name: str
    options: dict[str, Value] = Field(default_factory=dict)


class Space(Table):
    """A validated space file.

    With a `path` the candidates are stacks of layers, from the sources and from what `merge` makes of them,
    whose genes are searched only if the path may take layers from `merged`.

    `tokenizer` is `base`, `union` or the name of a merged model, and matches the models' tokens by their
    strings; without it they must share one tokenizer. `untie` gives models whose output head is their
    embedding a head of its own.

    `held_out` are measures that are only reported: no candidate is chosen by them.

    `baselines` asks for more than the usual models to compare with: `greedy_soup` costs a trial per source.

    `racing` (on by default) gives up candidates that a part of the search items rules out; `off` scores all
    on all items. `inherit` lets a candidate that is an earlier one again have its scores.

    `backend` is what runs the candidates: `transformers`, or `vllm` where that is installed. vLLM sums in
    other orders, so its scores differ in their last digits, and it makes up its own batches.

    `batch_size` and `threads` (torch's, per CPU worker) stand here because sums, and so now and then a
    score, depend on how they are split: they belong to what is reproduced.

    `candidate_time_limit` is how many seconds one question about a candidate may take (who it is, a look at
    some items, all items at once; the merge included). A worker that takes longer is ended; the candidate is
    tried once more, and then fails. It may be changed when a run is continued.
    """

    name: Name
    sources: dict[Name, Source] = Field(min_length=1)
    merge: MergeSpace = Field(default_factory=MergeSpace)
    path: PathSpace | None = None
    objectives: list[Objective] = Field(min_length=1)
    constraints: list[Constraint] = Field(default_factory=list)
    held_out: list[Measured] = Field(default_factory=list)
    tasks: str | None = None
    few_shot: Annotated[int, Field(ge=0)] | None = None
    items: Items = Field(default_factory=Items)
    baselines: list[Literal["greedy_soup"]] = Field(default_factory=list)
    sampler: SamplerChoice | None = None
    racing: Racing | bool = True
    inherit: bool = True
    seed: Annotated[int, Field(ge=0)] = 0
    budget: Count = 200
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    tokenizer: Name | None = None
    untie: bool = False
    backend: Backend = "transformers"
    batch_size: Count = 32
    threads: Annotated[Count, Field(le=1024)] = 1
    candidate_time_limit: Annotated[FiniteFloat, Field(gt=0)] | None = None

    @property
    def merged(self) -> tuple[str, ...]:
        """The sources that are merged: those named, or all but the base."""
        if self.merge.sources is not None:
            return tuple(self.merge.sources)
        return tuple(name for name in self.sources if name != self.merge.base)

    @property
    def path_models(self) -> tuple[str, ...]:
        """The models the path takes layers from, where the search begins first; none without a path."""
        if self.path is None:
            return ()
        return tuple(self.path.models) if self.path.models is not None else self.merged

    @property
    def merges(self) -> bool:
        """Whether candidates are merges of its sources, or may have layers or ends of one."""
        return self.path is None or MERGED in (*self.path_models, *self.path.named)

    @property
    def parents(self) -> tuple[str, ...]:
        """The sources that candidates are made of, each once: those merged, then those of the path."""
        path = [*self.path_models, *(self.path.named if self.path else ())]
        return tuple(dict.fromkeys([*self.merged, *(name for name in path if name != MERGED)]))

    @property
    def used(self) -> tuple[str, ...]:
        """The sources it needs, each once: template and base, and the parents."""
        first = [name for name in (self.merge.template, self.merge.base) if name is not None]
        return tuple(dict.fromkeys([*first, *self.parents]))

    @property
    def race(self) -> Racing | None:
        """The rules of the race; None if it is off."""
        if isinstance(self.racing, Racing):
            return self.racing
        return Racing() if self.racing else None

    @property
    def measured(self) -> dict[str, Sequence[Measured]]:
        """All that is measured, by the key that asks for it."""
        return {
            "objectives": self.objectives,
            "constraints": self.constraints,
            "held_out": self.held_out,
        }

    @property
    def sampler_choice(self) -> SamplerChoice:
        """The sampler asked for, or the one that suits the number of objectives."""
        if self.sampler is not None:
            return self.sampler
        return SamplerChoice(name="cma" if len(self.objectives) == 1 else "nsgaii")

    @field_validator("sources", mode="before")
    @classmethod
    def _plain_sources(cls, sources: object) -> object:
        if not isinstance(sources, dict):
            return sources
        return {name: {"source": each} if isinstance(each, str) else each for name, each in sources.items()}

    @field_validator("sampler", mode="before")
    @classmethod
    def _plain_sampler(cls, sampler: object) -> object:
        return {"name": sampler} if isinstance(sampler, str) else sampler
