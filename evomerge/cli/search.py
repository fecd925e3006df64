"""`evomerge search SPACE`: search a space for the best merge recipe."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evomerge.cli.screen import LogLevel, set_log_level, stderr, stdout

if TYPE_CHECKING:
    from evomerge.archive.folder import RunFolder
    from evomerge.controller.closing_report import ClosingReport
    from evomerge.controller.search import Options, Prepared


def command(
    space: Annotated[Path, typer.Argument(help="The space file (YAML).", show_default=False)],
    budget: Annotated[
        int | None, typer.Option(min=1, help="Candidates in all; default: the space's.")
    ] = None,
    run: Annotated[Path | None, typer.Option(help="The run folder; default: a new one in runs/.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run (the latest without --run).")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Evaluators; default: one per GPU, else per CPU.")
    ] = None,
    gpus_per_worker: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Share of a GPU for each; 0: CPUs only.", show_default=False),
    ] = None,
    ray_address: Annotated[str | None, typer.Option(help="Join this Ray cluster.")] = None,
    path_map: Annotated[
        list[str] | None,
        typer.Option(metavar="HERE=THERE", help="Where the cluster's nodes have a folder of sources."),
    ] = None,
    serial: Annotated[bool, typer.Option("--serial", help="Evaluate in this process, without Ray.")] = False,
    sampler: Annotated[
        str | None, typer.Option(help="cma, tpe, nsgaii, nsgaiii, gp, qmc, random, optunahub:NAME.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed; default: the space's.")] = None,
    storage: Annotated[str | None, typer.Option(help="A database URL instead of the run's journal.")] = None,
    time_limit: Annotated[
        float | None, typer.Option(min=0, help="Stop asking for candidates after so many seconds.")
    ] = None,
    candidate_time_limit: Annotated[
        float | None,
        typer.Option(min=0, help="End workers that one job takes so many seconds; default: the space's."),
    ] = None,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Read pickled weights too; from people you trust.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress on stderr.")] = False,
    log_level: Annotated[LogLevel, typer.Option(help="What to tell on stderr.")] = LogLevel.warning,
) -> None:
    """Search a space: merge, score, archive, until the budget is spent."""
    set_log_level(log_level)
    prepared: Prepared | None = None
    try:
        from evomerge.controller.public import given, prepare
        from evomerge.controller.search import Options

        options = Options(
            workers=workers,
            ray_address=ray_address,
            serial=serial,
            storage=storage,
            time_limit=time_limit,
            allow_pickle=allow_pickle,
            gpus_per_worker=gpus_per_worker,
            path_map=tuple(path_map or ()),
            tell=_unsaid if quiet else _told,
        )
        changes = given(budget=budget, sampler=sampler, seed=seed, candidate_time_limit=candidate_time_limit)
        prepared = prepare(space, run=run, resume=resume, changes=changes, options=options)
        report = _search(prepared, options, quiet=quiet)
    except KeyboardInterrupt:
        if prepared is None or not prepared.folder.begun:
            stderr.print("Interrupted before anything ran.")
        else:
            again = _again(space, prepared, options)
            stderr.print(f"Interrupted. What is finished is kept; continue with:\n  {again}", soft_wrap=True)
        raise typer.Exit(130) from None
    _conclude(prepared, report, quiet=quiet)


def _told(said: str) -> None:
    stderr.print(said, highlight=False, markup=False, soft_wrap=True)


def _unsaid(said: str) -> None:
    del said


def _search(prepared: Prepared, options: Options, *, quiet: bool) -> ClosingReport:
    """Search, and show it."""
    from evomerge.cli.progress import Progress
    from evomerge.controller.search import execute

    if not quiet:
        _announce(prepared)
    with Progress(stderr, name=prepared.record.space.name, quiet=quiet) as progress:
        return execute(prepared, options=options, observe=progress.show)


def _announce(prepared: Prepared) -> None:
    said = prepared.record.summary()
    for text in (
        f"Searching {prepared.record.space.name}: {said['models']}",
        f"  {said['search']}, budget {prepared.budget}",
        f"  for {said['objectives']}",
        f"  on {said['items']}",
        f"  with {said['thrift']}",
        *([f"  under {said['constraints']}"] if "constraints" in said else []),
        f"  into {_shown(prepared.folder)}; starting workers …",
    ):
        _told(text)


def _again(space: Path, prepared: Prepared, options: Options) -> str:
    """Return the command that continues an interrupted search. Passwords are left for the user to give."""
    from evomerge.archive.database import is_redacted

    words = ["evomerge", "search", str(space), "--run", _shown(prepared.folder), "--resume"]
    if prepared.budget != prepared.record.space.budget:
        words += ["--budget", str(prepared.budget)]
    if prepared.candidate_time_limit != prepared.record.space.candidate_time_limit:
        words += ["--candidate-time-limit", f"{prepared.candidate_time_limit:g}"]
    if options.workers is not None:
        words += ["--workers", str(options.workers)]
    if options.gpus_per_worker is not None:
        words += ["--gpus-per-worker", f"{options.gpus_per_worker:g}"]
    if options.serial:
        words += ["--serial"]
    if options.ray_address is not None:
        words += ["--ray-address", options.ray_address]
    for pair in options.path_map:
        words += ["--path-map", pair]
    if is_redacted(prepared.record.storage or ""):
        words += ["--storage", "URL"]
    return shlex.join(words)


def _conclude(prepared: Prepared, report: ClosingReport, *, quiet: bool) -> None:
    """Print what the search found, and what to type next."""
    from evomerge.report.closing import closing_table, headline

    stdout.print(closing_table(report, prepared.record))
    for sentence in headline(report):
        stdout.print(sentence, highlight=False, markup=False)
    run = shlex.quote(_shown(prepared.folder))
    steps = [f"report {run}", f"front {run}", f"dashboard {run}"]
    steps += [f"export {run} merged-model"] * report.feasible
    if not quiet:
        stderr.print("Next:")
        for step in steps:
            stderr.print(f"  evomerge {step}", highlight=False, markup=False, soft_wrap=True)


def _shown(folder: RunFolder) -> str:
    """Return the folder as people would type it here."""
    here = Path.cwd()
    return str(folder.path.relative_to(here) if folder.path.is_relative_to(here) else folder.path)
