"""What a run is made of, pinned when it starts: the resolved space, digests, items, versions."""

from __future__ import annotations

import functools
import importlib.metadata
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from evomerge.archive.database import redacted
from evomerge.errors import RunError
from evomerge.evaluate.brief import Brief
from evomerge.evaluate.items import SPLITS
from evomerge.evaluate.looks import look_ends
from evomerge.recipe import ModelRef
from evomerge.space import Genome, Space
from evomerge.space.paths.form import MERGED
from evomerge.space.schema import Racing
from evomerge.types import Measure

FORMAT = 2
"""Raised when run folders change in a way older code cannot read."""

_PACKAGES = (
    "evomerge", "torch", "transformers", "lm_eval", "safetensors", "optuna", "cma", "ray", "numpy",
)  # fmt: skip
_FREE_TO_CHANGE = {"name", "budget", "candidate_time_limit", "sources"}
"""Sources by their place; their content is compared."""


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """Everything needed to continue or reread a run.

    `study` names the study in its storage, wherever the folder moves to; `held_out` are the measures that
    are only reported; `items` gives content hashes by task and split; `clusters` which text each item is
    about, of tasks that ask several about one; `wordings` a digest of what each task asks and how it scores;
    `paths` where the sources lay on the controller; `changes`
    which keys of the space file were replaced from outside (`--seed 3`); `allow_pickle` whether pickled
    weights may be read; `influence` the block influence of each layer of the sources on which it was
    measured. `deterministic` tells whether the same model always answers the search items the same;
    `uniform` whether all sources have the same tensors, tied alike.
    """

    study: str
    space: Space
    layers: int
    models: Mapping[str, ModelRef]
    paths: Mapping[str, str]
    tasks: str | None
    objectives: tuple[Measure, ...]
    constraints: tuple[Measure, ...]
    items: Mapping[str, Mapping[str, list[str]]]
    storage: str | None
    provenance: Mapping[str, Any]
    changes: Mapping[str, Any] = field(default_factory=dict)
    allow_pickle: bool = False
    influence: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    held_out: tuple[Measure, ...] = ()
    clusters: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    wordings: Mapping[str, str] = field(default_factory=dict)
    deterministic: bool = False
    uniform: bool = False

    @property
    def inherits(self) -> bool:
        """Whether a candidate that is an earlier one again has its scores; not where answers are drawn."""
        return self.space.inherit and self.deterministic

    def asked(self, end: int) -> int:
        """Return how many search items, all tasks together, are asked by a look after `end` of each."""
        searched = {measure.task for measure in self.measures}
        return sum(min(end, len(self.items[task]["search"])) for task in searched)

    @property
    def genome(self) -> Genome:
        """The genes the run varies."""
        return Genome(space=self.space, layers=self.layers, models=self.models, influence=self.influence)

    @property
    def race(self) -> Racing | None:
        """The rules by which candidates are given up early; None where all are scored on all items.

        That is so where racing is off, and where a measure is no mean over items: nothing can be said of it
        before all are scored.
        """
        whole = any(measure.aggregate == "other" for measure in self.measures)
        return None if whole else self.space.race

    @property
    def looks(self) -> tuple[int, ...]:
        """After how many search items a candidate is judged; the last are all."""
        wanted = self.race.looks if self.race is not None else ()
        searched = {measure.task for measure in self.measures}
        return look_ends(wanted, [len(self.items[task]["search"]) for task in searched])

    @property
    def measures(self) -> tuple[Measure, ...]:
        """What is searched by: objectives, then constraints."""
        return (*self.objectives, *self.constraints)

    def summary(self) -> dict[str, str]:
        """Return what is searched, and for what, in a few phrases for people."""
        space = self.space
        sampler = space.sampler_choice.name
        said = {
            "models": _varied(space),
            "search": f"{len(self.genome.genes)} genes, sampler {sampler}, seed {space.seed}",
            "objectives": _goals(self.objectives),
        }
        if self.constraints:
            said["constraints"] = ", ".join(
                f"{measure.name} {bounds}"
                for measure, each in zip(self.constraints, space.constraints, strict=True)
                for bounds in each.bounds
            )
        if self.held_out:
            said["held out"] = ", ".join(
                f"{each.name} ({each.metric} {each.arrow})" for each in self.held_out
            )
        said["items"] = ", ".join(_counted(task, splits) for task, splits in self.items.items())
        return said | {"thrift": "; ".join(self._thrift())}

    def _thrift(self) -> Iterator[str]:
        """Yield how item evaluations are saved, or why not."""
        if len(self.looks) > 1:
            *early, last = map(str, self.looks)
            yield f"racing, with looks after {', '.join(early)} of {last} items"
        elif self.space.race is None:
            yield "no racing"
        else:
            few = "their metrics are of all items at once" if self.race is None else "there are too few items"
            yield f"no racing, as {few}"
        if self.inherits:
            yield "equal candidates inherit their scores"
        else:
            yield "no inheriting" + (", as answers are drawn at random" if self.space.inherit else "")

    def brief(self) -> Brief:
        """Return what an evaluator of this run must know."""
        return Brief(
            checkpoints=self.paths,
            tasks=self.tasks,
            measures=(*self.measures, *self.held_out),
            held_out=tuple(measure.name for measure in self.held_out),
            items={
                task: {split: tuple(splits[split]) for split in SPLITS} for task, splits in self.items.items()
            },
            backend=self.space.backend,
            batch_size=self.space.batch_size,
            threads=self.space.threads,
            few_shot=self.space.few_shot,
            seed=self.space.seed,
            adapts={name: ref.adapts for name, ref in self.models.items() if ref.adapts is not None},
            allow_pickle=self.allow_pickle,
            looks=self.looks,
            digests={
                key: digest
                for name, ref in self.models.items()
                for key, digest in (
                    (name, ref.digest),
                    *((f"{name}:{kind}", pinned) for kind, (_, pinned) in ref.measured.items()),
                )
                if digest is not None
            },
        )

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON values."""
        return {
            "format": FORMAT,
            "study": self.study,
            "space": self.space.model_dump(mode="json", exclude_none=True),
            "layers": self.layers,
            "models": {name: asdict(ref) for name, ref in self.models.items()},
            "paths": dict(self.paths),
            "tasks": self.tasks,
            "objectives": [asdict(measure) for measure in self.objectives],
            "constraints": [asdict(measure) for measure in self.constraints],
            "held_out": [asdict(measure) for measure in self.held_out],
            "items": {task: dict(splits) for task, splits in self.items.items()},
            "clusters": {task: dict(texts) for task, texts in self.clusters.items()},
            "wordings": dict(self.wordings),
            "deterministic": self.deterministic,
            "uniform": self.uniform,
            "storage": self.storage,
            "changes": dict(self.changes),
            "allow_pickle": self.allow_pickle,
            "influence": {name: list(found) for name, found in self.influence.items()},
            "provenance": dict(self.provenance),
        }


def _goals(measures: Sequence[Measure]) -> str:
    return ", ".join(f"{each.name} ({each.metric} {each.arrow})" for each in measures)


def _counted(task: str, splits: Mapping[str, Sequence[str]]) -> str:
    """Return how many items of a task are in each split that has any."""
    *others, last = (f"{len(items)} {split}" for split, items in splits.items() if items)
    return f"{', '.join(others)} and {last} items of {task}" if others else f"{last} items of {task}"


def _varied(space: Space) -> str:
    """Return what the candidates are made of."""
    over = f" over {space.merge.base}" if space.merge.base else ""
    merge = f"{', '.join(space.merged)}{over} by {', '.join(space.merge.methods)}"
    if space.path is None:
        return merge
    layers = f"layers ({space.path.form}) of {', '.join(space.path_models)}"
    return f"{layers}; {MERGED}: {merge}" if space.merges else layers


def from_json(content: Mapping[str, Any]) -> RunRecord:
    """Return the record. Raises `RunError` if another version of evomerge wrote it, or it is damaged."""
    found = content.get("format") if isinstance(content, Mapping) else None
    if found != FORMAT:
        raise RunError(
            f"this run record has format {found}, and this evomerge reads {FORMAT}; "
            f"open it with the one that wrote it{_writer(content)}"
        )
    try:
        return _record(content)
    except (KeyError, TypeError, AttributeError, ValidationError) as error:
        what = str(error).splitlines()[0]  # pydantic's go on
        raise RunError(
            f"this run record is damaged, or not of this evomerge ({type(error).__name__}: {what}); "
            f"open it with the one that wrote it{_writer(content)}"
        ) from error


def _writer(content: Any) -> str:
    """Return which evomerge wrote a record, as far as it can be told, in brackets."""
    try:
        found = content["provenance"]
        commit = f", commit {found['commit']}" if found["commit"] else ""
        return f" ({found['versions']['evomerge']}{commit})"
    except (KeyError, TypeError):
        return ""


def _record(content: Mapping[str, Any]) -> RunRecord:
    provenance = content["provenance"]
    provenance["versions"]  # the rest may be missing
    return _kinds().validate_python(
        {
            **{key: content[key] for key in _AS_WRITTEN},
            **{key: content[key] for key in _LATER if key in content},
            "space": Space.model_validate(content["space"]),
            "models": {name: ModelRef(**ref) for name, ref in content["models"].items()},
            **{kind: tuple(Measure(**measure) for measure in content[kind]) for kind in _MEASURES},
        }
    )


_MEASURES = ("objectives", "constraints", "held_out")
_AS_WRITTEN = (
    "study", "layers", "paths", "tasks", "items", "storage", "changes", "provenance", "allow_pickle",
    "influence", "clusters",
)  # fmt: skip
_LATER = ("wordings", "deterministic", "uniform")
"""What records of the same format may lack; it is got from the next resume on."""


@functools.cache
def _kinds() -> TypeAdapter[RunRecord]:
    """Return what holds a record's values to the types that it declares."""
    return TypeAdapter(RunRecord)


