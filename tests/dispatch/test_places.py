"""Where a node finds sources, and what it takes of what it is sent. The depot is real, Ray is not there."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

import evomerge
from evomerge.checkpoints import digest as hashing
from evomerge.checkpoints.digest import digests, file_digest
from evomerge.checkpoints.models import open_models
from evomerge.controller.search import Options
from evomerge.controller.setup import resolve
from evomerge.dispatch import shipping
from evomerge.dispatch.places import inside, settle
from evomerge.dispatch.shipping import PIECE_BYTES, Depot
from evomerge.dispatch.supply import Supply, read_path_map, supply_of
from evomerge.errors import CheckpointError, RequestError
from evomerge.evaluate.brief import Brief
from evomerge.space import read_space
from tests.checkpoints.peft_adapters import load, save_adapter
from tests.controller.conftest import SPACE
from tests.dispatch.hidden import hides, unshared


class Road:
    """The way from the controller's folders to a node, and how often each source took it."""

    def __init__(self, supply: Supply) -> None:
        self._depot = Depot(
            {
                parcel.name: tuple(str(Path(parcel.folder) / item.name) for item in parcel.items)
                for parcel in supply.parcels
            }
        )
        self.sent: list[str] = []

    def fetch(self, name: str, number: int, size: int) -> Iterator[bytes]:
        if number == 0:
            self.sent.append(name)
        for offset in range(0, size, PIECE_BYTES):
            piece = self._depot.read(name, number, offset)
            assert isinstance(piece, bytes)
            yield piece


@pytest.fixture(scope="module")
def brief(tmp_path_factory: pytest.TempPathFactory) -> Brief:
    """Return a brief whose sources and tasks lie in a folder of their own."""
    folder = tmp_path_factory.mktemp("here")
    plain = folder / "plain.yaml"
    plain.write_text(SPACE)
    found = resolve(read_space(plain)).brief()
    for name, place in found.checkpoints.items():
        shutil.copytree(place, folder / name)
    assert found.tasks is not None
    shutil.copytree(found.tasks, folder / "tasks")
    places = {name: str(folder / name) for name in found.checkpoints}
    return replace(found, checkpoints=places, tasks=str(folder / "tasks"))


def elsewhere(supply: Supply, root: Path) -> Supply:
    """Return the supply as a node sees it that has nothing where the controller has it."""
    return replace(
        supply,
        parcels=tuple(
            replace(parcel, folder=str(root / "nothing" / Path(parcel.folder).name))
            for parcel in supply.parcels
        ),
    )


