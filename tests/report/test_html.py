"""The report as a page: what it tells of runs that ended, failed or go on; all of it is only text."""

from __future__ import annotations

import html
import re
import shutil
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from evomerge.archive.folder import RunFolder
from evomerge.archive.run import Run, open_run
from evomerge.archive.study import StudyRecord, open_storage
from evomerge.errors import RunError
from evomerge.report.html import page, write_page
from evomerge.types import Failed
from tests.controller.handmade import MadeByHand, measure, record_of, rights
from tests.report.conftest import COUNTS, HOSTILE


def text_of(content: str) -> str:
    """Return what a reader reads."""
    body = content[content.index("</style>") :]
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", " ", body)))


@pytest.fixture(scope="module")
def content(finished: Run) -> str:
    return page(finished)


def unfinished(folder: Path) -> MadeByHand:
    return MadeByHand(record_of([measure()], COUNTS), folder)


def test_three_sentences_tell_what_was_searched_and_found_and_how_sure_that_is(
    finished: Run, content: str
) -> None:
    report = finished.report()
    assert report is not None
    searched, found, sure = re.findall(r'<p class="lead">(.*?)</p>', content, re.DOTALL)
    assert "math, lang over base by task_arithmetic, over 6 genes with nsgaii (seed 0)" in searched
    assert "of 70 candidates (5 of them baselines) 63 were scored in full and 7 failed" in searched
    assert f"t: trial {report['chosen']['t']} with 0." in found
    assert "on 40 report items" in found
    for gain in report["gains"]:
        if gain["low"] is not None:
            assert f"{gain['gain']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}]" in sure
    assert "on items that nothing was chosen by" in sure


def test_every_model_has_its_score_interval_items_and_gain(finished: Run, content: str) -> None:
    report = finished.report()
    assert report is not None
    told = text_of(content)
    for row in report["rows"]:
        if row["report"] is not None:
            assert re.search(
                rf"{re.escape(row['title'])} {row['trial']} {row['report']['t']:.3f} \[0\.\d+, 0\.\d+\] 40 ",
                told,
            )
    gains = re.findall(r" 40 ([+-]0\.\d+) \[([+-]\d\.\d+), ([+-]\d\.\d+)\]", told)
    assert len(gains) > 6
    assert all(float(low) < float(gain) < float(high) for gain, low, high in gains)
    assert "held out: the search never looked at it" in told
    assert "the best parent" in told


@pytest.mark.parametrize(
    "part",
    [
        "t, best so far on search items", "t against u", "weight of math (task_arithmetic)",
        "Which genes tell the best tenth apart, in t", "Candidates through their genes", "merging",
        "digest of the items", "evomerge commit", "Recipe of",
    ],
)  # fmt: skip
def test_a_finished_run_has_every_part(content: str, part: str) -> None:
    found = text_of(content)
    assert part in found
    assert "7 broken 63, 64, 65, 66, 67, 68, 69" in found


def test_what_others_wrote_is_only_text(finished: Run, content: str) -> None:
    assert content.count("<script") == 0
    assert "\u202e" not in content
    assert html.escape("# </title><script>alert('x')</script>", quote=False).replace("'", "&#39;") in content
    assert "<title>run &lt;b&gt;&amp;&#39;&#34;: report of evomerge</title>" in content
    assert HOSTILE.split("\u202e")[0] in text_of(content).replace("\\u202e", "")
    assert not re.search(r"\son\w+=", re.sub(r">[^<]*<", "><", content))


def test_the_page_asks_for_nothing_and_runs_nothing(content: str) -> None:
    assert "default-src 'none'; style-src 'unsafe-inline'" in content
    links = set(re.findall(r"https?://[^\s\"'<]+", content))
    assert links == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"url\(|@import|<img|<iframe|<object|src=", content)


def test_every_drawing_is_well_formed_and_says_what_it_shows(content: str) -> None:
    drawings = re.findall(r"<svg.*?</svg>", content, re.DOTALL)
    assert len(drawings) >= 10
    for each in drawings:
        root = ElementTree.fromstring(each)
        assert root.attrib["aria-label"]
        assert not re.search(r'"(nan|inf|-inf)"', each)


def test_the_same_run_makes_the_same_page(finished: Run, content: str) -> None:
    assert page(open_run(finished.folder.path)) == content


def test_a_run_that_has_not_ended_says_so_and_shows_search_scores(tmp_path: Path) -> None:
    made = unfinished(tmp_path / "run")
    for right in (4, 9, 6, 5, 7, 12, 15):
        made.add(rights(right, 20))
    found = text_of(page(made.run))
    assert "This search has not ended, or was interrupted: 7 candidates are finished" in found
    assert "Nothing has been scored on report items yet, so no gain can be claimed." in found
    assert "candidate, trial 6 6 0.750 [0.531, 0.888] 20 +0.300" in found
    assert "best t so far (trial 6)" in found
    assert "Importance is not told" in found
    assert "a single objective, so there is no front to draw" in found


def test_a_run_whose_search_went_on_says_of_when_its_report_is(finished: Run, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(finished.folder.path, tmp_path / "run"))
    told = (folder / "report.json").read_text().replace('"finished": 70', '"finished": 60')
    (folder / "report.json").write_text(told)
    found = text_of(page(open_run(folder)))
    assert (
        "The search has gone on since its closing report was made, of 60 candidates; 70 are finished" in found
    )


def test_a_run_where_all_failed_groups_why(tmp_path: Path) -> None:
    made = unfinished(tmp_path / "run")
    for number in range(6):
        reason = f"out of memory: {number}.5 GB" if number % 3 else "<b>sources differ</b>"
        made.study.tell_failed(made.study.ask().number, Failed(reason=reason, ended_workers=number % 3))
    found = text_of(page(made.run))
    assert "All 6 candidates failed" in found
    assert "No candidate has been scored, so nothing was found yet." in found
    assert "4 out of memory: 1.5 GB (6 workers ended) 1, 2, 4, 5" in found
    assert "2 <b>sources differ</b> 0, 3" in found
    for absent in ("there is no curve to draw", "there is no winner", "No parent, baseline or candidate"):
        assert absent in found


def test_a_run_without_any_trial_has_a_page(tmp_path: Path) -> None:
    made = unfinished(tmp_path / "run")
    made.study.study.set_user_attr("objectives", "t")
    assert "5 not finished" in text_of(page(made.run))  # its baselines wait
    record = record_of([measure()], COUNTS)
    bare = RunFolder(tmp_path / "bare")
    bare.create(record, "")
    StudyRecord(
        open_storage(bare.journal), record.study, objectives=record.objectives, genes=(), sampler=None
    )
    assert "No candidate has been asked for yet." in text_of(page(open_run(bare.path)))


def test_it_is_written_whole_or_not_at_all(finished: Run, tmp_path: Path, content: str) -> None:
    assert write_page(finished, tmp_path / "out.html").read_text(encoding="utf-8") == content
    assert [path.name for path in tmp_path.iterdir()] == ["out.html"]
    (tmp_path / "taken.html").mkdir()
    with pytest.raises(
        RunError, match=r"taken.html cannot be written: .*; name another file with `--html FILE`"
    ):
        write_page(finished, tmp_path / "taken.html")
    with pytest.raises(RunError, match="cannot be written: No such file or directory"):
        write_page(finished, tmp_path / "none" / "out.html")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.html", "taken.html"]
