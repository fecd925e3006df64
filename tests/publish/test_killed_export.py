"""Exports that are killed or run out of disk: no half of one, nothing lost, and a second try works."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from evomerge.archive.files import folder_beside
from evomerge.errors import ExportError, RequestError
from evomerge.publish.checkpoint import write_checkpoint
from evomerge.publish.public import export
from evomerge.recipe import Recipe, to_yaml
from tests.publish.test_sources import at
from tests.publish.test_target import contents
from tests.small_disk import fill, make_room, small_disk

ROOT = Path(__file__).parents[2]
KILLS = 40

KILL = """
import json, os, random, signal, sys, time
from pathlib import Path
from evomerge.publish.public import export

recipe, target, kills = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])


def whole():
    return json.dumps(sorted((file.name, file.read_bytes().hex()) for file in target.iterdir()))


export(recipe, target)  # which imports what the next finds there
started = time.monotonic()
export(recipe, target, overwrite=True)
seconds, complete = time.monotonic() - started, whole()
rng, alive, seen = random.Random(0), 0, []
for _ in range(kills):
    child = os.fork()
    if child == 0:
        export(recipe, target, overwrite=True)
        os._exit(0)
    time.sleep(seconds * 1.2 * rng.random())
    os.kill(child, signal.SIGKILL)
    alive += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0
    beside = [each.name for each in target.parent.iterdir() if each.name.startswith(".out.partial-")]
    moved = [name for name in beside if name.endswith("-old")]
    seen.append({"whole": whole() == complete if target.exists() else bool(moved), "beside": len(beside)})
export(recipe, target, overwrite=True)
print(json.dumps({"killed": alive, "seen": seen, "whole": whole() == complete}))
"""


def test_an_export_killed_at_any_instant_leaves_a_whole_checkpoint_and_no_litter(models: Path) -> None:
    (models.parent / "recipe.yaml").write_text(to_yaml(at(models, "math", "lang")))
    target = models.parent / "out"
    done = subprocess.run(
        [sys.executable, "-c", KILL, models.parent / "recipe.yaml", target, str(KILLS)],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["killed"] > KILLS / 2
    assert all(each["whole"] for each in told["seen"])
    assert max(each["beside"] for each in told["seen"]) == 1  # each try clears what the one before left
    assert told["whole"]
    assert sorted(each.name for each in models.parent.iterdir()) == ["models", "out", "recipe.yaml"]


def test_an_export_killed_between_two_renames_is_undone_by_the_next(models: Path) -> None:
    target = export(at(models, "math"), models.parent / "out")
    before = contents(target)
    target.rename(models.parent / ".out.partial-x-old")
    (models.parent / ".out.partial-x").mkdir()
    with pytest.raises(RequestError, match="exists; choose another folder"):
        export(at(models, "math", "lang"), target)
    assert contents(target) == before
    assert sorted(each.name for each in models.parent.iterdir()) == ["models", "out"]


def test_an_export_leaves_another_that_is_under_way_alone(models: Path) -> None:
    with folder_beside(models.parent / "out") as theirs:
        (theirs / "model.safetensors").write_text("half of it")
        export(at(models, "math"), models.parent / "out")
        assert (theirs / "model.safetensors").exists()
    assert sorted(each.name for each in models.parent.iterdir()) == ["models", "out"]


def attempt(recipe: Recipe, target: Path, *, left: int) -> str | None:
    """Export where others fill the disk once all is checked; return what was said if it did not work."""
    try:
        write_checkpoint(recipe, target, overwrite=True, begun=lambda: fill(target.parent, left=left))
    except ExportError as error:
        return str(error)
    finally:
        make_room(target.parent)
    return None


def test_an_export_onto_a_full_disk_leaves_what_was_there(models: Path, tmp_path: Path) -> None:
    """With more and more room, until it is enough."""
    new = at(models, "math", "lang")
    with small_disk(tmp_path / "disk", megabytes=70) as disk:
        targets = (disk / "old", disk / "new")
        old = contents(export(at(models, "math"), targets[0]))
        failures = 0
        for left in range(0, 200_000, 4096):  # a tmpfs gives its room in pages
            said = [attempt(new, target, left=left) for target in targets]
            if None in said:
                break
            assert said == [f"writing {target} failed: No space left on device" for target in targets]
            assert contents(disk) == old
            assert [each.name for each in disk.iterdir()] == ["old"]
            failures += 1
        assert failures >= len(old)  # so that it happened in every file
        export(new, targets[0], overwrite=True)
        assert "lang" in (targets[0] / "recipe.yaml").read_text()


def test_a_full_disk_is_found_before_anything_is_written(models: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", megabytes=70) as disk:
        (disk / ".out.partial-x").mkdir()
        fill(disk / ".out.partial-x", left=1 << 20)  # what an export that was killed left takes no room
        fill(disk, left=1 << 19)
        make_room(disk)
        export(at(models, "math"), disk / "out")
        fill(disk, left=1 << 20)
        with pytest.raises(RequestError, match=r"needs 0\.1 GB, and .*/disk has 0\.0 GB left$"):
            export(at(models, "math"), disk / "other")
        assert sorted(each.name for each in disk.iterdir()) == ["filler", "out"]
