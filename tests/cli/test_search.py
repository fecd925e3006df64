"""The time limit of a candidate, from the command line to a resumed search."""

from __future__ import annotations

from pathlib import Path

import pytest

from evomerge.cli.search import _again
from evomerge.controller.public import prepare
from evomerge.controller.search import Options, Prepared
from evomerge.errors import RequestError, SpaceError
from tests.cli.conftest import SPACE, Workplace


def prepared(*, resume: bool = False, options: Options | None = None, **changes: float) -> Prepared:
    """Return the search of the space in the working directory, ready to begin."""
    run = Path("runs/one")
    return prepare(Path("space.yaml"), run=run, resume=resume, changes=changes, options=options or Options())


def test_the_time_limit_of_a_candidate_is_kept_and_may_be_changed(workplace: Workplace) -> None:
    workplace.write_space(SPACE + "candidate_time_limit: 60\n")
    assert prepared().candidate_time_limit == 60
    first = prepared(candidate_time_limit=90)
    assert first.candidate_time_limit == 90
    assert "--candidate-time-limit" not in _again(Path("space.yaml"), first, Options())
    first.folder.create(first.record, "")
    assert prepared(resume=True).candidate_time_limit == 90
    again = prepared(resume=True, candidate_time_limit=120.5)
    assert again.candidate_time_limit == 120.5
    assert _again(Path("space.yaml"), again, Options()).endswith(" --candidate-time-limit 120.5")


def test_a_limit_that_nothing_could_enforce_is_refused(workplace: Workplace) -> None:
    workplace.write_space(SPACE + "candidate_time_limit: 60\n")
    with pytest.raises(
        RequestError,
        match=r"^space.yaml:8: `candidate_time_limit`: `--serial` has no worker that could be ended",
    ):
        prepared(options=Options(serial=True))
    workplace.write_space(SPACE)
    with pytest.raises(RequestError, match=r"^`candidate_time_limit` as given: `--serial` has no worker"):
        prepared(options=Options(serial=True), candidate_time_limit=5)


def test_a_limit_of_no_time_is_refused(workplace: Workplace) -> None:
    with pytest.raises(SpaceError, match=r"^`candidate_time_limit` as given must be above 0, found 0"):
        prepared(candidate_time_limit=0.0)
