"""The tests that mount a small disk, for those who are not root: as root of a namespace of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = ("tests/publish/test_killed_export.py", "tests/controller/test_storage.py")


@pytest.mark.skipif(os.geteuid() == 0, reason="root runs them where they stand")
def test_full_disks_in_a_namespace(tmp_path: Path) -> None:
    alone = ["unshare", "--map-root-user", "--user", "--mount"]
    if subprocess.run([*alone, "true"], check=False).returncode != 0:
        pytest.skip("no namespace can be made here in which to mount a disk")
    done = subprocess.run(
        [
            *alone, sys.executable, "-m", "pytest", *TESTS, "-k", "full_disk",
            "-p", "no:cacheprovider", "--basetemp", tmp_path / "inside",
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "skipped" not in done.stdout, done.stdout
