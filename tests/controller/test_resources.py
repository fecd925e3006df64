"""What a search needs, against machines made by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from evomerge.checkpoints.folder import open_checkpoint
from evomerge.checkpoints.locate import locate
from evomerge.controller.resources import Machine, Need, machine, model_bytes, needs, workers_of
from evomerge.space import parse_space
from tests.controller.handmade import measure, record_of
from tests.small_disk import fill, small_disk

GB = 1 << 30
MODELS = {name: open_checkpoint(locate(f"zoo:{name}")) for name in ("base", "math", "lang")}
RECORD = replace(record_of([measure()], {"search": 200, "select": 300, "report": 600}), layers=6)
PLENTY = Machine(
    cpus=8,
    memory=64 * GB,
    gpus=(),
    run_place="/runs",
    run_free=100 * GB,
    export_place="/here",
    export_free=100 * GB,
    temporary_place="/tmp",
    temporary_free=100 * GB,
)


def found(there: Machine, *, workers: int = 2, serial: bool = False) -> dict[str, Need]:
    return {each.what: each for each in needs(RECORD, MODELS, there, workers=workers, serial=serial)}


def test_where_there_is_plenty_nothing_is_wrong() -> None:
    all_needs = found(PLENTY)
    assert [*all_needs] == [
        "memory",
        "disk for the run (/runs)",
        "disk for Ray (/tmp)",
        "disk for an export (/here)",
    ]
    assert not any(each.problem or each.warning for each in all_needs.values())
    assert all(0 < each.needed < each.there and each.how for each in all_needs.values())
    assert "disk for Ray (/tmp)" not in found(PLENTY, serial=True)


def test_more_workers_need_more_memory() -> None:
    one, two, eight = (found(PLENTY, workers=count)["memory"].needed for count in (1, 2, 8))
    assert eight - one == pytest.approx(7 * (two - one), rel=1e-9)


def test_too_little_memory_for_one_worker_is_a_problem_and_for_all_a_warning() -> None:
    assert "one worker needs about" in found(replace(PLENTY, memory=GB // 2))["memory"].problem
    some = found(replace(PLENTY, memory=4 * GB), workers=16)["memory"]
    assert some.problem == ""
    one, two = (found(PLENTY, workers=count)["memory"].needed for count in (1, 2))
    fits = (4 * GB - (2 * one - two)) // (two - one)
    assert f"use `--workers {fits}`" in some.warning
    assert found(replace(PLENTY, memory=4 * GB), workers=fits)["memory"].warning == ""


def test_a_model_that_no_gpu_holds_is_a_problem() -> None:
    small = found(replace(PLENTY, gpus=(GB // 2,)))
    (gpu,) = (each for what, each in small.items() if what.startswith("GPU memory"))
    assert "lower `batch_size` (32)" in gpu.problem
    shared = found(replace(PLENTY, gpus=(2 * GB,)), workers=8)["GPU memory, 8 workers on each"]
    assert shared.problem == ""
    assert "8 workers share a GPU on which about" in shared.warning


def test_a_disk_too_small_for_the_run_is_a_problem_for_an_export_a_warning() -> None:
    full = found(replace(PLENTY, run_free=1000, export_free=1000, temporary_free=1000))
    assert "name a folder on another disk with `--run`" in full["disk for the run (/runs)"].problem
    assert "set TMPDIR" in full["disk for Ray (/tmp)"].problem
    export = full["disk for an export (/here)"]
    assert (export.problem, "export to another disk" in export.warning) == ("", True)


def test_a_real_disk_that_is_nearly_full_is_measured(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 2) as disk:
        fill(disk, left=100_000)
        there = machine(disk / "runs" / "not-yet", tmp_path / "export")
        assert there.run_place == str(disk)
        assert there.run_free <= 100_000
        assert found(there)[f"disk for the run ({disk})"].problem


def test_the_dtype_and_the_longest_path_size_the_model() -> None:
    stored = model_bytes(RECORD, MODELS)
    assert stored == pytest.approx(2 * 1_246_848, rel=0.01)  # bfloat16
    wide = replace(RECORD, space=RECORD.space.model_copy(update={"dtype": "float32"}))
    assert model_bytes(wide, MODELS) == 2 * stored
    text = "sources: {a: x, b: y}\npath: {form: blocks}\nobjectives: [{task: t}]\n"
    assert model_bytes(replace(RECORD, space=parse_space(text)), MODELS) == 2 * stored
    short = text.replace("blocks", "blocks, most: 3")
    assert model_bytes(replace(RECORD, space=parse_space(short)), MODELS) == stored // 2


def test_workers_are_as_many_as_asked_for_or_as_there_are_gpus_or_cpus() -> None:
    assert workers_of(RECORD, PLENTY, None, serial=False) == 8
    assert workers_of(RECORD, replace(PLENTY, gpus=(GB, GB)), None, serial=False) == 2
    assert workers_of(RECORD, PLENTY, 3, serial=False) == 3
    assert workers_of(RECORD, PLENTY, None, serial=True) == 1
