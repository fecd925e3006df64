"""`evomerge dashboard RUN`: optuna-dashboard on the run's storage."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evomerge.cli.screen import stderr

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment


def command(
    run: Annotated[Path, typer.Argument(help="The run folder.", show_default=False)],
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any free one.")] = 8080,
    host: Annotated[
        str, typer.Option(help="Where to listen; the dashboard has no login, so mind who can reach it.")
    ] = "127.0.0.1",
    storage: Annotated[
        str | None, typer.Option(help="The run's database URL, if it needs a password.")
    ] = None,
) -> None:
    """Serve optuna-dashboard for a run, finished or not, until Ctrl-C. It can change and delete nothing."""
    from wsgiref.simple_server import WSGIRequestHandler, make_server

    import optuna_dashboard

    from evomerge.archive.run import open_run
    from evomerge.archive.study import open_storage
    from evomerge.errors import RequestError

    class Silent(WSGIRequestHandler):
        """Requests are no news."""

        def log_message(self, format: str, *args: object) -> None:
            del format, args

    opened = open_run(run, storage=storage)
    number = opened.study_id
    app = read_only(optuna_dashboard.wsgi(open_storage(opened.storage)))
    try:
        server = make_server(host, port, app, handler_class=Silent)
    except OSError as error:
        raise RequestError(
            f"port {port} on {host} cannot be used ({error.strerror}); choose another `--port`"
        ) from error
    address = f"http://{host}:{server.server_port}/dashboard/studies/{number}"
    stderr.print(f"{opened.folder.name}: {address} (Ctrl-C ends it)", highlight=False, soft_wrap=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        server.server_close()


def read_only(app: WSGIApplication) -> WSGIApplication:
    """Return the application without what changes or deletes studies: anybody here could ask for it."""

    def guarded(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            return app(environ, start_response)
        start_response("405 Method Not Allowed", [("Content-Type", "text/plain"), ("Allow", "GET, HEAD")])
        return [b"evomerge shows runs; it does not change them here\n"]

    return guarded
