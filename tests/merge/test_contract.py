"""Every merge method found keeps the contract that plug-in authors are given."""

import pytest

from evomerge import plugins
from evomerge.testing.methods import CHECKS, Check, check_method


@pytest.mark.parametrize("name", plugins.names("methods"))
@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
def test_method_keeps_the_contract(check: Check, name: str) -> None:
    check(name)


@pytest.mark.parametrize("broken", CHECKS)
def test_check_method_runs_every_check(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise AssertionError(f"{broken} of {name}")

    monkeypatch.setitem(CHECKS, broken, fail)
    with pytest.raises(AssertionError, match=f"{broken} of linear"):
        check_method("linear")
