"""The cheap half stays cheap, and what the package says it offers is there."""

import subprocess
import sys

import pytest

import evomerge

HEAVY = ("torch", "transformers", "ray", "lm_eval")
CHEAP = {
    "evomerge": "import evomerge",
    "space": "import evomerge.space",
    "recipe": "import evomerge.recipe",
    "archive": "import evomerge.archive.run",
    "command line": "import evomerge.cli.main",
    "methods": (
        "from evomerge import plugins\nfor name in plugins.names('methods'): plugins.load('methods', name)"
    ),
    "samplers": (
        "from evomerge import plugins\nfor name in plugins.names('samplers'): plugins.load('samplers', name)"
    ),
    "public names of the cheap half": "from evomerge import Recipe, load_space, open_run",
    "a space": (
        "from evomerge.space import parse_space\n"
        "parse_space('sources: {a: a, b: b}\\nmerge: {method: linear}\\nobjectives: [{task: t}]')"
    ),
}


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False, timeout=120
    )


@pytest.mark.parametrize("code", CHEAP.values(), ids=CHEAP)
def test_the_cheap_half_loads_nothing_heavy(code: str) -> None:
    done = python(f"{code}\nimport sys\nprint(sorted({set(HEAVY)!r} & set(sys.modules)))")
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")


def test_importing_evomerge_loads_none_of_its_parts() -> None:
    done = python("import evomerge, sys\nprint([m for m in sys.modules if m.startswith('evomerge.')])")
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("name", evomerge.__all__)
def test_a_public_name_is_there(name: str) -> None:
    assert python(f"import evomerge\nprint(callable(evomerge.{name}))").stdout == "True\n"


@pytest.mark.parametrize(
    "name",
    evomerge.__all__,
)
def test_a_public_name_is_the_same_thing_when_asked_for_again(name: str) -> None:
    code = f"import evomerge\nfirst = evomerge.{name}\nprint(evomerge.{name} is first)"
    assert python(code).stdout == "True\n"


def test_there_are_no_public_names_besides() -> None:
    code = (
        "import evomerge, types\n"
        "found = {n for n, v in vars(evomerge).items() if not n.startswith('_')}\n"
        "found -= {'annotations', 'TYPE_CHECKING', 'Any', 'importlib'}\n"
        "print(sorted(found), sorted(evomerge._HOMES) == sorted(evomerge.__all__))"
    )
    assert python(code).stdout == "[] True\n"


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"^module `evomerge` has no attribute `serach`$"):
        _ = evomerge.serach
    with pytest.raises(ImportError):
        exec("from evomerge import serach")


def test_star_import_brings_exactly_the_public_names() -> None:
    code = "before = set(dir())\nfrom evomerge import *\nprint(sorted(set(dir()) - before - {'before'}))"
    assert python(code).stdout == f"{sorted(evomerge.__all__)}\n"


@pytest.mark.parametrize(
    "command", [[], ["search"], ["front"], ["export"], ["measure"], ["dashboard"], ["zoo"]]
)
def test_help_is_data_on_stdout(command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "evomerge", *command, "--help"],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert all(word in done.stdout for word in ("Usage:", *command, "--help"))
