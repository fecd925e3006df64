"""Identities on disk: what was written is read, whatever a crash left behind it."""

from pathlib import Path

import pytest

from evomerge.archive.identities import Identity, IdentityStore
from evomerge.types import Identified

BUILT = Identified(
    digest="xxh3:0f",
    fingerprint=((-0.5, -12.0, -3.25), (0.0, -1.0, -2.0)),
    noise=3.7e-6,
    device="cuda (NVIDIA H100)",
    merge_seconds=1.25,
    basis="abc torch.bfloat16",
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "identities.jsonl"


def test_identities_are_read_as_they_were_written(file: Path) -> None:
    store = IdentityStore(file)
    assert store.read() == {}
    bare = Identified(digest="xxh3:1", fingerprint=(), noise=0.0, device="cpu", merge_seconds=0.0)
    written = {
        4: Identity(key="k4", identified=BUILT), 2: Identity(key="k2"), 3: Identity(key="k3", identified=bare)
    }  # fmt: skip
    for trial, identity in written.items():
        store.add(trial, identity)
    assert store.read() == written
    assert list(store.read()) == [2, 3, 4]


def test_a_line_is_small(file: Path) -> None:
    whole = Identified(
        digest="xxh3:" + "0" * 32, fingerprint=((-1.123456789,) * 32,) * 16, noise=1e-6, device="cpu",
        merge_seconds=0.1, basis="b",
    )  # fmt: skip
    IdentityStore(file).add(0, Identity(key="0" * 32, identified=whole))
    assert file.stat().st_size < 3100
    found = IdentityStore(file).read()[0].identified
    assert found is not None
    assert found.fingerprint[0][0] == pytest.approx(-1.123456789, abs=1e-6)


def test_a_trial_recorded_twice_is_who_it_was_later(file: Path) -> None:
    store = IdentityStore(file)
    store.add(1, Identity(key="a"))
    store.add(1, Identity(key="a", identified=BUILT))
    assert store.read() == {1: Identity(key="a", identified=BUILT)}


def test_a_torn_line_is_ignored_by_readers_and_cut_by_the_writer(file: Path) -> None:
    store = IdentityStore(file)
    store.add(1, Identity(key="a", identified=BUILT))
    whole = file.read_bytes()
    file.write_bytes(whole + whole[:40])
    assert list(store.read()) == [1]
    assert file.read_bytes() == whole + whole[:40]
    store.repair()
    store.add(2, Identity(key="b"))
    assert list(store.read()) == [1, 2]
