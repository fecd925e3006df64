"""Plug-ins are files, or entry points of other distributions."""

import importlib.metadata
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType

import pytest

from evomerge import plugins
from evomerge.errors import PluginError
from evomerge.merge.method import MergeMethod
from evomerge.merge.methods.ties import Ties


@pytest.fixture
def fresh() -> Iterator[None]:
    """Forget what was found, before and after."""
    plugins.names.cache_clear()
    plugins.load.cache_clear()
    yield
    plugins.names.cache_clear()
    plugins.load.cache_clear()


@pytest.fixture
def installed(fresh: None, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that makes `METHOD` of a module seem installed as the entry point `name`."""

    def install(name: str, method: object) -> None:
        module = ModuleType("outside_plugin")
        module.METHOD = method  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "outside_plugin", module)
        point = EntryPoint(name=name, value="outside_plugin:METHOD", group="evomerge.methods")
        found = importlib.metadata.entry_points

        def entry_points(*, group: str) -> list[EntryPoint]:
            return [*found(group=group), *([point] if group == point.group else [])]

        monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)

    return install


def test_every_file_of_the_package_is_a_method() -> None:
    import evomerge.merge.methods as package

    files = {path.stem for path in Path(package.__path__[0]).glob("*.py")} - {"__init__"}
    assert files <= set(plugins.names("methods"))
    assert {"linear", "slerp", "task_arithmetic", "ties", "dare_linear", "dare_ties"} <= files


@pytest.mark.parametrize("kind", plugins.KINDS)
def test_names_are_sorted_and_each_loads_something_to_call(kind: str) -> None:
    found = plugins.names(kind)
    assert list(found) == sorted(set(found))
    for name in found:
        assert callable(plugins.load(kind, name))


def test_a_method_is_loaded_by_its_file_name() -> None:
    assert plugins.load("methods", "ties") is Ties


def test_an_unknown_name_is_refused_with_a_suggestion() -> None:
    with pytest.raises(
        PluginError, match=r"no merge method named `tie`\. Did you mean `ties`\? Known: .*dare_linear"
    ):
        plugins.load("methods", "tie")


def test_an_entry_point_adds_a_method(installed: Callable[..., None]) -> None:
    class Outside:
        pass

    installed("outside", Outside)
    assert "outside" in plugins.names("methods")
    assert plugins.load("methods", "outside") is Outside


def test_an_entry_point_of_another_kind_adds_none(installed: Callable[..., None]) -> None:
    installed("outside", object)
    assert "outside" not in plugins.names("samplers")


def test_a_file_dropped_into_the_package_is_a_plugin(
    fresh: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Adding a method is adding one file and editing no other."""
    import evomerge.merge.methods as package

    (tmp_path / "dropped_in.py").write_text("class Dropped: ...\nMETHOD = Dropped\n")
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    assert "dropped_in" in plugins.names("methods")
    loaded: type[MergeMethod] = plugins.load("methods", "dropped_in")
    assert loaded.__name__ == "Dropped"
    monkeypatch.delitem(sys.modules, "evomerge.merge.methods.dropped_in")
    monkeypatch.delattr(package, "dropped_in")
