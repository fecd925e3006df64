"""What is told on stderr, by level."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from evomerge.cli.screen import LogLevel, screen_log, set_log_level

NAMES = ("evomerge", "ray", "lm_eval", "transformers")


@pytest.fixture
def handler() -> Iterator[logging.Handler]:
    """The screen's handler, on the root logger; all levels are afterwards what they were."""
    before = {name: logging.getLogger(name).level for name in NAMES}
    found = screen_log()
    logging.getLogger().addHandler(found)
    yield found
    logging.getLogger().removeHandler(found)
    for name, level in before.items():
        logging.getLogger(name).setLevel(level)


@pytest.mark.parametrize("level", list(LogLevel))
def test_a_level_shows_what_weighs_as_much_or_more(
    level: LogLevel,
    handler: logging.Handler,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert isinstance(handler, logging.StreamHandler)
    set_log_level(level)
    shown: list[str] = []
    monkeypatch.setattr(handler, "emit", lambda record: shown.append(record.levelname.lower()))
    logger = logging.getLogger("evomerge.tests.screen")
    for each in LogLevel:
        logger.log(each.number, "said")
    assert shown == [each.value for each in LogLevel if each.number >= level.number]


def test_libraries_say_more_only_when_asked_to(handler: logging.Handler) -> None:
    logging.getLogger("lm_eval").setLevel(logging.ERROR)  # as evomerge has it
    set_log_level(LogLevel.warning)
    assert logging.getLogger("lm_eval").level == logging.ERROR
    set_log_level(LogLevel.debug)
    assert {logging.getLogger(name).level for name in NAMES} == {logging.DEBUG}
