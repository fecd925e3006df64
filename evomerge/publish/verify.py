"""Holding a written checkpoint to its recorded score, through plain `from_pretrained`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from evomerge.checkpoints.folder import open_checkpoint
from evomerge.checkpoints.tokenizer import TokenizerFiles
from evomerge.errors import ExportError
from evomerge.evaluate import vllm
from evomerge.evaluate.brief import Brief
from evomerge.evaluate.evaluator import ItemScoring, device_named, only_compute
from evomerge.merge.memory import auto_class
from evomerge.publish.environment import differences, environment


def scores_like(
    recorded: Mapping[str, float], brief: Brief, provenance: Mapping[str, Any]
) -> Callable[[Path], None]:
    """Return a check that a checkpoint scores exactly `recorded` on the brief's search items.

    `provenance` is the run's, with the trial's device: where it differs from this process, the error says so.
    """

    def verify(folder: Path) -> None:
        found = score_folder(folder, brief)
        for name, score in recorded.items():
            if found[name] != score:
                raise ExportError(
                    f"the written checkpoint scores {found[name]!r} on `{name}`, but the search recorded "
                    f"{score!r}; it was not kept. {_advice(differences(provenance, environment()))}"
                )

    return verify


def score_folder(folder: Path, brief: Brief) -> dict[str, float]:
    """Return the scores of the checkpoint in `folder`, loaded as anyone would load it."""
    if brief.backend == "vllm":
        return dict(vllm.score_folder(folder, brief).scores)
    only_compute(brief.threads)  # as when it was scored: sums depend on how they are split
    checkpoint = open_checkpoint(folder)
    model: Any = auto_class(checkpoint.config).from_pretrained(
        folder, dtype="auto", local_files_only=True, trust_remote_code=False
    )
    model.to(device_named(brief.device)).eval()
    return dict(ItemScoring(brief).score(model, TokenizerFiles(folder=folder), "search").scores)


def _advice(differing: list[str]) -> str:
    if not differing:
        return "Device, versions and platform are those of the search"
    return (
        f"Not as where the search was started: {'; '.join(differing)}. If that explains it, export there, "
        "or without this check by `--no-verify`"
    )
