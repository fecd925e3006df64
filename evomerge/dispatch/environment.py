"""The environment Ray starts in, and everything put back afterwards.

The only file that touches Ray's private parts, as they are in 2.60 (`cluster.py` gives `ray.init` a folder).
Ray copies its settings out of the environment into the process: at import, at the first `ray.init`, and the
token when it is first sent. So putting the variables back is not enough for the next search of this process
to start afresh.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from evomerge.errors import RequestError

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_USAGE_STATS_PROMPT_ENABLED": "0",
}
"""Set for a cluster that is joined, too: nothing is reported from here."""

ON_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Despite its name: bind to, or dial, 127.0.0.1 and not this machine's outer address."""


@contextmanager
def ray_environment(settings: Mapping[str, str], *, loopback: bool) -> Iterator[None]:
    """Set variables for the length of the block; what Ray sets in it goes with them.

    A cluster is not told the command line, which may have a storage's password, and which it would show to
    everybody. Ray's own answer to SIGTERM, to exit at once even in the middle of its start, is not installed.

    Raises `RequestError` if Ray is running in this process already.
    """
    import ray
    from ray._private import ray_constants, utils

    if ray.is_initialized():
        raise RequestError("Ray runs in this process already; `ray.shutdown()` it before the search")
    variables, outward = _variables(), ray_constants.ENABLE_RAY_CLUSTER
    install, utils.set_sigterm_handler = utils.set_sigterm_handler, _leave
    command, utils.get_entrypoint_name = utils.get_entrypoint_name, _nameless
    os.environ.update(settings)
    if loopback:
        os.environ.update(ON_LOOPBACK)
        ray_constants.ENABLE_RAY_CLUSTER = False
    _forget()
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER, utils.set_sigterm_handler = outward, install
        utils.get_entrypoint_name = command
        for name in _variables().keys() - variables.keys():
            del os.environ[name]
        os.environ.update(variables)
        _forget()


def _variables() -> dict[str, str]:
    """Return the variables that Ray reads or sets."""
    return {
        name: value
        for name, value in os.environ.items()
        if name.startswith("RAY_") or name == "PYTHONBREAKPOINT"
    }


def _leave(handler: object) -> None:
    del handler


def _nameless() -> str:
    return "evomerge"


def _forget() -> None:
    """Make Ray read its settings and its token anew. In this order: a thread may still send a token."""
    core: Any = importlib.import_module("ray._raylet")  # compiled, without types
    core.Config.initialize("")
    if hasattr(core, "AuthenticationTokenLoader"):  # older Rays have no tokens
        core.AuthenticationTokenLoader.instance().reset_cache()
