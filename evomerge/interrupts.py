"""Ctrl-C and SIGTERM, kept out of the steps they must not cut in two.

Python raises `KeyboardInterrupt` between any two instructions. Inside Optuna's file lock that ends as a
`RuntimeError`, inside `ray.init` as a crash of the process, and between two writes as half a record.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def held() -> Iterator[None]:
    """Run the block whole: a SIGINT or SIGTERM that comes meanwhile takes effect when it is over.

    Handlers that the block installs are gone afterwards. Outside the main thread, where Python delivers no
    signals, this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []
    before = {each: signal.signal(each, lambda number, _: arrived.append(number)) for each in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for late in dict.fromkeys(arrived):
            signal.raise_signal(late)
