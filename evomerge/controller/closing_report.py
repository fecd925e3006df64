"""What is told at the end of a search, as values: who was chosen, its scores on all splits, its gains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, TypeAlias

from evomerge.errors import RunError
from evomerge.space.baselines import BASE
from evomerge.types import Split

Verdict: TypeAlias = Literal["better", "worse", "not proven", "not known", "itself"]
"""What the items say of a difference: zero lies outside its 95 % interval, or inside; it has none; or the
chosen model is the one to compare with."""

Rival: TypeAlias = Literal["parent", "baseline"]


@dataclass(frozen=True, kw_only=True)
class ReportRow:
    """A baseline or finalist and its scores on the items of each split; None where it was not scored there.

    `label` names a baseline, and is "candidate" for any other. `chosen_for` are the objectives for which it
    was chosen by its select items, `knee` whether it is the most balanced by them. `shrunken` are the search
    scores drawn towards the mean of all candidates as far as their noise asks for, of candidates only.
    `failed` are the splits on which it could not be scored.
    """

    trial: int
    label: str
    chosen_for: tuple[str, ...]
    knee: bool
    search: Mapping[str, float]
    select: Mapping[str, float] | None
    report: Mapping[str, float] | None
    shrunken: Mapping[str, float]
    failed: tuple[Split, ...] = ()

    @property
    def chosen(self) -> bool:
        """Whether it was chosen for anything."""
        return bool(self.chosen_for) or self.knee

    @property
    def roles(self) -> str:
        """What it was chosen for, for people; empty if for nothing."""
        best = [f"best {', '.join(self.chosen_for)}"] if self.chosen_for else []
        return ", ".join([*best, "knee"] if self.knee else best)

    @property
    def title(self) -> str:
        """What the model is, for people."""
        if self.label == "candidate":
            return self.roles or "finalist"
        return f"{self.label}, {self.roles}" if self.chosen else self.label


@dataclass(frozen=True, kw_only=True)
class Gain:
    """How much better (positive) a chosen trial is than the toughest rival on the same report items.

    `over` is the rival's label, `as_best` which rivals it is the best of by report score. `low` and `high`
    bound the 95 % interval of the paired difference and `p` is its one-sided p-value; None where lm-eval's
    aggregation allows no interval. `items` counts its report items. Where the chosen trial is a rival
    itself, `rival` is that trial, too.
    """

    measure: str
    trial: int
    rival: int
    over: str
    as_best: tuple[Rival, ...]
    gain: float
    low: float | None
    high: float | None
    p: float | None
    items: int
    verdict: Verdict

    @property
    def sentence(self) -> str:
        """How much it gained, over whom, how sure, on how many items."""
        rival = "base model" if self.over == BASE else self.over
        if self.verdict == "itself":
            return f"{self.measure}: the {rival} was chosen over every candidate"
        best = f"the {rival} (best {' and best '.join(self.as_best)})"
        head = f"{self.measure}: trial {self.trial} against {best}: {self.gain:+.3f}"
        if self.low is None or self.high is None:
            return f"{head} on {self.items} report items, which allow no interval"
        told = {"worse": ", worse", "not proven": ", not proven"}.get(self.verdict, "")
        if self.verdict == "not proven" and self.p is not None and not self.low <= 0 <= self.high:
            told += f": so few items differ that the exact test decides (p {self.p:.2g} of 0.025)"
        return f"{head} [{self.low:+.3f}, {self.high:+.3f}] on {self.items} report items{told}"


@dataclass(frozen=True, kw_only=True)
class Finalist:
    """A finalist against the best rival on select items: its gain, and the p-value among all (Holm)."""

    measure: str
    trial: int
    rival: int
    as_best: Rival
    gain: float
    p: float


@dataclass(frozen=True, kw_only=True)
class Optimism:
    """By how much the best search score of `candidates` equally good ones would flatter it, in one objective.

    `error` is the standard error of one candidate's search score on `items` items, next to the others'.
    """

    measure: str
    candidates: int
    items: int
    error: float
    expected: float


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How many candidates ended how, and how many `items` of all search items of these were scored.

    Baselines count, failures do not. `scored` have all items, `dropped` some, `inherited` had the scores of
    an equal one before them.
    """

    scored: int
    dropped: int
    inherited: int
    items: int
    all_items: int

    @property
    def sentence(self) -> str:
        """What racing and inheriting saved."""
        count = self.scored + self.dropped + self.inherited
        return (
            f"{self.items / self.all_items:.0%} of the item evaluations of scoring all {count} candidates: "
            f"{self.dropped} were given up early, {self.inherited} had the scores of equal ones"
        )


@dataclass(frozen=True, kw_only=True)
class ClosingReport:
    """The closing table and what it supports.

    `finished` counts the trials it was made of: where the run has others, the search has gone on since.
    `chosen` gives the trial per objective, `knee` the most balanced one of several objectives. `gains` are
    in what was searched for, `held_out` in what the search never looked at. `feasible` says whether any
    candidate meets every constraint; `unmet` are the constraints that none meets, each with the nearest
    score there is. `effort` is what the search cost.
    """

    finished: int
    chosen: Mapping[str, int]
    knee: int | None
    rows: tuple[ReportRow, ...]
    finalists: tuple[Finalist, ...]
    gains: tuple[Gain, ...]
    held_out: tuple[Gain, ...]
    optimism: tuple[Optimism, ...]
    feasible: bool
    unmet: tuple[str, ...]
    effort: Effort

    def decided_on(self, measure: str) -> Split:
        """Return by which items a measure was judged when choosing."""
        return "select" if any(measure in (row.select or {}) for row in self.rows) else "search"

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values, each row with its title."""
        rows = [{**asdict(row), "title": row.title} for row in self.rows]
        return {**asdict(self), "rows": rows}


def from_json(content: Mapping[str, Any]) -> ClosingReport:
    """Return the report that `to_json` told. Raises `RunError` if it was another version's."""
    try:
        return _report(content)
    except (KeyError, TypeError, AttributeError) as error:
        raise RunError(
            f"the run's report.json is damaged, or not of this evomerge ({type(error).__name__}: {error}); "
            "delete it, and `--resume` writes it anew"
        ) from error


def _report(content: Mapping[str, Any]) -> ClosingReport:
    return ClosingReport(
        **{
            **content,
            "rows": tuple(_row(row) for row in content["rows"]),
            "finalists": tuple(Finalist(**each) for each in content["finalists"]),
            "gains": tuple(_gain(each) for each in content["gains"]),
            "held_out": tuple(_gain(each) for each in content["held_out"]),
            "optimism": tuple(Optimism(**each) for each in content["optimism"]),
            "unmet": tuple(content["unmet"]),
            "effort": Effort(**content["effort"]),
        }
    )


def _row(content: Mapping[str, Any]) -> ReportRow:
    values = {key: value for key, value in content.items() if key != "title"}
    row = ReportRow(**values)
    return replace(row, chosen_for=tuple(row.chosen_for), failed=tuple(row.failed))


def _gain(content: Mapping[str, Any]) -> Gain:
    gain = Gain(**content)
    return replace(gain, as_best=tuple(gain.as_best))
