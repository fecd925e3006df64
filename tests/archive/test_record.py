"""The run record: read as written, and outspoken about what has changed since."""

import json
import sys
from dataclasses import replace

import pytest

from evomerge.archive.record import FORMAT, RunRecord, differences, from_json, provenance
from evomerge.errors import RunError
from evomerge.recipe import ModelRef
from evomerge.space import parse_space
from tests.archive.conftest import SPACE


def test_a_record_is_read_as_it_was_written(record: RunRecord) -> None:
    again = from_json(json.loads(json.dumps(record.to_json())))
    assert again == record
    assert again.genome.genes == record.genome.genes
    assert again.brief() == record.brief()


@pytest.mark.parametrize("format", [FORMAT + 1, "1", None])
def test_a_record_of_another_format_is_refused(record: RunRecord, format: object) -> None:
    with pytest.raises(
        RunError,
        match=rf"^this run record has format {format}, and this evomerge reads {FORMAT}; "
        r"open it with the one that wrote it \(0\.1\.0\)$",
    ):
        from_json(record.to_json() | {"format": format})


def test_a_record_of_the_first_format_is_refused_with_who_wrote_it() -> None:
    """As searches left it that knew neither select items nor racing."""
    wrote = {"versions": {"evomerge": "0.1.0"}, "commit": "3c6dfbd"}
    with pytest.raises(RunError, match=r"has format 1, .* wrote it \(0\.1\.0, commit 3c6dfbd\)$"):
        from_json(
            {"format": 1, "space": {}, "items": {"gsm": {"search": [], "report": []}}, "provenance": wrote}
        )


def test_an_older_record_of_this_format_is_read(record: RunRecord) -> None:
    """As searches left it that knew no inheriting, and did not look at what tasks ask."""
    content = record.to_json()
    for key in ("deterministic", "uniform", "wordings"):
        del content[key]
    old = from_json(content)
    assert not old.inherits
    assert differences(old, replace(old, wordings={"gsm": "1"})) == []


@pytest.mark.parametrize(
    "content",
    [
        [],
        None,
        {"format": FORMAT},
        {"format": FORMAT, "space": {"sources": {}}},
    ],
)
def test_a_record_that_is_damaged_is_refused(content: object) -> None:
    with pytest.raises(RunError, match="run record"):
        from_json(content)  # type: ignore[arg-type]


def test_a_brief_has_what_an_evaluator_needs(record: RunRecord) -> None:
    brief = record.brief()
    assert brief.measures == (*record.objectives, *record.constraints, *record.held_out)
    assert brief.items["wiki"] == {"search": ("wiki-1",), "select": ("wiki-2",), "report": ("wiki-3",)}
    assert brief.checkpoints == record.paths


def test_a_brief_holds_out_what_is_only_reported(record: RunRecord) -> None:
    """Neither tasks without items in a split are asked there, nor other metrics of searched tasks."""
    brief = record.brief()
    other = replace(record.objectives[0], name="other", metric="f1")
    assert brief.asked("gsm", "search") == record.objectives[:1]
    assert brief.asked("arc", "search") == ()
    assert brief.asked("arc", "report") == record.held_out
    more = replace(record, held_out=(*record.held_out, other)).brief()
    assert more.asked("gsm", "select") == record.objectives[:1]
    assert more.asked("gsm", "report") == (record.objectives[0], other)


def test_nothing_differs_from_itself(record: RunRecord) -> None:
    assert differences(record, from_json(record.to_json())) == []


@pytest.mark.parametrize("key", ["budget: 9", "candidate_time_limit: 60.5"])
def test_what_says_how_long_to_search_may_change(record: RunRecord, key: str) -> None:
    space = parse_space(SPACE + f"{key}\n", "small.yaml")
    assert differences(record, replace(record, space=space)) == []


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("high: 1.5", "high: 1.6", "merge"),
        ("n_startup_trials: 3", "n_startup_trials: 4", "sampler"),
        ("min: 0.25", "min: 0.3", "constraints"),
        ("metric: ppl", "metric: bits", "objectives"),
    ],
)
def test_a_changed_key_of_the_space_is_named(record: RunRecord, old: str, new: str, key: str) -> None:
    assert old in SPACE
    changed = replace(record, space=parse_space(SPACE.replace(old, new), "small.yaml"))
    assert differences(record, changed) == [f"`{key}` of the space"]


def test_another_seed_is_named(record: RunRecord) -> None:
    changed = replace(record, space=parse_space(SPACE + "seed: 1\n", "small.yaml"))
    assert differences(record, changed) == ["`seed` of the space"]


def test_a_source_of_other_content_is_named(record: RunRecord) -> None:
    models = {**record.models, "math": ModelRef(source="/models/math", digest="blake2b:other")}
    assert differences(record, replace(record, models=models)) == ["the content of source `math`"]


