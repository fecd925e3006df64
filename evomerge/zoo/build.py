"""Building a zoo: train the base, then its experts two at a time, and write the tasks beside them."""

import json
import logging
import logging.handlers
import multiprocessing as mp
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from evomerge.archive.files import replace_folder
from evomerge.errors import RequestError, unknown
from evomerge.zoo.adapters import write_adapter
from evomerge.zoo.card import write_card
from evomerge.zoo.catalog import ADAPTERS, BASE, NAMES
from evomerge.zoo.tasks import write_tasks
from evomerge.zoo.worker import Job, LogQueue, Relay, log_queue, prepare, run

log = logging.getLogger(__name__)

MARKER = "zoo.json"  # written last: a folder without it is no zoo
_LONGEST_FIRST = ("lang", "math", "logic", "poor")


def build(
    out: Path, *, seed: int = 0, threads: int = 2, only: Sequence[str] = (), overwrite: bool = False
) -> Path:
    """Train the zoo into `out` and return `out`: `models/<name>`, `tasks` and a marker file.

    `only` names the experts wanted (the base is always trained: experts start from it). With the same seed
    and the same number of threads on the same machine the result is the same.

    Raises:
        RequestError: a name is unknown, or `out` holds something that may not be replaced.
    """
    names = _wanted(only)
    _check_target(out, overwrite=overwrite)
    started = time.monotonic()
    with _beside(out) as folder:
        write_tasks(folder / "tasks")
        losses = _train_all(folder / "models", names, seed=seed, threads=threads)
        seconds = round(time.monotonic() - started)
        marker = {"seed": seed, "threads": threads, "models": names, "losses": losses, "seconds": seconds}
        (folder / MARKER).write_text(json.dumps(marker, indent=2) + "\n", encoding="utf-8")
    log.info("zoo of %d models in %s, %d s", len(names), out, seconds)
    return out


def _wanted(only: Sequence[str]) -> list[str]:
    for name in only:
        if name not in NAMES:
            raise RequestError(unknown("model", name, NAMES))
    return [name for name in NAMES if name == BASE or not only or name in only]


def _check_target(out: Path, *, overwrite: bool) -> None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not overwrite:
        raise RequestError(f"{out} exists and is not empty; name another folder or pass --overwrite")
    if not (out / MARKER).is_file():
        raise RequestError(
            f"{out} is not a zoo (no {MARKER} in it), so it is not overwritten; name another folder"
        )


@contextmanager
def _beside(out: Path) -> Iterator[Path]:
    """A new folder beside `out` that takes its place at the end, and is gone if anything failed."""
    out = out.absolute()
    fresh = out.with_name(f".{out.name}.{os.getpid()}.new")
    fresh.mkdir(parents=True)
    try:
        yield fresh
        replace_folder(fresh, out)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _train_all(models: Path, names: list[str], *, seed: int, threads: int) -> dict[str, float]:
    """Train the base with all threads, then the experts, one thread each, as many at a time as threads."""
    context = mp.get_context("spawn")
    experts = [name for name in _LONGEST_FIRST if name in names]
    base = Job(name=BASE, folder=models, start=None, seed=seed, threads=threads)
    jobs = [Job(name=name, folder=models, start=BASE, seed=seed, threads=1) for name in experts]
    with _collected_logs(context) as queue:
        losses = _in_processes([base], 1, context, queue)
        losses |= _in_processes(jobs, threads, context, queue)
    _add_cards_and_adapters(models, names)
    return {name: losses[name] for name in names}


def _add_cards_and_adapters(models: Path, names: list[str]) -> None:
    for name in names:
        write_card(models / name, name)
    for name, (expert, _) in ADAPTERS.items():
        if expert in names:
            write_adapter(models, name)


def _in_processes(
    jobs: list[Job], workers: int, context: mp.context.SpawnContext, queue: LogQueue
) -> dict[str, float]:
    """The last loss of each job, by name."""
    with ProcessPoolExecutor(workers, mp_context=context, initializer=prepare, initargs=(queue,)) as pool:
        return dict(zip([job.name for job in jobs], pool.map(run, jobs), strict=True))


@contextmanager
def _collected_logs(context: mp.context.SpawnContext) -> Iterator[LogQueue]:
    """A queue whose records are logged in this process while the block runs."""
    queue = log_queue(context)
    listener = logging.handlers.QueueListener(queue, Relay())
    listener.start()
    try:
        yield queue
    finally:
        listener.stop()
