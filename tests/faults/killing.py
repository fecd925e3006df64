"""Runs functions in processes that are killed at a given instant, cheaply: forks of one that loaded all.

An instant is a moment next to a durable write: before a file that was written is synced, before and after one
takes another's place, and as Optuna's lock is taken and left. The process is really killed there (or sent
another signal). Nothing is synced on the way, as a killed process loses nothing that it has handed to the
kernel.
"""

from __future__ import annotations

import importlib
import json
import mmap
import os
import signal
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

_PRELOADED = (
    "evomerge.cli.main",
    "evomerge.controller.public",
    "evomerge.dispatch.serial",
    "evomerge.evaluate.evaluator",
    "scipy.stats",
    "scipy.optimize",
    "cma",
    "transformers.models.llama.modeling_llama",  # of the zoo's models
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
)
_COUNTED = 8  # bytes of the shared counter
_TICK = 0.005


@dataclass(frozen=True, kw_only=True)
class End:
    """How a process ended: its exit code or minus the signal, None if it hung; `instants` it has lived."""

    code: int | None
    instants: int
    seconds: float
    out: str
    err: str

    @property
    def killed(self) -> bool:
        """Whether it was killed."""
        return self.code == -signal.SIGKILL


class Forks:
    """Starts processes that have loaded everything before they begin; use it in a `with`."""

    def __init__(self, folder: Path) -> None:
        """Keep what they print in `folder`."""
        self._folder = folder
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.killing"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )

    def __enter__(self) -> Forks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._server.communicate()

    def run(
        self,
        function: str,
        *arguments: Any,
        at: int | None = None,
        after: float | None = None,
        signal: int = signal.SIGKILL,
        limit: float = 120.0,
    ) -> End:
        """Return how `function` (as `module:name`) ended that was called with JSON values as `arguments`.

        It is sent `signal` at an instant (the first is 1) or `after` so many seconds; after `limit` it is
        killed.
        """
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        asked = {
            "function": function,
            "arguments": arguments,
            "at": at,
            "after": after,
            "signal": int(signal),
            "limit": limit,
            "out": str(self._folder / "out.txt"),
            "err": str(self._folder / "err.txt"),
        }
        self._server.stdin.write(json.dumps(asked) + "\n")
        self._server.stdin.flush()
        told = json.loads(self._server.stdout.readline())
        out, err = ((self._folder / f"{name}.txt").read_text(encoding="utf-8") for name in ("out", "err"))
        return End(**told, out=out, err=err)


def command(*words: str) -> None:
    """Run `evomerge` with these words."""
    from evomerge.cli.main import main

    sys.argv = ["evomerge", *words]
    main()


class _Instants:
    """Counts instants where the parent can read it, and sends the signal at one of them."""

    def __init__(self, counter: mmap.mmap, at: int | None, number: int) -> None:
        self._counter, self._at, self._signal = counter, at, number

    def pass_one(self) -> None:
        count = read(self._counter) + 1
        self._counter[:_COUNTED] = count.to_bytes(_COUNTED, "little")
        if count == self._at:
            os.kill(os.getpid(), self._signal)

    def watch(self) -> None:
        """Count from now on."""
        replace, rename, unlink = os.replace, os.rename, os.unlink

        def synced(file: int) -> None:
            self.pass_one()

        def replaced(*places: Any, **options: Any) -> None:
            self.pass_one()
            replace(*places, **options)
            self.pass_one()

        def renamed(*places: Any, **options: Any) -> None:
            self.pass_one()
            rename(*places, **options)

        def unlinked(*places: Any, **options: Any) -> None:
            self.pass_one()
            unlink(*places, **options)

        os.fsync = synced  # type: ignore[assignment]
        os.replace, os.rename, os.unlink = replaced, renamed, unlinked


def read(counter: mmap.mmap) -> int:
    """Return how many instants have passed."""
    return int.from_bytes(counter[:_COUNTED], "little")


def _serve() -> None:
    for module in _PRELOADED:
        importlib.import_module(module)
    for line in sys.stdin:
        print(json.dumps(_forked(json.loads(line))), flush=True)  # noqa: T201


def _forked(asked: dict[str, Any]) -> dict[str, Any]:
    counter = mmap.mmap(-1, _COUNTED)
    begun = time.monotonic()
    child = os.fork()
    if child == 0:
        _live(asked, counter)
    late = hung = False
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        lived = time.monotonic() - begun
        if found:
            break
        if asked["after"] is not None and lived > asked["after"] and not late:
            late = True
            os.kill(child, asked["signal"])
        if lived > asked["limit"]:
            hung = True
            os.kill(child, signal.SIGKILL)
        time.sleep(_TICK)
    code = None if hung else os.waitstatus_to_exitcode(status)
    return {"code": code, "instants": read(counter), "seconds": lived}


def _live(asked: dict[str, Any], counter: mmap.mmap) -> None:
    """Be the process; never return."""
    code = 1
    try:
        for name, stream in (("out", sys.stdout), ("err", sys.stderr)):
            file = os.open(asked[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(file, stream.fileno())
        signal.signal(signal.SIGINT, signal.default_int_handler)
        module, _, name = asked["function"].partition(":")
        work = getattr(importlib.import_module(module), name)
        _Instants(counter, asked["at"], asked["signal"]).watch()
        work(*asked["arguments"])
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve()
