"""A database as storage: where it lies, what it lacks, and never its password."""

from __future__ import annotations

from pathlib import Path

import pytest
from optuna.samplers import RandomSampler
from optuna.trial import TrialState

from evomerge.archive.database import is_redacted, open_database, redacted, storage_url, told
from evomerge.archive.optuna_private import remember
from evomerge.archive.study import StudyRecord
from evomerge.errors import RunError, WorkError
from evomerge.space import GeneSpec
from evomerge.types import Measure, Scored
from tests.archive.postgres import PASSWORD, Server


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:secret@host:5432/db", "postgresql://me:***@host:5432/db"),
        ("postgresql+psycopg://me:se:cret@host/db", "postgresql+psycopg://me:***@host/db"),
        ("mysql://me:sec@ret@host/db", "mysql://me:***@host/db"),
        ("mysql://me:sec/ret@host/db", "mysql://me:***@host/db"),
        ("mysql://:secret@host/db", "mysql://:***@host/db"),
        ("postgresql://host/db?user=me&password=secret", "postgresql://host/db?user=me&password=***"),
        ("mysql://host/db?SSL_Token=secret&x=1", "mysql://host/db?SSL_Token=***&x=1"),
        (
            "postgresql://me@host/db?passfile=/home/me/.pgpass",
            "postgresql://me@host/db?passfile=/home/me/.pgpass",
        ),
        ("mssql+pyodbc:///?odbc_connect=PWD%3Dsecret", "mssql+pyodbc:///?odbc_connect=***"),
        ("sqlite:////tmp/a.db", "sqlite:////tmp/a.db"),
        ("postgresql://me@host:5432/db", "postgresql://me@host:5432/db"),
    ],
)
def test_a_password_is_never_shown(url: str, shown: str) -> None:
    assert redacted(url) == shown
    assert redacted(shown) == shown
    assert is_redacted(shown) == (url != shown)
    assert is_redacted(url) is False


def test_reading_a_database_that_is_not_there_does_not_make_it(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=f"^there is no database at {tmp_path}/none.db$"):
        open_database(f"sqlite:///{tmp_path}/none.db", existing=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_a_database_in_memory_is_no_storage(url: str) -> None:
    with pytest.raises(RunError, match=r"is gone with the process; name a file"):
        storage_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:////nowhere/secret/study.db",
        "nosuchdatabase://me:secret@localhost/db",
        "nosuchdatabase+driver://me:secret@localhost/db",
        "postgresql+nosuchdriver://me:secret@localhost/db",
        "mysql+nosuchdriver://me:secret@localhost/db?password=secret",
        "sqlite:///file:secret?mode=ro&uri=true",
        "://me:secret@localhost/db",
        "sqlite://me:secret@localhost:notaport/db",
        "postgresql+psycopg2://secret:secret@127.0.0.1:1/db",
    ],
)
def test_a_database_that_cannot_be_opened_is_an_error_without_its_url(url: str) -> None:
    with pytest.raises(RunError, match=r"^the storage cannot be opened \(.+\); check its URL") as caught:
        open_database(url, existing=False)
    assert "secret" not in str(caught.value)
    assert caught.value.__suppress_context__  # or a traceback would show what was hidden


def test_what_is_no_url_is_not_shown_if_it_may_hold_a_password() -> None:
    with pytest.raises(RunError, match=r"found one without ://$"):
        storage_url("postgresql:me:secret@host/db")
    with pytest.raises(RunError, match=r"found `study\.db`$"):
        storage_url("study.db")


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        (
            "postgresql://me:secret@host/db",
            r"`pip install psycopg\[binary\]`, or .* postgresql\+psycopg2://$",
        ),
        ("mysql://me:secret@host/db", r"`pip install mysqlclient`, or .* mysql\+pymysql://$"),
        ("mysql+pymysql://me:secret@host/db", r"`pip install pymysql`$"),
        ("mssql+pymssql://me:secret@host/db", r"Python finds no module `pymssql`$"),
    ],
)
def test_a_driver_that_is_missing_is_named(url: str, advice: str) -> None:
    with pytest.raises(
        RunError, match=rf"^the storage needs a database driver that is not installed: {advice}"
    ):
        open_database(url, existing=False)


@pytest.mark.parametrize(
    ("there", "wrong", "said"),
    [
        (PASSWORD, "another", 'password authentication failed for user "keeper"'),
        ("/postgres", "/nothing", 'database "nothing" does not exist'),
        ("127.0.0.1", "127.0.0.2", "Connection refused"),
    ],
)
def test_a_server_says_why_it_cannot_be_used(server: Server, there: str, wrong: str, said: str) -> None:
    with pytest.raises(
        RunError, match=rf"^the storage cannot be opened \(.*{said}.*\); check its URL"
    ) as caught:
        open_database(server.url.replace(there, wrong), existing=True)
    assert PASSWORD not in str(caught.value)


def test_a_server_holds_candidates_of_five_hundred_genes_and_survives_its_own_restart(server: Server) -> None:
    """A drawn vector of CMA-ES is the longest attribute there is, and gene names are the longest names."""
    genes = [GeneSpec(name=f"weight/{'model' * 12}/L{layer}", low=0.0, high=1.0) for layer in range(500)]
    measure = Measure(name="gsm", task="gsm", metric="acc", filter="none", higher_is_better=True)

    def study() -> StudyRecord:
        return StudyRecord(
            open_database(server.url, existing=True), "long" * 60,
            objectives=[measure], genes=genes, sampler=RandomSampler(seed=0),
        )  # fmt: skip

    first = study()
    asked = first.ask()
    drawn = [asked.params[gene.name] for gene in genes]
    remember(first.study, first.trials()[0], "cma:drawn", {"x": drawn})
    server.stop()
    said = r"^the run's database failed \(.+\); go on$"
    with pytest.raises(WorkError, match=said) as caught, told(server.url, WorkError, "go on"):
        first.trials()
    assert PASSWORD not in str(caught.value)
    server.start()
    first.tell_scored(
        0, Scored(scores={"gsm": 0.5}, items=(), merge_seconds=0, score_seconds=0, device="cpu"), {}
    )
    [trial] = study().trials()
    assert trial.state == TrialState.COMPLETE
    assert trial.system_attrs["cma:drawn"] == {"x": drawn}
    assert [trial.params[gene.name] for gene in genes] == drawn
