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
    """A model to merge: a folder, a hub id or `zoo:NAME`, or a trial of an earlier run."""

    source: str | None = None
    """The model: a folder (from where this file lies), a hub id `owner/name`, or `zoo:NAME`."""
    run: str | None = None
    """Instead of `source`: the folder of an earlier run, one of whose trials it is."""
    pick: Literal["best", "knee"] | Annotated[int, Field(ge=0)] | None = None
    """Which trial of the `run`: the best (default), the knee of its front, or one by number."""
    objective: str | None = None
    """In which objective of the `run` the best is best (default: its first)."""
    revision: str | None = None
    """A branch, tag or commit of the hub's repository."""
    adapts: Name | None = None
    """Of a LoRA adapter: the source that it changes (default: the merge's base)."""
    fisher: str | None = None
    """A file that `evomerge measure fisher` wrote of it, for `method: fisher`."""
    gram: str | None = None
    """A file that `evomerge measure gram` wrote of it, for `method: regmean`."""
    influence: str | None = None
    """A file that `evomerge measure influence` wrote of it, for the paths `prune` and `repeat`."""

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
    """What may vary in the merge of `sources` over `base`."""

    base: Name | None = None
    """The source the others were fine-tuned from; task vectors are differences from it."""
    template: Name | None = None
    """The source that gives the merged model's form: tensor names, config, tokenizer, and of a
    vision-language model all that is not language. By default the first vision-language model among base and
    sources, or else the base, or else the first source."""
    sources: list[Name] | None = None
    """The sources to merge (default: all but the base)."""
    method: Name | list[Name] = "task_arithmetic"
    """The merge method, or a list to choose among; `evomerge methods` explains them."""
    layers: Runs | Anchored = None
    """How the layers are cut into runs with genes of their own: so many equal ones (by default four, or each
    layer where there are fewer), "each" layer by itself, runs listed as [first, last], or {anchors: 3}, whose
    values are interpolated along the layers."""
    modules: list[str | list[str]] = Field(default=[list(IN_LAYERS), "embed", "head"])
    """The module groups that have genes of their own: attn, mlp and rest inside layers, embed and head."""
    genes: dict[str, GeneRange] = Field(default_factory=dict)
    """What the method's parameters may be: a range {low, high}, a list to choose from, or one fixed value. By
    default each that the method marks as searched has the method's own range."""
    compat: str = "evomerge"
    """Whose rules a method follows where implementations differ, such as mergekit or official."""

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

    task: str = Field(examples=["gsm8k", "arc_challenge", "hellaswag"])
    """A task of lm-eval, or of the folder that `tasks` names."""
    metric: str | None = None
    """One of the task's metrics (default: its first); which way is better is read from lm-eval."""
    filter: str | None = None
    """One of the task's filters, which turn an answer into what is scored (default: its first)."""
    name: Name | None = None
    """What it is called in tables and options (default: the task)."""


class Objective(Measured):
    """A measure to improve; which way is better is read from lm-eval."""


class Constraint(Measured):
    """A measure that must stay at or above `min`, at or below `max`, or both."""

    min: FiniteFloat | None = None
    """The least it may be."""
    max: FiniteFloat | None = None
    """The most it may be."""

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

    In place of a number stands a file that names the items of all tasks by their content hash, one to a line.
    """

    search: Count | HashFile | None = None
    """Items that candidates are scored on (default: 40 % of a task's, at most 200)."""
    select: Number | HashFile | None = None
    """Other items on which the winners are chosen (default: at most 500); 0: on the search items."""
    report: Count | HashFile | None = None
    """Items that nothing was chosen by, for the numbers to believe (default: half the rest, at most 500)."""


class Racing(Table):
    """When a candidate is given up before all its search items are scored."""

    looks: list[Count] = Field(default=[25, 50, 100, 200, 350], min_length=1)
    """After how many items a candidate is compared with the incumbent (with several objectives: with every
    member of the front), and given up if it is confidently worse."""
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """The risk, over all looks together, of giving up one that is as good."""
    margin: Annotated[float, Field(ge=0)] = 0.01
    """Those that confidently cannot be better by this much are given up, too."""
    cold_start: Annotated[int, Field(ge=0)] | None = None
    """How many candidates at the start compete with one another: a third of them goes on from each rung."""


class SamplerChoice(Table):
    """A sampler with options of its own."""

    name: str
    """Its file, an entry point, or `optunahub:PACKAGE`."""
    options: dict[str, Value] = Field(default_factory=dict)
    """What it is given besides, such as {population_size: 40}."""


class Space(Table):
    """A validated space file: the models, what may vary, what to optimise and how."""

    name: Name
    """What runs of it are called (default: the file's name)."""
    sources: dict[Name, Source] = Field(min_length=1)
    """The models, by names that the rest of the file goes by."""
    merge: MergeSpace = Field(default_factory=MergeSpace)
    """What may vary in the merge of the sources."""
    path: PathSpace | None = None
    """What may vary in the stack of layers. The candidates are then stacks of layers, from the sources and
    from what `merge` makes of them, whose genes are searched only if the path may take layers from
    `merged`."""
    objectives: list[Objective] = Field(min_length=1)
    """What to improve; with several, the result is a front of compromises."""
    constraints: list[Constraint] = Field(default_factory=list)
    """What must stay within bounds: a candidate outside them is never chosen."""
    held_out: list[Measured] = Field(default_factory=list)
    """Measures that are only reported: no candidate is chosen by them."""
    tasks: str | None = None
    """A folder of lm-eval task files, or `zoo:tasks` (default: lm-eval's own tasks)."""
    few_shot: Annotated[int, Field(ge=0)] | None = None
    """How many examples stand before each question (default: as each task says)."""
    items: Items = Field(default_factory=Items)
    """How many items of each task are searched on, chosen on and reported on."""
    baselines: list[Literal["greedy_soup"]] = Field(default_factory=list)
    """More than the usual models to compare with: `greedy_soup` costs a trial per source."""
    sampler: SamplerChoice | None = None
    """What proposes candidates (default: cma for one objective, nsgaii for several)."""
    racing: Racing | bool = True
    """Whether, or by which rules, candidates are given up that a part of the search items rules out; `off`
    scores all on all items."""
    inherit: bool = True
    """Whether a candidate that is an earlier one again has its scores."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Where all that is random starts from."""
    budget: Count = 200
    """How many candidates, the baselines among them."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Of the merged model, in memory and when exported (default: as the model that gives its form)."""
    tokenizer: Name | None = None
    """`base`, `union` or the name of a merged model: matches the models' tokens by their strings. Without it
    they must share one tokenizer."""
    untie: bool = False
    """Whether models whose output head is their embedding are given a head of their own."""
    backend: Backend = "transformers"
    """What runs the candidates: `transformers`, or `vllm` where that is installed. vLLM sums in other orders,
    so its scores differ in their last digits, and it makes up its own batches."""
    batch_size: Count = 32
    """How many questions are asked at once. It stands here, as `threads` does, because sums, and so now and
    then a score, depend on how they are split: they belong to what is reproduced."""
    threads: Annotated[Count, Field(le=1024)] = 1
    """How many threads a worker on CPUs has."""
    candidate_time_limit: Annotated[FiniteFloat, Field(gt=0)] | None = None
    """How many seconds one question about a candidate may take (who it is, a look at some items, all items at
    once; the merge included). A worker that takes longer is ended; the candidate is tried once more, and then
    fails. It may be changed when a run is continued."""

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
