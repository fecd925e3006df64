"""Names and texts that somebody else chose, shown so that they are only text: on a terminal, in Markdown."""

from __future__ import annotations

import re

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_LONGEST = 4000
_MARKDOWN = re.compile(r"[<`|]|\](?=\()")
_BACKTICKS = re.compile(r"`+")


def plain(text: str) -> str:
    """Return a text as one line that cannot steer a terminal, its middle left out where it is very long."""
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST // 2]} … {text[-_LONGEST // 2 :]}"
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def markdown(text: str) -> str:
    """Return a text as one line of Markdown that is no HTML, no link, no code and no cell of a table."""
    return _MARKDOWN.sub(lambda found: f"\\{found[0]}", plain(text))


def code(text: str) -> str:
    """Return a text as a code span of Markdown, whatever backticks it has."""
    fence = "`" * (1 + _longest_run(text))
    pad = " " if len(fence) > 1 else ""
    return f"{fence}{pad}{plain(text)}{pad}{fence}"


def block(text: str, language: str) -> str:
    """Return a text that ends with a line's end as a block of code in Markdown."""
    fence = "`" * max(3, 1 + _longest_run(text))
    return f"{fence}{language}\n{text}{fence}\n"


def _longest_run(text: str) -> int:
    return max(map(len, _BACKTICKS.findall(text)), default=0)
