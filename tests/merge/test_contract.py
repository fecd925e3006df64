"""Every merge method found keeps the contract that plug-in authors are given."""

import pytest

from evomerge import plugins
from evomerge.parameters import declared
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


def test_a_parameter_of_one_name_is_of_one_kind() -> None:
    """Methods to choose among share genes of one name, so both must mean the same sort of value."""
    kinds: dict[str, dict[str, tuple[object, ...]]] = {}
    for method in plugins.names("methods"):
        for name, parameter in declared(plugins.load("methods", method)).items():
            kind = (type(parameter.spec), parameter.per_source, parameter.spec.whole)
            kinds.setdefault(name, {})[method] = kind
    mixed = {name: found for name, found in kinds.items() if len(set(found.values())) > 1}
    assert not mixed
