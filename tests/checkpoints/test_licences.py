"""The licence of a merge is the strictest of its sources', and unknown if one of them is."""

from __future__ import annotations

from pathlib import Path

import pytest

from evomerge.checkpoints.licences import Stated, family_of, front_matter, stated_in, strictest
from evomerge.publish.origin import Origin
from evomerge.publish.source_cards import about
from evomerge.recipe import Merge, ModelRef, Recipe


def merged(*licences: str | None) -> tuple[str, str | None, str]:
    found = strictest({f"m{i}": Stated(license=each) if each else None for i, each in enumerate(licences)})
    return found.stated.license, found.stated.name, " ".join((*found.sentences, *found.doubts))


@pytest.mark.parametrize(
    ("licence", "family"),
    [
        ("cc0-1.0", "public domain"), ("apache-2.0", "permissive"), ("MIT", "permissive"),
        ("bsd-3-clause", "permissive"), ("cc-by-4.0", "permissive"), ("cc-by-sa-4.0", "share-alike"),
        ("gpl-3.0", "share-alike"), ("agpl-3.0", "share-alike"), ("creativeml-openrail-m", "restricted use"),
        ("llama3.1", "terms of its own"), ("gemma", "terms of its own"), ("other", "terms of its own"),
        ("cc-by-nc-4.0", "non-commercial"), ("cc-by-nc-sa-4.0", "non-commercial"),
        ("cc-by-nc-nd-4.0", "no derivatives"), ("cc-by-nd-4.0", "no derivatives"),
    ],
)  # fmt: skip
def test_families(licence: str, family: str) -> None:
    found = family_of(licence)
    assert found is not None
    assert found.name == family


@pytest.mark.parametrize(
    ("licences", "licence"),
    [
        (("mit", "mit"), "mit"),
        (("cc0-1.0", "apache-2.0"), "apache-2.0"),
        (("apache-2.0", "cc-by-sa-4.0", "mit"), "cc-by-sa-4.0"),
        (("cc-by-sa-4.0", "cc-by-nc-4.0"), "cc-by-nc-4.0"),
        (("llama3.1", "apache-2.0"), "llama3.1"),
        (("gpl-3.0", "llama3.1"), "llama3.1"),
        (("cc-by-nc-nd-4.0", "cc-by-nc-4.0"), "cc-by-nc-nd-4.0"),
    ],
)
def test_the_strictest_holds(licences: tuple[str, ...], licence: str) -> None:
    assert merged(*licences)[:2] == (licence, None)


@pytest.mark.parametrize("other", ["apache-2.0", "cc0-1.0", "cc-by-nc-4.0"])
@pytest.mark.parametrize("silent", [None, "unknown"])
def test_none_is_claimed_where_one_is_unknown(other: str, silent: str | None) -> None:
    licence, name, said = merged(other, silent)
    assert (licence, name) == ("other", "unknown")
    assert "m1 does not state its licence, so the licence of this model is unknown" in said
    assert ("forbids commercial use" in said) == (other == "cc-by-nc-4.0")


def test_two_of_a_kind_hold_both() -> None:
    licence, name, said = merged("mit", "llama3", "gemma")
    assert (licence, name) == ("other", "llama3 and gemma")
    assert "different licences of the same kind" in said


def test_share_alike_under_stricter_terms_is_pointed_out() -> None:
    assert "may not allow the stricter terms" in merged("gpl-3.0", "llama3.1")[2]
    assert "may not allow" not in merged("mit", "llama3.1")[2]


def test_a_licence_nobody_knows_counts_as_terms_of_its_own() -> None:
    assert merged("apache-2.0", "acme-1.0")[:2] == ("acme-1.0", None)


CARD = """---
license: other
license_name: qwen
license_link: https://huggingface.co/o/m/blob/main/LICENSE
language: [en, ja]
---
# words
---
"""


def test_a_card_is_read_between_its_lines(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("\ufeff" + CARD, encoding="utf-8")
    content = front_matter(tmp_path)
    assert stated_in(content) == Stated(
        license="other", name="qwen", link="https://huggingface.co/o/m/blob/main/LICENSE"
    )


@pytest.mark.parametrize(
    "text",
    ["", "# words", "---\nlicense: mit\n", "---\n[\n---\n", "---\n- a\n---\n", "---\nlanguage: en\n---\n"],
)
def test_a_card_that_says_nothing_states_nothing(text: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(text, encoding="utf-8")
    assert stated_in(front_matter(tmp_path)) is None


def test_several_licences_of_one_model_are_other(tmp_path: Path) -> None:
    assert stated_in({"license": ["mit", "gemma"]}) == Stated(license="other", name="mit and gemma")


def test_licence_and_languages_of_all_sources(tmp_path: Path) -> None:
    for name, text in {"a": CARD, "b": "---\nlicense: mit\nlanguage: ja\n---\n", "made": "no card"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "README.md").write_text(text, encoding="utf-8")
    folders = {name: tmp_path / name for name in ("a", "b")}
    found = about(folders, {name: str(path) for name, path in folders.items()}, {})
    assert (found.licence.stated.name, found.languages) == ("qwen", ("en", "ja"))
    assert found.licence.stated.link is not None
    silent = about({"made": tmp_path / "made"}, {"made": str(tmp_path / "made")}, {})
    assert silent.licence.stated.name == "unknown"


def test_a_model_that_evomerge_made_has_the_licence_of_what_it_is_made_of(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "README.md").write_text(CARD, encoding="utf-8")
    models = {"a": ModelRef(source=str(tmp_path / "a")), "z": ModelRef(source="zoo:math")}
    made = Recipe(models=models, merges={"m": Merge(method="linear", sources=("a", "z"))})
    origins = {"made": Origin(recipe=made, origins={})}
    found = about({"made": tmp_path}, {"made": str(tmp_path)}, origins)
    assert (found.licence.stated.name, found.languages) == ("qwen", ("en", "ja"))


@pytest.mark.parametrize(
    ("source", "link"),
    [("owner/name", "https://huggingface.co/owner/name/blob/main/LICENSE.md"), ("/models/name", None)],
)
def test_a_link_within_a_repository_leads_there_from_outside(
    source: str, link: str | None, tmp_path: Path
) -> None:
    text = "---\nlicense: other\nlicense_name: acme\nlicense_link: LICENSE.md\n---\n"
    (tmp_path / "README.md").write_text(text)
    assert about({"a": tmp_path}, {"a": source}, {}).licence.stated == Stated(
        license="other", name="acme", link=link
    )
