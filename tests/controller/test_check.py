"""A space looked over before a search, with sources of the zoo that were changed in one way each."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evomerge.checkpoints.licences import Stated
from evomerge.checkpoints.locate import locate
from evomerge.controller.check import Findings
from evomerge.controller.public import look_over
from evomerge.controller.search import Options
from tests.controller.conftest import SPACE
from tests.seeing import seeing_expert

CHANGED = SPACE.replace("math: zoo:math", "math: math").replace("budget: 24", "budget: 100")


def edit(file: Path, **changed: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changed}))


def looked_over(folder: Path, text: str = CHANGED, **options: Any) -> Findings | tuple[str, ...]:
    file = folder / "space.yaml"
    file.write_text(text)
    before = sorted(folder.rglob("*"))
    found = look_over(file, changes={}, options=Options(**options), run=folder / "runs" / "new", dry=False)
    assert sorted(folder.rglob("*")) == before
    return found


def findings(folder: Path, text: str = CHANGED, **options: Any) -> Findings:
    found = looked_over(folder, text, **options)
    assert isinstance(found, Findings), found
    return found


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a copy of the maths expert, to be changed."""
    shutil.copytree(locate("zoo:math"), tmp_path / "math")
    return tmp_path


def test_a_sound_space_has_neither_problems_nor_warnings_but_of_its_size(place: Path) -> None:
    found = findings(place)
    assert found.problems == ()
    assert [each for each in found.warnings if "task `math_b` has only" not in each] == []
    assert found.licence.stated == Stated(license="apache-2.0")
    assert "it asks for the notices of its authors" in found.licence.sentences[-1]
    assert found.advice.suits == "cma"
    assert found.dry_run is None
    assert found.workers >= 1


def other_rope(math: Path) -> None:
    edit(math / "config.json", rope_parameters={"rope_type": "default", "rope_theta": 500000.0})


def chat_template(math: Path) -> None:
    (math / "chat_template.jinja").write_text("{{ messages }}")


def special_tokens(math: Path) -> None:
    edit(math / "tokenizer_config.json", eos_token="<pad>")


def no_licence(math: Path) -> None:
    (math / "README.md").unlink()


def copyleft(math: Path) -> None:
    (math / "README.md").write_text("---\nlicense: gpl-3.0\n---\n")
    shutil.copytree(locate("zoo:lang"), math.parent / "lang")
    (math.parent / "lang" / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            other_rope,
            "`rope_theta` of `math` is 500000.0, of `base` 10000.0: a merge has that of",
        ),
        (chat_template, "`math` has a chat template and `base` has none"),
        (special_tokens, "`math`: bos <s>, eos <pad>"),
        (no_licence, "math does not state its licence, so the licence of this model is unknown"),
        (copyleft, "A share-alike licence is among them"),
    ],
)
def test_what_works_and_is_unwise_is_a_warning(
    change: Callable[[Path], None], said: str, place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    change(place / "math")
    lang = "lang: lang" if (place / "lang").exists() else "lang: zoo:lang"
    found = findings(place, CHANGED.replace("lang: zoo:lang", lang))
    assert found.problems == ()
    assert sum(said in each for each in found.warnings) == 1
    assert caplog.records == []  # it is in the list, and nowhere else


def test_a_model_that_sees_is_measured_like_any_other(place: Path) -> None:
    seeing_expert(place / "eyes")
    found = findings(place, CHANGED.replace("math: math", "math: eyes"))
    assert found.problems == ()
    said = {each.what: each for each in found.traits}
    assert said["layers"].values["math"] == "6"
    assert found.record.space.merge.template == "math"  # so its words are the merge's


def test_the_strictest_licence_is_that_of_the_merge(place: Path) -> None:
    (place / "math" / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")
    found = findings(place).licence
    assert found.stated == Stated(license="cc-by-nc-4.0")
    assert "of math: it forbids commercial use" in found.sentences[-1]


def other_vocabulary(math: Path) -> None:
    content = json.loads((math / "tokenizer.json").read_text())
    table = content["model"]["vocab"]
    table["brandnew"] = table.pop(next(word for word in table if word.isalpha()))
    (math / "tokenizer.json").write_text(json.dumps(content))


def other_architecture(math: Path) -> None:
    edit(math / "config.json", model_type="mistral")


def other_heads(math: Path) -> None:
    edit(math / "config.json", num_attention_heads=8, num_key_value_heads=8, head_dim=16)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (other_vocabulary, "the vocabularies differ (1 tokens missing, 1 extra, 0 with another id)"),
        (other_architecture, "its architecture is mistral, not llama"),
        (other_heads, "`num_attention_heads` is 8, not 4"),
    ],
)
def test_sources_that_do_not_fit_are_a_problem(
    change: Callable[[Path], None], said: str, place: Path
) -> None:
    change(place / "math")
    found = looked_over(place)
    assert isinstance(found, tuple)
    assert len(found) == 1
    assert said in found[0]
    assert f"{place}/space.yaml:2: `sources.math`" in found[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (CHANGED.replace("task: math_b", "task: maths_b"), "no task named `maths_b`"),
        (CHANGED.replace("metric: acc", "metric: accc"), "no metric named `accc`. Did you mean `acc`?"),
    ],
)
def test_a_source_and_a_task_that_are_wrong_are_both_told(text: str, said: str, place: Path) -> None:
    other_architecture(place / "math")
    found = looked_over(place, text)
    assert isinstance(found, tuple)
    sources, tasks = found
    assert "architecture" in sources
    assert said in tasks


def test_a_wrong_sampler_is_a_problem(place: Path) -> None:
    found = looked_over(place, CHANGED.replace("sampler: cma", "sampler: cmaes"))
    assert isinstance(found, tuple)
    assert "no sampler named `cmaes`" in found[0]


def test_what_is_no_warning_goes_on_to_where_all_is_shown(
    place: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def talks(*_: object, **__: object) -> tuple[()]:
        logging.getLogger("evomerge.some").info("something")
        return ()

    monkeypatch.setattr("evomerge.controller.check.small_task_notes", talks)
    with caplog.at_level(logging.INFO, logger="evomerge"):
        found = findings(place)
    assert found.warnings == ()
    assert [each.getMessage() for each in caplog.records if each.name == "evomerge.some"] == ["something"]
