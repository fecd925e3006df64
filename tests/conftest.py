"""What every test runs under: no hub, no progress bars, one thread, and Ctrl-C heard.

A shell that runs the tests in the background has them, and all they start, ignore SIGINT.
"""

from __future__ import annotations

import os
import signal

import pytest

os.environ.update(
    HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TQDM_DISABLE="1", TOKENIZERS_PARALLELISM="false"
)
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--vectors", metavar="DIR", help="conformance cases of another folder than our own")
    parser.addoption("--merge-device", metavar="DEVICE", default="cpu", help="where conformance cases merge")
