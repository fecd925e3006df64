"""What a search and an export of its winner need of this machine, against what there is.

The needs are estimates from the headers of the sources, the space and a few numbers that were measured on
small searches; each says what it is made of.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from evomerge.archive.record import RunRecord
from evomerge.checkpoints.compatible import language_part
from evomerge.checkpoints.folder import Checkpoint
from evomerge.dispatch.supply import gigabytes

_PROCESS_BYTES = 700 << 20
"""Of a worker's own, with torch, transformers and lm-eval (.59 and .73 GB in a search of models of 5 MB)."""

_CONTROLLER_BYTES = 1000 << 20
"""The search itself (.6 GB) and Ray's own processes (.4 GB), measured likewise."""

_RAY_DISK_BYTES = 200 << 20
_GPU_CONTEXT_BYTES = 600 << 20
_TOKENS = 512
"""Of a question with its options; what is longer is not known before it is asked."""

_ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_CODES = {"F32": 4, "BF16": 2, "F16": 2, "F64": 8}
_CANDIDATE_BYTES, _GENE_BYTES, _SCORE_BYTES, _HASH_BYTES = 8_000, 300, 14, 80


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What there is: CPUs and memory of this process, GPUs, free bytes where things are written."""

    cpus: int
    memory: int
    gpus: tuple[int, ...]
    run_place: str
    run_free: int
    export_place: str
    export_free: int
    temporary_place: str
    temporary_free: int


@dataclass(frozen=True, kw_only=True)
class Need:
    """What something needs, in bytes, and what there is of it; `how` says what the estimate is made of.

    `problem` says why the search could not work, `warning` what is unwise; both with the way out.
    """

    what: str
    needed: int
    there: int
    how: str
    problem: str = ""
    warning: str = ""


def machine(folder: Path, target: Path) -> Machine:
    """Return what this machine has for a run in `folder` and an export to `target`; neither need exist."""
    import torch

    gpus = tuple(torch.cuda.mem_get_info(i)[0] for i in range(torch.cuda.device_count()))
    run, export, temporary = _standing(folder), _standing(target), Path(tempfile.gettempdir())
    return Machine(
        cpus=len(os.sched_getaffinity(0)),
        memory=_free_memory(),
        gpus=gpus,
        run_place=str(run),
        run_free=shutil.disk_usage(run).free,
        export_place=str(export),
        export_free=shutil.disk_usage(export).free,
        temporary_place=str(temporary),
        temporary_free=shutil.disk_usage(temporary).free,
    )


def workers_of(record: RunRecord, there: Machine, asked: int | None, *, serial: bool) -> int:
    """Return how many workers a search on this machine would have: by default one per GPU, else per CPU."""
    if serial:
        return 1
    return asked or len(there.gpus) or max(1, there.cpus // record.space.threads)


def needs(
    record: RunRecord, models: Mapping[str, Checkpoint], there: Machine, *, workers: int, serial: bool
) -> Iterator[Need]:
    """Yield what a search with so many workers needs."""
    model = model_bytes(record, models)
    sources = sum(file.stat().st_size for file in _files(models))
    if there.gpus:
        yield _on_gpus(record, models, there, model=model, workers=workers)
    yield _in_memory(record, models, there, model=model, sources=sources, workers=workers, serial=serial)
    yield _run_folder(record, there)
    if not serial:
        yield _temporary(there)
    yield _export(model, there)


def model_bytes(record: RunRecord, models: Mapping[str, Checkpoint]) -> int:
    """Return the bytes of the largest model that a candidate can be."""
    stated = _ITEM_BYTES.get(record.space.dtype or "")
    sizes = (
        sum(math.prod(spec.shape) * (stated or _CODES.get(spec.dtype, 4)) for spec in each.specs.values())
        for each in models.values()
    )
    return int(max(sizes) * _longest(record) / record.layers)


def activation_bytes(record: RunRecord, models: Mapping[str, Checkpoint]) -> int:
    """Return an estimate of what scoring a batch takes: logits in float32, keys and values, activations."""
    first = language_part(next(iter(models.values())))
    rows, width = first.specs[first.structure.embedding].shape
    tokens = record.space.batch_size * _TOKENS
    logits = 2 * 4 * rows * min(tokens, record.space.batch_size * 64)  # of the options, not of what is read
    kept = 2 * 2 * width * _longest(record) * tokens
    return int(logits + kept + 8 * 4 * width * tokens)


def _longest(record: RunRecord) -> int:
    """Return how many layers a candidate may have."""
    path = record.space.path
    most = getattr(path, "most", None)
    if path is None or path.form in ("layer_swap", "prune"):
        return record.layers
    return int(most or 2 * record.layers)


def _files(models: Mapping[str, Checkpoint]) -> list[Path]:
    """Return every file of weights once: an adapter's, and its base's."""
    found: list[Path] = []
    for model in models.values():
        found += model.weight_files
        if (made := model.adaptation) is not None:
            found += made.adapter.weight_files
    return [file for file in dict.fromkeys(found) if file.is_file()]


def _on_gpus(
    record: RunRecord, models: Mapping[str, Checkpoint], there: Machine, *, model: int, workers: int
) -> Need:
    sharing = math.ceil(workers / len(there.gpus))
    activations = activation_bytes(record, models)
    each = model + activations + _GPU_CONTEXT_BYTES
    least = min(there.gpus)
    fit = max(0, least // each)
    problem = warning = ""
    if fit < 1:
        problem = (
            f"a candidate needs about {gigabytes(each)} of GPU memory and the GPU has "
            f"{gigabytes(least)} free; set `dtype: bfloat16`, lower `batch_size` "
            f"({record.space.batch_size}), or use a larger GPU"
        )
    elif fit < sharing:
        warning = (
            f"{sharing} workers share a GPU on which about {fit} fit; use "
            f"`--workers {fit * len(there.gpus)}` or fewer"
        )
    return Need(
        what="GPU memory" if sharing == 1 else f"GPU memory, {sharing} workers on each",
        needed=each * sharing,
        there=least,
        how=f"a model of {gigabytes(model)}, {gigabytes(activations)} for a batch of "
        f"{record.space.batch_size} × {_TOKENS} tokens, CUDA itself; sources stay there where there is room",
        problem=problem,
        warning=warning,
    )


def _in_memory(
    record: RunRecord,
    models: Mapping[str, Checkpoint],
    there: Machine,
    *,
    model: int,
    sources: int,
    workers: int,
    serial: bool,
) -> Need:
    activations = 0 if there.gpus else activation_bytes(record, models)
    held = 0 if there.gpus else model
    each = _PROCESS_BYTES + held + activations
    beside = 0 if serial else _CONTROLLER_BYTES
    needed = workers * each + beside
    problem = warning = ""
    if each > there.memory:
        problem = (
            f"one worker needs about {gigabytes(each)} of memory and {gigabytes(there.memory)} are free; set "
            f"`dtype: bfloat16`, lower `batch_size` ({record.space.batch_size}), or use a larger machine"
        )
    elif needed > there.memory:
        fit = max(1, (there.memory - beside) // each)
        warning = (
            f"{workers} workers need about {gigabytes(needed)} of memory and {gigabytes(there.memory)} are "
            f"free; use `--workers {fit}`"
        )
    elif needed + sources > there.memory:
        warning = (
            f"the sources ({gigabytes(sources)}) do not fit into the memory that is left beside the workers, "
            "so they are read from the disk again for every candidate; a fast disk or fewer workers help"
        )
    parts = [f"{gigabytes(_PROCESS_BYTES)} of programs"]
    parts += [f"a model of {gigabytes(held)}"] if held else []
    parts += [f"{gigabytes(activations)} for a batch"] if activations else []
    count = "1 worker" if workers == 1 else f"{workers} workers"
    rest = f"{gigabytes(beside)} for the search itself; " if beside else ""
    return Need(
        what="memory",
        needed=needed,
        there=there.memory,
        how=f"{count} of {', '.join(parts)} each; {rest}{gigabytes(sources)} of sources, mapped and shared",
        problem=problem,
        warning=warning,
    )


def _run_folder(record: RunRecord, there: Machine) -> Need:
    asked = record.asked(record.looks[-1])
    genes = len(record.genome.genes)
    pinned = sum(len(items) for splits in record.items.values() for items in splits.values())
    needed = record.space.budget * (_CANDIDATE_BYTES + _GENE_BYTES * genes + _SCORE_BYTES * asked)
    needed += 2 * _HASH_BYTES * pinned
    short = needed > there.run_free
    return Need(
        what=f"disk for the run ({there.run_place})",
        needed=needed,
        there=there.run_free,
        how=f"{record.space.budget} candidates of {genes} genes with the scores of {asked} items each",
        problem=f"the run needs about {gigabytes(needed)} and {there.run_place} has "
        f"{gigabytes(there.run_free)} free; make room, or name a folder on another disk with `--run`"
        if short
        else "",
    )


def _temporary(there: Machine) -> Need:
    short = there.temporary_free < _RAY_DISK_BYTES
    return Need(
        what=f"disk for Ray ({there.temporary_place})",
        needed=_RAY_DISK_BYTES,
        there=there.temporary_free,
        how="its logs and, where shared memory is small, its object store; gone afterwards",
        problem=f"Ray needs about {gigabytes(_RAY_DISK_BYTES)} for temporary files and "
        f"{there.temporary_place} has {gigabytes(there.temporary_free)} free; make room, or set TMPDIR to a "
        "folder on another disk"
        if short
        else "",
    )


def _export(model: int, there: Machine) -> Need:
    needed = int(1.01 * model) + (32 << 20)
    short = needed > there.export_free
    return Need(
        what=f"disk for an export ({there.export_place})",
        needed=needed,
        there=there.export_free,
        how="the weights of one candidate, and its tokenizer",
        warning=f"an export needs about {gigabytes(needed)} and {there.export_place} has "
        f"{gigabytes(there.export_free)} free: export to another disk, or make room before"
        if short
        else "",
    )


def _standing(folder: Path) -> Path:
    """Return the folder, or the closest above it that exists."""
    place = folder.absolute()
    while not place.is_dir() and place != place.parent:
        place = place.parent
    return place


def _free_memory() -> int:
    """Return how many bytes of memory can be had now: of the machine, or of the container it is in."""
    free = _available(Path("/proc/meminfo"))
    for most, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        limit, taken = _number(Path(most)), _number(Path(used))
        if limit is not None and taken is not None:
            free = min(free, max(0, limit - taken))
    return free


def _available(meminfo: Path) -> int:
    for line in meminfo.read_text(encoding="ascii").splitlines():
        key, _, value = line.partition(":")
        if key == "MemAvailable":
            return int(value.split()[0]) * 1024
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _number(file: Path) -> int | None:
    """Return the number a file of the kernel holds; None where there is no such file, or no limit."""
    try:
        return int(file.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
