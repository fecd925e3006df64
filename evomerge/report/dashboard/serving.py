"""The web application of a run: optuna-dashboard on what `Shown` shows, deaf to all that would change it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from evomerge.archive.run import Run
from evomerge.report.dashboard.shown import Recipes, Shown

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment


def application(run: Run) -> WSGIApplication:
    """Return the dashboard of a run, finished or not. Raises `RunError` if its study cannot be read."""
    import optuna_dashboard

    shown = Shown(run)
    return read_only(optuna_dashboard.wsgi(shown, artifact_store=Recipes(shown)))


def read_only(app: WSGIApplication) -> WSGIApplication:
    """Return the application without what changes or deletes studies: anybody here could ask for it."""

    def guarded(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            return app(environ, start_response)
        start_response("405 Method Not Allowed", [("Content-Type", "text/plain"), ("Allow", "GET, HEAD")])
        return [b"evomerge shows runs; it does not change them here\n"]

    return guarded
