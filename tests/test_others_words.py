"""Names that others chose are text and nothing else."""

from __future__ import annotations

import pytest

from evomerge.others_words import block, code, markdown, plain


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("math_b", "math_b"),
        ("a\x1b[31m\nb", "a\\x1b[31m\\nb"),
        ("\u202egnp", "\\u202egnp"),
        ("Übung ≥ 0.5", "Übung ≥ 0.5"),
    ],
)
def test_a_line_cannot_steer_a_terminal(text: str, shown: str) -> None:
    assert plain(text) == shown


def test_a_very_long_text_keeps_both_ends() -> None:
    shown = plain("a" + "x" * 100_000 + "z")
    assert len(shown) < 5000
    assert (shown[0], shown[-1]) == ("a", "z")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("+0.407 [+0.359, +0.454]", "+0.407 [+0.359, +0.454]"),
        ("<img src=x>", "\\<img src=x>"),
        ("a | b", "a \\| b"),
        ("[here](http://x)", "[here\\](http://x)"),
        ("a\n# b", "a\\n# b"),
    ],
)
def test_markdown_is_no_html_link_or_cell(text: str, shown: str) -> None:
    assert markdown(text) == shown


def test_code_ends_where_it_should() -> None:
    assert code("models/math") == "`models/math`"
    assert code("a`b") == "`` a`b ``"
    assert block("a: 1\n", "yaml") == "```yaml\na: 1\n```\n"
    assert block("```\n<b>\n", "yaml").startswith("````yaml\n")
