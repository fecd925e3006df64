"""From what a user writes to a folder."""

from pathlib import Path

import pytest
from huggingface_hub import constants

from evomerge.checkpoints import locate as locating
from evomerge.checkpoints.locate import canonical, locate, locate_run, locate_tasks
from evomerge.errors import CheckpointError, RunError


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a zoo of two models, in the place of the shipped one."""
    for folder in ("models/math", "models/lang", "tasks"):
        (tmp_path / "zoo" / folder).mkdir(parents=True)
    monkeypatch.setattr(locating, "ZOO", tmp_path / "zoo")
    return tmp_path / "zoo"


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the hub's cache, empty, with the network switched off."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_a_zoo_model_is_a_folder_of_the_package(zoo: Path) -> None:
    assert locate("zoo:math") == zoo / "models" / "math"


def test_an_unknown_zoo_model_is_refused_with_a_suggestion(zoo: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"no zoo model named `maths`\. Did you mean `math`\? Known: lang, math"
    ):
        locate("zoo:maths")


@pytest.mark.parametrize("name", ["..", "../tasks", "", "."])
def test_a_zoo_name_cannot_leave_the_zoo(name: str, zoo: Path) -> None:
    with pytest.raises(CheckpointError, match="no zoo model named"):
        locate(f"zoo:{name}")


def test_a_relative_folder_is_looked_up_from_near_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("spaces/m", "work/m", "work/only_here"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work")
    near = tmp_path / "spaces"
    assert locate("m", near=near) == near / "m"
    assert locate("m") == tmp_path / "work" / "m"
    assert locate("only_here", near=near) == tmp_path / "work" / "only_here"
    assert locate("../spaces/m") == near / "m"


def test_an_absolute_folder_is_itself(tmp_path: Path) -> None:
    assert locate(str(tmp_path), near=Path("/nowhere")) == tmp_path


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert locate("~/models") == tmp_path / "models"


@pytest.mark.parametrize("source", ["./no/such", "/no/such", "nothing", "a/b/c", "~no_such_user/model"])
def test_a_missing_folder_is_refused_by_name(source: str, offline: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"no (model )?folder `{source}`"):
        locate(source, near=tmp_path)


def test_a_hub_id_offline_and_uncached_says_so(offline: Path) -> None:
    with pytest.raises(
        CheckpointError,
        match="`owner/name` is neither a folder here nor in the hub's cache, and the hub cannot be reached",
    ):
        locate("owner/name")


def test_a_cached_hub_id_needs_no_network(offline: Path) -> None:
    repository, commit = offline / "models--owner--name", "a" * 40
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    assert locate("owner/name") == snapshot
    assert locate("owner/name", revision=commit) == snapshot
    assert canonical("owner/name", snapshot) == "owner/name"


def test_a_name_the_hub_cannot_have_is_refused(offline: Path) -> None:
    with pytest.raises(CheckpointError, match="`owner/na--me` is no folder here, and the hub says"):
        locate("owner/na--me")


def test_canonical_sources_lead_there_from_anywhere(tmp_path: Path) -> None:
    assert canonical("zoo:math", tmp_path) == "zoo:math"
    assert canonical("../m", tmp_path / "m") == str(tmp_path / "m")
    assert canonical("snapshots/m", tmp_path / "snapshots" / "m") == str(tmp_path / "snapshots" / "m")


def test_task_folders_are_found_like_models(zoo: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    assert locate_tasks("zoo:tasks") == zoo / "tasks"
    assert locate_tasks("mine", near=tmp_path) == tmp_path / "mine"
    with pytest.raises(CheckpointError, match="no task folder `gone`"):
        locate_tasks("gone", near=tmp_path)


def test_a_missing_run_is_named_by_the_place_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(
        RunError, match=f"^no run folder `../runs/a` .looked at {tmp_path}/runs/a.; `evomerge search`"
    ):
        locate_run("../runs/a", near=tmp_path / "spaces")
