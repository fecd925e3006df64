"""The reference of merge methods says what they declare."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import pytest

from evomerge import plugins
from evomerge.errors import PluginError
from evomerge.parameters import Choice, Gene, PerSource, declared
from evomerge.report.methods import MethodPage, method_page, parameter_row, reference


@dataclass(frozen=True)
class Example:
    """An example; `a | b`."""

    sources: ClassVar[tuple[int, int | None]] = (2, 2)
    base: ClassVar[str] = "optional"

    density: Annotated[
        PerSource,
        Gene(
            low=0.1, high=1, default=0.5, meaning="share", least=0, most=1, also={"k": float}, searched=False
        ),
    ]
    flatten: Annotated[
        bool, Choice(options=(True, False), default=True, meaning="as one", words=("flat",), whole=True)
    ]


def test_a_parameter_is_told_with_range_limits_and_other_words() -> None:
    rows = list(map(parameter_row, declared(Example).values()))
    assert rows == [
        ("density", "0.5", "[0.1 to 1 (at least 0, at most 1)]", "k", "one per source: share"),
        ("flatten", "true", "[true, false]", "flat", "for the whole model: as one"),
    ]


def test_a_page_says_how_many_sources_and_whether_a_base() -> None:
    assert MethodPage(name="example", kind=Example).takes == "2 sources, a base if there is one"
    assert method_page("slerp").takes == "1 source, a base"
    assert method_page("linear").takes == "1 or more sources, no base"


def test_a_page_says_what_is_seen_and_what_implementations_differ() -> None:
    assert method_page("linear").passes == "one tensor at a time"
    assert method_page("ties").passes.startswith("one tensor at a time; over the whole model where")
    assert method_page("linear").facts["compat"] == "all the same"
    assert "peft" in method_page("ties").facts["compat"]


@pytest.mark.parametrize("name", plugins.names("methods"))
def test_every_method_names_its_source_and_every_parameter(name: str) -> None:
    section = reference().partition(f"\n## {name}\n")[2].partition("\n## ")[0]
    assert "https://" in section, f"the docstring of {name}.py names no source: give its address"
    for parameter in declared(plugins.load("methods", name)):
        assert f"\n| `{parameter}` |" in section


def test_a_method_that_is_not_there_is_told_with_the_closest() -> None:
    with pytest.raises(PluginError, match="Did you mean `ties`"):
        method_page("tie")


def test_cells_of_the_table_do_not_break_it() -> None:
    for line in reference().splitlines():
        if line.startswith("| [`"):
            assert line.count(" | ") == 3, line
