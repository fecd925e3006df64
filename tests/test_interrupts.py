"""Signals that come while something must not be cut in two."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from evomerge.interrupts import held


@pytest.fixture
def terminated() -> Iterator[list[int]]:
    """Collect SIGTERMs that take effect."""
    arrived: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: arrived.append(number))
    yield arrived
    signal.signal(signal.SIGTERM, before)


def test_an_interrupt_waits_for_the_end_of_the_block() -> None:
    steps = []

    @held()
    def block() -> None:
        signal.raise_signal(signal.SIGINT)
        steps.append("after the signal")

    with pytest.raises(KeyboardInterrupt):
        block()
    assert steps == ["after the signal"]


def test_a_sigterm_goes_to_its_own_handler_once(terminated: list[int]) -> None:
    with held():
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert terminated == []
    assert terminated == [signal.SIGTERM]


def test_a_handler_installed_inside_does_not_outlive_the_block(terminated: list[int]) -> None:
    with held():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.raise_signal(signal.SIGTERM)
    assert terminated == [signal.SIGTERM]


def test_an_error_inside_gives_way_to_the_interrupt() -> None:
    @held()
    def block() -> None:
        signal.raise_signal(signal.SIGINT)
        raise RuntimeError("in the middle")

    with pytest.raises(KeyboardInterrupt) as caught:
        block()
    assert isinstance(caught.value.__context__, RuntimeError)


def test_blocks_nest() -> None:
    steps = []

    @held()
    def block() -> None:
        with held():
            signal.raise_signal(signal.SIGINT)
        steps.append("outer block goes on")

    with pytest.raises(KeyboardInterrupt):
        block()
    assert steps == ["outer block goes on"]


def test_other_threads_are_left_alone() -> None:
    ran = threading.Event()

    def block() -> None:
        with held():
            ran.set()

    thread = threading.Thread(target=block)
    thread.start()
    thread.join()
    assert ran.is_set()
