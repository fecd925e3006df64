"""A search that starts from a run says what it writes first."""

from __future__ import annotations

import sys

import pytest

from evomerge.cli.main import main
from tests.cli.conftest import SPACE, Workplace


@pytest.mark.parametrize("quiet", [False, True])
def test_a_checkpoint_that_is_written_is_told_unless_quiet(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], quiet: bool
) -> None:
    workplace.write_space(SPACE.replace("models/math", "{run: runs/space, pick: 5}"), "two.yaml")
    for space in ("space.yaml", "two.yaml"):
        options = ["--serial", *(["--quiet"] if quiet else [])]
        monkeypatch.setattr(sys, "argv", ["evomerge", "search", space, *options])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 0, capfd.readouterr().err
    said = capfd.readouterr()
    told = f"Writing trial 5 of {workplace.path / 'runs' / 'space'} as a checkpoint (0 MB) …\n"
    assert said.err.startswith(told) is not quiet
    assert (said.err == "") is quiet
    assert "Writing" not in said.out
    assert (workplace.path / "runs" / "space" / "exports" / "trial-5" / "config.json").is_file()