def differences(old: RunRecord, new: RunRecord) -> list[str]:
    """Return what a run may not change between two starts and did, a phrase each."""
    before, after = (r.space.model_dump(mode="json", exclude=_FREE_TO_CHANGE) for r in (old, new))
    changed = [f"`{key}` of the space" for key in before if before[key] != after[key]]
    if before["merge"] == after["merge"] and old.models.keys() != new.models.keys():
        changed.append("the names of the sources")
    if old.layers != new.layers:
        changed.append("the number of layers")
    for name, ref in old.models.items():
        if name in new.models and new.models[name].digest != ref.digest:
            changed.append(f"the content of source `{name}`")
        elif name in new.models and new.models[name].adapts != ref.adapts:
            changed.append(f"what source `{name}` adapts")
        if name in new.models and _pins(new, name) != _pins(old, name):
            changed.append(f"what was measured on source `{name}`")
    for task, splits in old.items.items():
        if task in new.items and dict(new.items[task]) != dict(splits):
            changed.append(f"the items of task `{task}`")
        elif task in new.items and old.clusters.get(task) != new.clusters.get(task):
            changed.append(f"which items of task `{task}` are about the same text")
        elif task in old.wordings and old.wordings[task] != new.wordings.get(task):
            changed.append(f"what task `{task}` asks or how it scores")
    if (*old.measures, *old.held_out) != (*new.measures, *new.held_out):
        changed.append("a metric's direction or aggregation")
    return changed


def _pins(record: RunRecord, name: str) -> tuple[object, ...]:
    """Return what a record has of the measurements on a source, so that they can be compared."""
    digests = {kind: digest for kind, (_, digest) in record.models[name].measured.items()}
    return digests, record.influence.get(name)


def provenance() -> dict[str, Any]:
    """Return when, with what versions and from which commit a run starts."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": [Path(sys.argv[0]).name, *map(_without_secrets, sys.argv[1:])],
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {name: _version(name) for name in _PACKAGES},
        "commit": _commit(),
    }


def _without_secrets(argument: str) -> str:
    return redacted(argument) if "://" in argument else argument


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Return evomerge's own commit, with `+` if its tree has changes; None outside a checkout."""
    here = Path(__file__).parent
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"],
            cwd=here, capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() or None