def test_what_is_the_same_file_is_not_read(
    brief: Brief, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    supply = supply_of(brief, ())
    monkeypatch.setattr(hashing, "_file_digest", lambda path: pytest.fail(f"{path} was read"))
    assert settle(brief, supply, Road(supply).fetch, tmp_path / "cache") == (brief, ())
    assert not (tmp_path / "cache").exists()


def test_what_is_nowhere_is_sent_once_and_kept(brief: Brief, tmp_path: Path) -> None:
    supply = supply_of(brief, ())
    road, seen, cache = Road(supply), elsewhere(supply, tmp_path), tmp_path / "cache"
    there, told = settle(brief, seen, road.fetch, cache)
    assert road.sent == ["base", "math", "lang", "the task folder"]
    assert "source `math` (2.5 MB) was sent to" in told[1]
    for name, place in there.checkpoints.items():
        assert Path(place).parent == cache / "sources"
        files = {file for file in Path(brief.checkpoints[name]).iterdir() if file.name != "README.md"}
        assert files
        for file in files:
            assert (Path(place) / file.name).read_bytes() == file.read_bytes()
    assert there.tasks is not None
    assert (Path(there.tasks) / "data" / "math_b.jsonl").is_file()
    assert settle(brief, seen, road.fetch, cache) == (there, ())
    assert len(road.sent) == 4


def test_what_was_checked_is_read_again_only_once_it_has_changed(
    brief: Brief, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Path(brief.checkpoints["math"]).parent
    supply = supply_of(brief, read_path_map([f"{here}={tmp_path / 'there'}"]))
    shutil.copytree(here, tmp_path / "there")
    road, seen = Road(supply), elsewhere(supply, tmp_path)
    seen = replace(seen, path_map=((str(tmp_path / "nothing"), str(tmp_path / "there")),))
    there, told = settle(brief, seen, road.fetch, tmp_path / "cache")
    assert (road.sent, told) == ([], ())
    assert there.checkpoints["math"] == str(tmp_path / "there" / "math")
    with monkeypatch.context() as patch:
        patch.setattr(hashing, "_file_digest", lambda path: pytest.fail(f"{path} was read"))
        assert settle(brief, seen, road.fetch, tmp_path / "cache") == (there, ())
    weights = tmp_path / "there" / "math" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    there, told = settle(brief, seen, road.fetch, tmp_path / "cache")
    assert road.sent == ["math"]
    assert "is not what the search has as source `math`; not used" in told[0]
    assert Path(there.checkpoints["math"]).parent == tmp_path / "cache" / "sources"


def test_a_source_that_changed_under_the_search_is_not_taken(brief: Brief, tmp_path: Path) -> None:
    here = tmp_path / "math"
    shutil.copytree(brief.checkpoints["math"], here)
    moved = replace(brief, checkpoints={**brief.checkpoints, "math": str(here)})
    supply = supply_of(moved, ())
    road = Road(supply)
    with (here / "model.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x7f")
    with pytest.raises(CheckpointError, match=r"`math` as sent to .* is not what the search began with"):
        settle(moved, elsewhere(supply, tmp_path), road.fetch, tmp_path / "cache")
    assert len(list((tmp_path / "cache" / "sources").iterdir())) == 1  # the base, which is sound


def test_a_kept_copy_that_was_spoilt_is_sent_again_and_remains_of_dead_workers_go(
    brief: Brief, tmp_path: Path
) -> None:
    supply, cache = supply_of(brief, ()), tmp_path / "cache"
    road, seen = Road(supply), elsewhere(supply, tmp_path)
    there, _ = settle(brief, seen, road.fetch, cache)
    lang = Path(there.checkpoints["lang"])
    (lang / "model.safetensors").write_bytes(b"torn")
    left = lang.with_name(f"{lang.name}.partial-dead")
    left.mkdir()
    assert settle(brief, seen, road.fetch, cache)[0] == there
    assert road.sent[4:] == ["lang"]
    assert (lang / "model.safetensors").stat().st_size > 4
    assert not left.exists()


def test_adapters_and_statistics_are_sent_too(brief: Brief, tmp_path: Path) -> None:
    here = tmp_path / "here"
    base = {"base": brief.checkpoints["base"]}
    save_adapter(load(Path(base["base"])), here / "low", seed=1, target_modules=["q_proj"])
    fisher = evomerge.measure("fisher", base["base"], ["one", "two"], here / "fisher.safetensors")
    places = {**base, "low": str(here / "low"), "base:fisher": str(fisher)}
    content = digests(open_models(places, {"low": "base"}))
    asked = replace(
        brief,
        checkpoints=places,
        adapts={"low": "base"},
        tasks=None,
        digests={**content, "base:fisher": file_digest(fisher)},
    )
    supply = supply_of(asked, ())
    road, seen = Road(supply), elsewhere(supply, tmp_path)
    there, _ = settle(asked, seen, road.fetch, tmp_path / "cache")
    assert road.sent == ["base", "low", "base:fisher"]
    assert digests(open_models(there.checkpoints, there.adapts)) == content
    assert Path(there.checkpoints["base:fisher"]).read_bytes() == fisher.read_bytes()
    assert settle(asked, seen, road.fetch, tmp_path / "cache") == (there, ())


def test_a_node_with_another_evomerge_is_refused(brief: Brief, tmp_path: Path) -> None:
    supply = supply_of(brief, ())
    other = replace(supply, versions={**supply.versions, "evomerge": "0.0.1"})
    with pytest.raises(RequestError, match=r"has evomerge .*, the controller 0.0.1"):
        settle(brief, other, Road(supply).fetch, tmp_path / "cache")


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", ""])
def test_no_file_leaves_the_folder_it_is_sent_to(name: str) -> None:
    with pytest.raises(CheckpointError, match="would leave the folder"):
        inside(name)


def test_the_depot_says_what_it_cannot_read_and_has_nothing_else(tmp_path: Path) -> None:
    depot = Depot({"math": (str(tmp_path / "gone"),)})
    assert not depot.busy()
    said = depot.read("math", 0, 0)
    assert isinstance(said, str)
    assert "No such file" in said
    assert depot.busy()
    with pytest.raises(KeyError):
        depot.read("/etc/passwd", 0, 0)


class Calls:
    """An actor that answers at once."""

    def __init__(self, method: Callable[..., object]) -> None:
        self.remote = method


@pytest.mark.parametrize("size", [0, 1, 10, 11, 95])
def test_a_file_is_sent_whole_and_in_order(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipping, "PIECE_BYTES", 10)
    monkeypatch.setattr(ray, "get", lambda piece: piece)
    content = bytes(range(size))
    (tmp_path / "file").write_bytes(content)
    depot = SimpleNamespace(read=Calls(Depot({"math": (str(tmp_path / "file"),)}).read))
    pieces = list(shipping.pieces(depot, "math", 0, size))
    assert b"".join(pieces) == content
    assert len(pieces) == -(-size // 10)
    (tmp_path / "file").unlink()
    with pytest.raises(CheckpointError, match=r"cannot be read on the controller's node: .*No such file"):
        list(shipping.pieces(depot, "math", 0, 1))
    with pytest.raises(CheckpointError, match="ray://"):
        list(shipping.pieces(None, "math", 0, 1))


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("models", "is not HERE=THERE"),
        ("/tmp=there", "is not HERE=THERE"),
        ("/nowhere=/there", "no /nowhere"),
    ],
)
def test_a_path_map_that_means_nothing_is_said(pair: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        read_path_map([pair])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path_map": ("/tmp=/there",)}, "give its `--ray-address`"),
        ({"path_map": ("/tmp",), "ray_address": "auto"}, "is not HERE=THERE"),
        ({"gpus_per_worker": 1.5}, "give a number from 0 to 1"),
        ({"gpus_per_worker": 0.5, "serial": True}, "leave out `--gpus-per-worker`"),
    ],
)
def test_options_that_mean_nothing_are_said(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        Options(**options)


FULL = """
import pickle, sys
from pathlib import Path
from evomerge.dispatch import shipping
from evomerge.dispatch.places import settle
from evomerge.errors import CheckpointError
brief, supply = pickle.load(open(sys.argv[1], "rb"))
try:
    settle(brief, supply, lambda *_: iter([b""]), Path(sys.argv[2]))
except CheckpointError as error:
    print(error)
"""


@pytest.mark.skipif(not hides(), reason="no mount namespace can be made here (`unshare --mount`)")
def test_a_node_with_too_little_disk_says_so(brief: Brief, tmp_path: Path) -> None:
    small, kept = tmp_path / "small", tmp_path / "kept"
    small.mkdir()
    kept.write_bytes(pickle.dumps((brief, elsewhere(supply_of(brief, ()), tmp_path))))
    command = [sys.executable, "-c", FULL, str(kept), str(small)]
    done = subprocess.run(
        unshared(command, small, size="1m"), capture_output=True, text=True, check=True, timeout=120
    )
    assert "has no source `base` and too little room for it: 1.0 MB free in" in done.stdout
    assert "2.5 MB needed" in done.stdout
