"""What a browser makes of the report and the dashboard of a real run: it shows them, without a complaint.

It takes Chromium. Where there is none these tests are skipped, unless `EVOMERGE_BROWSER` names one.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

import evomerge
from tests.cli.running import evomerge_command

HINT = (
    "there is no Chromium to look with: install it with `apt-get install chromium`, or name one by "
    "EVOMERGE_BROWSER=/path/to/chromium"
)


def chromium() -> str | None:
    """Return where Chromium is."""
    named = os.environ.get("EVOMERGE_BROWSER", "")
    return next(
        filter(None, map(shutil.which, (named, "chromium", "chromium-browser", "google-chrome"))), None
    )


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Give a browser that asks nothing of anybody by itself."""
    program = chromium()
    if program is None:
        if os.environ.get("EVOMERGE_BROWSER"):
            pytest.fail(HINT)
        pytest.skip(HINT)
    options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
    with sync_playwright() as started:
        opened = started.chromium.launch(executable_path=program, args=options)
        yield opened
        opened.close()


class Watched:
    """A page, and all that went wrong in it or that it asked for."""

    def __init__(
        self, browser: Browser, *, width: int = 1280, dark: bool = False, offline: bool = False
    ) -> None:
        context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme="dark" if dark else "light",
            offline=offline,
        )
        self.page: Page = context.new_page()
        self.complaints: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))

    def _heard(self, message: object) -> None:
        if getattr(message, "type", "") in ("error", "warning"):
            self.complaints.append(getattr(message, "text", ""))


@pytest.fixture(scope="module")
def report(place: Path) -> Path:
    """Return the page of the run."""
    page = place / "report.html"
    done = evomerge_command("report", "runs/two", "--html", page, cwd=place)
    assert done.returncode == 0, done.stderr
    return page


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (480, True)])
def test_the_report_opens_from_the_disk_without_a_network(
    browser: Browser, report: Path, width: int, dark: bool
) -> None:
    watched = Watched(browser, width=width, dark=dark, offline=True)
    page = watched.page
    page.goto(report.as_uri())
    assert watched.complaints == []
    assert [url for url in watched.asked if not url.startswith(("file:", "data:"))] == []
    assert page.title() == "two: report of evomerge"
    for heading in ("Scores", "Pareto front", "Coefficients by layer and module", "Provenance"):
        assert page.get_by_role("heading", name=heading, exact=True).is_visible()
    assert page.get_by_role(
        "img", name="Search scores in math_b and stories_b, with the front"
    ).first.is_visible()
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", background))) < 200) == dark
    overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(overflow) <= 0
    assert page.evaluate("document.scripts.length") == 0


@pytest.fixture(scope="module")
def address(place: Path) -> Iterator[str]:
    """Give where the dashboard of the run is served."""
    command = [sys.executable, "-m", "evomerge", "dashboard", "runs/two", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=place) as process:
        assert process.stderr is not None
        found = re.search(r"http://127\.0\.0\.1:\d+/\S+", process.stderr.readline())
        assert found is not None
        yield found[0]
        process.terminate()


def test_the_dashboard_shows_study_front_best_trial_recipe_and_note(
    browser: Browser, address: str, place: Path
) -> None:
    watched = Watched(browser)
    page = watched.page
    page.goto(address)
    page.get_by_text("two (id=0)").wait_for()
    page.get_by_text("Pareto Front").wait_for()
    page.locator(".js-plotly-plot .scatterlayer").first.wait_for()
    page.get_by_text("Best Trials").wait_for()
    run = evomerge.open_run(place / "runs" / "two")
    best = run.best()
    page.goto(f"{address}/trials?numbers={best}")
    page.get_by_role("heading", name=f"Trial {best} ").wait_for()
    page.get_by_text("Best Trial", exact=True).first.wait_for()
    assert "gain over best parent" in page.inner_text("body")
    page.get_by_text("best math_b").first.wait_for()
    page.get_by_text(f"trial-{best}-recipe.yaml").wait_for()
    with page.expect_download() as download:
        page.locator(f'a[download="trial-{best}-recipe.yaml"]').click()
    recipe = Path(download.value.path()).read_text(encoding="utf-8")
    assert recipe.startswith("models:")
    page.goto(f"{address}/note")
    page.get_by_role("heading", name="What came of it").wait_for()
    assert "on 60 report items" in page.inner_text("body")
    assert watched.complaints == []
    host = address.split("/dashboard")[0]
    assert [url for url in watched.asked if not url.startswith((host, "data:", f"blob:{host}"))] == []
