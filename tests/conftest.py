"""What every test runs under: no hub, no progress bars, one thread, and Ctrl-C heard.

A shell that runs the tests in the background has them, and all they start, ignore SIGINT.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.archive.postgres import Server

os.environ.update(
    HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TQDM_DISABLE="1", TOKENIZERS_PARALLELISM="false"
)
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--vectors", metavar="DIR", help="conformance cases of another folder than our own")
    parser.addoption("--merge-device", metavar="DEVICE", default="cpu", help="where conformance cases merge")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A PostgreSQL server, empty at first; without its programs the test is skipped."""
    from tests.archive.postgres import NoServerError, running  # few tests need it

    try:
        with running() as server:
            yield server
    except NoServerError as error:
        pytest.skip(str(error))
