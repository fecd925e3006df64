"""Which cases to run (`--vectors DIR`) and where (`--merge-device cuda`), and how many passed."""

from collections import Counter
from pathlib import Path

import pytest

from tests.conformance.cases import Case, read_cases

HERE = Path(__file__).parent


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        folder = Path(metafunc.config.getoption("--vectors") or HERE)
        cases = read_cases(folder, metafunc.config.getoption("--merge-device"))
        metafunc.parametrize("case", cases, ids=lambda case: f"{case.method}-{case.id}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        case = getattr(item, "callspec", None) and item.callspec.params.get("case")  # type: ignore[attr-defined]
        if isinstance(case, Case):
            item.user_properties.append(("conformance", case.method))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    total: Counter[str] = Counter()
    passed: Counter[str] = Counter()
    for outcome in ("passed", "failed", "error"):
        for report in terminalreporter.stats.get(outcome, ()):
            for name, method in getattr(report, "user_properties", ()):
                if name == "conformance":
                    total[method] += 1
                    passed[method] += outcome == "passed"
    if total:
        terminalreporter.section("conformance: passed/total")
        for method in sorted(total):
            terminalreporter.write_line(f"{method:20} {passed[method]}/{total[method]}")
        terminalreporter.write_line(f"{'all':20} {sum(passed.values())}/{sum(total.values())}")
