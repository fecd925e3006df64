"""What an evaluator must know, as plain values that travel to any worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from evomerge.evaluate.items import ItemSplit
from evomerge.evaluate.looks import parts
from evomerge.types import Backend, Measure, Split


@dataclass(frozen=True, kw_only=True)
class Brief:
    """An evaluator's instructions: where the sources are, and what to ask the merged models.

    `checkpoints` are places as `checkpoints/models.py` reads them: `NAME` a folder, `NAME:fisher` a file.
    `adapts` names the checkpoint under each that is a LoRA adapter. The measures that `held_out` names are
    only read on report items; a split of a task may have no items. `looks` are the numbers of search items
    after which a candidate may be judged (`evaluate/looks.py`); without any, all are scored at once.
    `backend` is what runs the models. `digests` are of what lies at `checkpoints`, for machines that have it
    elsewhere or not yet.
    """

    checkpoints: Mapping[str, str]
    tasks: str | None
    measures: tuple[Measure, ...]
    items: Mapping[str, ItemSplit]
    batch_size: int
    threads: int
    few_shot: int | None
    seed: int
    device: str = "auto"
    adapts: Mapping[str, str] = field(default_factory=dict)
    allow_pickle: bool = False
    looks: tuple[int, ...] = ()
    digests: Mapping[str, str] = field(default_factory=dict)
    backend: Backend = "transformers"

    def parts(self, task: str, split: Split) -> tuple[tuple[str, ...], ...]:
        """Return the items of a split in the parts they are scored in."""
        items = self.items[task][split]
        ends = self.looks if split == "search" and self.looks else (len(items),)
        return tuple(items[start:stop] for start, stop in parts(ends, len(items)))

    held_out: tuple[str, ...] = ()

    def asked(self, task: str, split: Split) -> tuple[Measure, ...]:
        """Return what is measured of a task on the items of a split; nothing where there are none."""
        if not self.items[task][split]:
            return ()
        return tuple(
            each
            for each in self.measures
            if each.task == task and (split == "report" or each.name not in self.held_out)
        )
