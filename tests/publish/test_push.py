"""Uploads to a stand-in of the hub: the bytes that are written, and what is said where it does not work."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants

from evomerge.errors import ExportError, RequestError
from evomerge.publish.public import export
from evomerge.publish.push import Destination, destination, push
from evomerge.recipe import Merge, ModelRef, Recipe, to_yaml
from tests.cli.conftest import Command
from tests.publish.hub import TOKEN, Hub, standing_in

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # within the client


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A stand-in that the client asks, with a token for it."""
    with standing_in() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.address)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        huggingface_hub.close_session()
        yield hub
        huggingface_hub.close_session()


@pytest.fixture
def recipe(models: Path) -> Recipe:
    refs = {name: ModelRef(source=str(models / name)) for name in ("math", "lang")}
    return Recipe(models=refs, merges={"merged": Merge(method="linear", sources=("math", "lang"))})


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_is_uploaded_is_what_is_written(hub: Hub, recipe: Recipe, tmp_path: Path) -> None:
    target = export(recipe, tmp_path / "out", push_to="me/my-merge")
    assert hub.files == contents(target)
    assert hub.repos == {"me/my-merge": False}
    assert hub.tokens == {f"Bearer {TOKEN}"}
    assert hub.calls.index("create") < hub.calls.index("object") < hub.calls.index("commit")
    assert len(hub.files["model.safetensors"]) > 1000
    assert hub.branches == []


def test_a_branch_and_a_private_repository(hub: Hub, recipe: Recipe, tmp_path: Path) -> None:
    export(recipe, tmp_path / "out", push_to="me/secret", private=True, revision="v2")
    assert hub.repos == {"me/secret": True}
    assert hub.branches == ["v2"]
    assert hub.files


def test_a_repository_that_is_there_gets_one_more_commit(hub: Hub, tmp_path: Path) -> None:
    hub.repos["me/old"] = False
    (tmp_path / "config.json").write_text("{}")
    address = push(tmp_path, Destination(repo="me/old", private=False, revision=None))
    assert address == f"{hub.address}/me/old"
    assert hub.files == {"config.json": b"{}"}


def test_what_must_be_private_does_not_go_where_all_can_read_it(hub: Hub, tmp_path: Path) -> None:
    hub.repos["me/old"] = False
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ExportError, match="me/old exists and is public, so"):
        push(tmp_path, Destination(repo="me/old", private=True, revision=None))
    assert hub.files == {}


@pytest.mark.parametrize(
    ("call", "failure", "said"),
    [
        ("create", 401, r"the hub does not accept the token; log in again with `hf auth login` (HTTP 401)"),
        ("create", 403, r"the token may not write there"),
        ("preupload", 403, r"the token may not write there"),
        ("commit", 409, r"somebody else has changed it in the meantime (HTTP 409)"),
        ("commit", "drop", r"Server disconnected"),
        ("create", "drop", r"Server disconnected"),
    ],
)
def test_an_upload_that_fails_leaves_the_folder_and_says_how_to_go_on(
    call: str, failure: int | str, said: str, hub: Hub, recipe: Recipe, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    hub.failing[call] = failure
    target = tmp_path / "my out"
    with pytest.raises(ExportError, match=re.escape(said)) as told:
        export(recipe, target, push_to="me/my-merge", revision="v2")
    assert str(told.value).endswith(f"upload it with `hf upload me/my-merge '{target}' . --revision v2`")
    assert "\n" not in str(told.value)
    assert {"config.json", "model.safetensors", "README.md"} <= set(contents(target))
    assert hub.files == {}


def test_nobody_listening_is_an_error_in_a_sentence(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ExportError, match="was not uploaded to me/x: "):
        push(tmp_path, Destination(repo="me/x", private=False, revision=None))


@pytest.mark.parametrize("repo", ["my-merge", "a/b/c", "me/", "/merge", "me/a b", "me/..", "../etc", ""])
def test_a_name_that_is_none_is_refused_before_anything_is_merged(
    repo: str, hub: Hub, recipe: Recipe, tmp_path: Path
) -> None:
    with pytest.raises(RequestError, match="--push-to"):
        export(recipe, tmp_path / "out", push_to=repo)
    assert not (tmp_path / "out").exists()
    assert hub.calls == []


def test_without_the_hub_or_a_token_nothing_is_merged(
    hub: Hub, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(RequestError, match="needs a token of the hub"):
        export(recipe, tmp_path / "out", push_to="me/x")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(RequestError, match="HF_HUB_OFFLINE is set"):
        export(recipe, tmp_path / "out", push_to="me/x")
    assert not (tmp_path / "out").exists()


def test_how_to_upload_means_nothing_without_where_to() -> None:
    with pytest.raises(RequestError, match="`--private` says how to upload"):
        destination(None, private=True, revision=None)
    with pytest.raises(RequestError, match="`--revision` says how to upload"):
        destination(None, private=False, revision="v1")
    assert destination(None, private=False, revision=None) is None


def test_the_main_branch_needs_no_word(hub: Hub) -> None:
    to = destination("me/my-merge", private=False, revision="main")
    assert to == Destination(repo="me/my-merge", private=False, revision=None)


def test_the_clients_errors_are_the_ones_caught() -> None:
    """They are what the client raises: one that moves elsewhere would come through as a traceback."""
    from huggingface_hub.errors import HfHubHTTPError, HTTPError  # type: ignore[attr-defined]

    assert issubclass(HfHubHTTPError, HTTPError)


def test_the_command_uploads_and_prints_the_address(
    hub: Hub, recipe: Recipe, tmp_path: Path, command: Command
) -> None:
    (tmp_path / "recipe.yaml").write_text(to_yaml(recipe))
    code, out, err = command(
        "export", tmp_path / "recipe.yaml", tmp_path / "out", "--push-to", "me/x", "--private"
    )
    assert code == 0, err
    assert out.splitlines() == [str(tmp_path / "out"), f"{hub.address}/me/x"]
    assert f"Uploading {tmp_path / 'out'} to me/x" in err
    assert hub.repos == {"me/x": True}
    hub.failing["commit"] = 403
    code, out, err = command("export", tmp_path / "recipe.yaml", tmp_path / "again", "--push-to", "me/x")
    assert (code, out) == (1, f"{tmp_path / 'again'}\n")
    assert "upload it with `hf upload me/x" in err
    assert command("export", tmp_path / "recipe.yaml", tmp_path / "more", "--private")[0] == 2
    assert not (tmp_path / "more").exists()