def test_influence_is_read_as_it_was_written_and_reaches_the_genome(record: RunRecord) -> None:
    known = replace(record, influence={"math": (0.5, 0.1, 1 / 3, 0.2)})
    again = from_json(json.loads(json.dumps(known.to_json())))
    assert again == known
    assert again.genome.influence == {"math": (0.5, 0.1, 1 / 3, 0.2)}


@pytest.mark.parametrize("now", [{}, {"lang": (0.5,) * 4}, {"math": (0.5, 0.5, 0.5, 0.4)}])
def test_another_influence_is_named(record: RunRecord, now: dict[str, tuple[float, ...]]) -> None:
    known = replace(record, influence={"math": (0.5,) * 4})
    named = ["what was measured on source `math`"]
    if "lang" in now:
        named.append("what was measured on source `lang`")
    assert differences(known, replace(known, influence=now)) == named


def test_a_source_that_only_moved_is_the_same(record: RunRecord) -> None:
    models = {**record.models, "math": ModelRef(source="/elsewhere", digest=record.models["math"].digest)}
    assert differences(record, replace(record, models=models, paths={})) == []


def test_a_source_may_be_written_otherwise_but_not_called_otherwise(record: RunRecord) -> None:
    space = parse_space(SPACE.replace("lang: l", "lang: k"), "small.yaml")
    assert differences(record, replace(record, space=space)) == []
    names = {"tongue" if name == "lang" else name: ref for name, ref in record.models.items()}
    assert differences(record, replace(record, space=space, models=names)) == ["the names of the sources"]


def test_other_items_are_named(record: RunRecord) -> None:
    items = {**record.items, "gsm": {**record.items["gsm"], "search": ["gsm-9"]}}
    assert differences(record, replace(record, items=items)) == ["the items of task `gsm`"]


def test_other_texts_are_named(record: RunRecord) -> None:
    merged = {"wiki": {**record.clusters["wiki"], "wiki-2": "one"}}
    named = ["which items of task `wiki` are about the same text"]
    assert differences(record, replace(record, clusters=merged)) == named
    assert differences(record, replace(record, clusters={})) == named


def test_a_task_that_asks_otherwise_is_named(record: RunRecord) -> None:
    before = replace(record, wordings={"gsm": "1", "wiki": "2"})
    after = replace(record, wordings={"gsm": "1", "wiki": "3"})
    assert differences(before, after) == ["what task `wiki` asks or how it scores"]


@pytest.mark.parametrize("key", ["items: {select: 7}", "held_out: [{task: arc, metric: f1}]"])
def test_what_is_selected_on_and_held_out_may_not_change(record: RunRecord, key: str) -> None:
    text = SPACE.replace(
        "held_out: [{task: arc}]\n", "" if key.startswith("held") else "held_out: [{task: arc}]\n"
    )
    changed = replace(record, space=parse_space(text + key + "\n", "small.yaml"))
    assert differences(record, changed) == [f"`{key.partition(':')[0]}` of the space"]


def test_a_metric_that_turned_round_is_named(record: RunRecord) -> None:
    turned = replace(record.objectives[1], higher_is_better=True)
    changed = replace(record, objectives=(record.objectives[0], turned))
    assert differences(record, changed) == ["a metric's direction or aggregation"]
    combined = replace(record.held_out[0], aggregate="other")
    assert differences(record, replace(record, held_out=(combined,))) == [
        "a metric's direction or aggregation"
    ]


def test_all_differences_are_named(record: RunRecord) -> None:
    changed = replace(
        record,
        space=parse_space(SPACE + "seed: 1\n", "small.yaml"),
        items={**record.items, "gsm": {"search": [], "select": [], "report": []}},
    )
    assert differences(record, changed) == ["`seed` of the space", "the items of task `gsm`"]


def test_provenance_hides_passwords_on_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = [
        "/usr/bin/evomerge",
        "search",
        "--storage",
        "mysql://me:secret@host/db",
        "--storage=mysql://me:secret@h/db",
    ]
    monkeypatch.setattr(sys, "argv", arguments)
    command = provenance()["command"]
    assert command == [
        "evomerge", "search", "--storage", "mysql://me:***@host/db", "--storage=mysql://me:***@h/db",
    ]  # fmt: skip


def test_a_summary_says_what_is_searched_for_what_and_under_what(record: RunRecord) -> None:
    said = record.summary()
    assert said["models"].startswith("math, lang over base by ")
    assert "gsm (acc ↑)" in said["objectives"]
    assert said["constraints"].endswith(" ≥ 0.25")
    assert said["held out"] == "arc (acc ↑)"
    assert said["items"].startswith("1 search, 1 select and 1 report items of gsm, ")
    assert said["items"].endswith(", 1 report items of arc")


def test_provenance_names_versions() -> None:
    found = provenance()
    assert found["versions"]["optuna"]
    assert found["started"].endswith("+00:00")
