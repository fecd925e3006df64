"""A database as a run's storage: its URL without secrets, what it needs, and what it says when it fails."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote_plus

from optuna.exceptions import StorageInternalError

from evomerge.errors import EvomergeError, RunError

if TYPE_CHECKING:
    from optuna.storages import RDBStorage

_PACKAGES = {
    "psycopg": "`pip install psycopg[binary]`, or a URL that starts with postgresql+psycopg2://",
    "psycopg2": "`pip install psycopg2-binary`",
    "pymysql": "`pip install pymysql`",
    "MySQLdb": "`pip install mysqlclient`, or a URL that starts with mysql+pymysql://",
}
"""What brings a driver, by the module it is. SQLAlchemy chooses the module where a URL leaves it open."""

_TELLING = "password|passwd|passphrase|pwd|secret|token|odbc_connect"
_SECRETS = (
    re.compile(r"(?<=://)([^:/@]*:)(.*)(?=@)"),
    re.compile(rf"([?&][^=&]*(?:{_TELLING})[^=&]*=)([^&]*)", re.IGNORECASE),
)
_HIDDEN = "***"


def redacted(url: str) -> str:
    """Return a database URL without its password."""
    for pattern in _SECRETS:
        url = pattern.sub(rf"\1{_HIDDEN}", url)
    return url


def is_redacted(url: str) -> bool:
    """Return whether something was left out of a database URL, without which it leads nowhere."""
    return redacted(url) == url and _HIDDEN in url


def storage_url(given: str) -> str:
    """Return a database URL that leads to the same place from any working directory.

    Raises `RunError` for what is no URL.
    """
    if "://" not in given:
        shown = "one without ://" if "@" in given else f"`{given}`"  # it may hold a password
        raise RunError(
            "a storage is a database URL such as sqlite:///study.db or "
            f"postgresql+psycopg2://user@host/name, found {shown}"
        )
    if given == "sqlite://" or ":memory:" in given:
        raise RunError(f"{redacted(given)} is gone with the process; name a file, such as sqlite:///study.db")
    dialect, _, path = given.partition(":///")
    if not dialect.startswith("sqlite") or not path or path.startswith(("/", ":", "file:")):
        return given
    return f"{dialect}:///{Path(path).absolute()}"


def open_database(url: str, *, existing: bool) -> RDBStorage:
    """Return the storage in a database, with Optuna's tables made if they are not there.

    Raises `RunError` if it cannot be opened, or is a file that should be `existing` and is not.
    """
    from optuna.storages import RDBStorage

    failures: tuple[type[Exception], ...] = (*_failures(), ValueError, RuntimeError)
    file = url.partition(":///")[2].partition("?")[0] if url.startswith("sqlite") else ""
    if existing and file.startswith("/") and not Path(file).is_file():
        raise RunError(f"there is no database at {file}")
    try:
        return RDBStorage(url, engine_kwargs={"pool_pre_ping": True})  # idle connections are cut at night
    except ImportError as error:
        raise RunError(
            f"the storage needs a database driver that is not installed: {_driver(error)}"
        ) from None
    except failures as error:  # its text may tell the password
        raise RunError(
            f"the storage cannot be opened ({_said(error, url)}); check its URL, and that the database "
            "is there"
        ) from None


@contextmanager
def told(where: str | Path, error: type[EvomergeError], advice: str) -> Iterator[None]:
    """Turn what a database raises meanwhile into an `error` that says what it was."""
    if isinstance(where, Path):
        yield
        return
    try:
        yield
    except _failures() as failure:
        raise error(f"the run's database failed ({_said(failure, where)}); {advice}") from None


def _failures() -> tuple[type[Exception], ...]:
    from sqlalchemy.exc import SQLAlchemyError  # takes time, and journals do without

    return SQLAlchemyError, StorageInternalError


def _driver(error: ImportError) -> str:
    """Return what to do about the module that was not found."""
    found = error.__cause__ if isinstance(error.__cause__, ImportError) else error
    return _PACKAGES.get(found.name or "", f"Python finds no module `{found.name}`")


def _said(error: BaseException, url: str) -> str:
    """Return the first line of what the driver said, else the error's name; never with a secret."""
    while isinstance(error, StorageInternalError) and error.__cause__ is not None:
        error = error.__cause__
    said, *_ = str(getattr(error, "orig", None) or type(error).__name__).strip().splitlines()
    secrets = [secret for pattern in _SECRETS for _, secret in pattern.findall(url)]
    betrayed = any(each in said for secret in secrets for each in (secret, unquote_plus(secret)))
    return type(error).__name__ if betrayed else said
