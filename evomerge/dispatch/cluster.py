"""Ray for the length of a `with`: a private one that listens on loopback only, or a cluster joined.

Ray 2.60 by default listens on every interface, asks cloud metadata servers who it is, reports usage and
leaves a readable token in the home folder; each has a switch, and all must be set before Ray starts.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from evomerge.dispatch.environment import QUIET, ray_environment
from evomerge.errors import RequestError
from evomerge.interrupts import held

_log = logging.getLogger(__name__)

_KNOCK_SECONDS = 10.0
_PREFIX = "evm-"
_STORE_BYTES = 100 << 20
_LOOPBACK = ("127.0.0.1", "localhost", "::1", "[::1]")
_NOWHERE = ("198.51.100.1", 9)  # an address reserved for documentation, and the port that discards


@contextmanager
def local_ray(*, cpus: int) -> Iterator[None]:
    """Run a private Ray with `cpus` CPUs and every GPU; stop it and delete its files at the end.

    The environment is afterwards what it was. Raises `RequestError` if Ray runs in this process already.
    """
    _sweep()
    token = os.environ.get("RAY_AUTH_TOKEN") or secrets.token_hex(32)  # else one is left in $HOME
    prefix = f"{_PREFIX}{os.getpid()}-"  # short: Unix sockets allow about 100 characters
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        (folder / "ray_bootstrap_config.yaml").write_text("{}\n")  # else cloud metadata is asked for
        with ray_environment(QUIET | {"RAY_AUTH_TOKEN": token}, loopback=True), _started(folder, cpus):
            yield
    finally:
        with held():
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _started(folder: Path, cpus: int) -> Iterator[None]:
    import ray

    try:
        with _home(folder), held():  # Ray looks for the bootstrap file at home
            ray.init(
                address="local",
                num_cpus=cpus,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=_level(),
                object_store_memory=_STORE_BYTES,
                _temp_dir=str(folder / "r"),  # which Ray opens to everybody; `folder` is ours alone
            )
        yield
    finally:
        with held():
            ray.shutdown()


def _knock(address: str) -> bool:
    """Return whether the cluster at HOST:PORT can be reached on this machine's loopback only.

    Ray dials the machine's outer address even if told 127.0.0.1, and waits minutes where nobody listens.
    Raises `RequestError` if nobody does.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdecimal():
        return False  # `auto` and the like
    try:
        _dial(host, int(port))
    except OSError as error:
        raise RequestError(f"no Ray cluster answers at {address}: {error.strerror or error}") from error
    if host not in _LOOPBACK:
        return False
    try:
        _dial(_outer_address(), int(port))
    except OSError:
        return True
    return False


def _dial(host: str, port: int) -> None:
    socket.create_connection((host, port), timeout=_KNOCK_SECONDS).close()


def _outer_address() -> str:
    """Return the address this machine would send from; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(_NOWHERE)
        return str(probe.getsockname()[0])


def _sweep() -> None:
    """End and delete what searches that were killed left of their Ray.

    Ray's agents would live on for a minute, with 100 MB each. Another search may sweep at the same time.
    """
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*-*"):
        owner = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if owner.isdecimal() and _is_ours(folder) and not _lives(int(owner)):
            for orphan in _at_home_in(folder):
                with suppress(ProcessLookupError):
                    os.kill(orphan, signal.SIGKILL)
            shutil.rmtree(folder, ignore_errors=True)


def _at_home_in(folder: Path) -> Iterator[int]:
    """Yield the processes that were started with `folder` as their home, where the system tells (Linux)."""
    home = b"HOME=" + os.fsencode(folder)
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # another user's, or just gone
            if home in (place / "environ").read_bytes().split(b"\0"):
                yield int(place.name)


def _is_ours(folder: Path) -> bool:
    try:
        return folder.lstat().st_uid == os.getuid()
    except FileNotFoundError:
        return False


def _lives(process: int) -> bool:
    """Return whether there is such a process, be it another user's."""
    try:
        with suppress(PermissionError):
            os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    return True


@contextmanager
def joined_ray(address: str) -> Iterator[None]:
    """Join the cluster at `address`; the environment is afterwards what it was.

    Raises `RequestError` if it does not answer, or if Ray runs in this process already.
    """
    with ray_environment(QUIET, loopback=_knock(address)):
        import ray

        try:
            with held():
                ray.init(address=address, log_to_driver=False, logging_level=_level())
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise RequestError(f"no Ray cluster answers at {address}: {error}") from error
        try:
            yield
        finally:
            with held():
                ray.shutdown()


def _level() -> int:
    """Return how much Ray says in this process: errors, unless evomerge is asked for everything."""
    return logging.INFO if _log.isEnabledFor(logging.DEBUG) else logging.ERROR


@contextmanager
def _home(folder: Path) -> Iterator[None]:
    before = os.environ.get("HOME")
    os.environ["HOME"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["HOME"]
        else:
            os.environ["HOME"] = before
