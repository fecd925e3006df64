"""The run folder: made once, written by one process at a time, and free again when that one dies."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from evomerge.archive.folder import RunFolder, latest, next_free, trial_at
from evomerge.archive.record import RunRecord
from evomerge.errors import RunError

HOLD = """
import sys
from pathlib import Path
from evomerge.archive.folder import RunFolder
with RunFolder(Path(sys.argv[1])).writing():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_new_folder_holds_the_space_as_written_and_the_record(tmp_path: Path, record: RunRecord) -> None:
    folder = RunFolder(tmp_path / "runs" / "mine")
    folder.create(record, "# my own words\n")
    assert {path.name for path in folder.path.iterdir()} == {"space.yaml", "run.json"}
    assert (folder.path / "space.yaml").read_text() == "# my own words\n"
    assert folder.read_record() == record
    assert folder.name == "mine"


def test_an_empty_folder_may_be_used(tmp_path: Path, record: RunRecord) -> None:
    RunFolder(tmp_path).create(record, "")
    assert RunFolder(tmp_path).read_record() == record


def test_an_existing_folder_is_refused_and_left_alone(tmp_path: Path, record: RunRecord) -> None:
    (tmp_path / "theirs.txt").write_text("precious")
    with pytest.raises(RunError, match=f"^{tmp_path} exists, and is no run folder; choose another"):
        RunFolder(tmp_path).create(record, "")
    assert [path.name for path in tmp_path.iterdir()] == ["theirs.txt"]


def test_a_file_in_the_way_is_refused_and_left_alone(tmp_path: Path, record: RunRecord) -> None:
    (tmp_path / "run").write_text("precious")
    with pytest.raises(RunError, match=r"is a file, so no run folder"):
        RunFolder(tmp_path / "run").create(record, "")
    assert (tmp_path / "run").read_text() == "precious"


def test_a_place_that_is_not_writable_is_refused_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda place, mode: False)  # tests may run as root, who may all
    with pytest.raises(RunError, match=f"cannot be made: {tmp_path} is not writable$"):
        RunFolder(tmp_path / "new" / "run").check_free()


def test_a_folder_that_cannot_be_made_is_an_error_and_leaves_nothing(
    tmp_path: Path, record: RunRecord
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"cannot be made: .*/file is a file$"):
        RunFolder(tmp_path / "file" / "run").create(record, "")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("content", [None, "{", "[]", "null", "{}"])
def test_a_folder_that_is_no_run_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(RunError):
        RunFolder(tmp_path).read_record()


def test_a_folder_without_a_record_is_said_to_be_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=f"^{tmp_path} is not a run folder: it has no run.json$"):
        RunFolder(tmp_path).read_record()


def test_a_second_process_may_not_write_until_the_first_is_gone(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as first:  # fmt: skip
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        with (
            pytest.raises(
                RunError, match=rf"^another evomerge \(process {first.pid}\) writes to {tmp_path};"
            ),
            RunFolder(tmp_path).writing(),
        ):
            pytest.fail("two processes hold one lock")
        first.send_signal(signal.SIGKILL)
        first.wait(timeout=30)
    with RunFolder(tmp_path).writing():
        pass


def test_the_lock_is_free_after_use(tmp_path: Path) -> None:
    for _ in range(2):
        with RunFolder(tmp_path).writing(), pytest.raises(RunError), RunFolder(tmp_path).writing():
            pytest.fail("one lock was held twice")


def test_a_name_that_is_free_is_kept_and_others_are_numbered(tmp_path: Path) -> None:
    for expected in ("a", "a-2", "a-3"):
        path = next_free(tmp_path, "a")
        assert path == tmp_path / expected
        path.mkdir()


def test_the_latest_is_the_last_numbered(tmp_path: Path) -> None:
    for name in ("a", "a-2", "a-3", "ab", "b-4"):
        (tmp_path / name).mkdir()
    assert latest(tmp_path, "a") == tmp_path / "a-3"
    assert latest(tmp_path, "ab") == tmp_path / "ab"


def test_the_latest_is_found_though_an_earlier_one_was_deleted(tmp_path: Path) -> None:
    for name in ("a-2", "a-10"):
        (tmp_path / name).mkdir()
    assert latest(tmp_path, "a") == tmp_path / "a-10"
    assert next_free(tmp_path, "a") == tmp_path / "a-11"


def test_there_is_no_latest_of_what_never_ran(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=f"^nothing to resume: there is no run folder {tmp_path / 'a'}$"):
        latest(tmp_path, "a")


def test_the_checkpoint_of_a_trial_says_of_which_run_it_is(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    assert trial_at(run.checkpoint(12)) == (run, 12)
    for other in ("exports/trial-", "exports/trial-1b", "exports/trial-1.old", "export/trial-1", "trial-1"):
        assert trial_at(run.path / other) is None
