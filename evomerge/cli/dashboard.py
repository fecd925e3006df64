"""`evomerge dashboard RUN`: optuna-dashboard on the run's storage."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evomerge.cli.screen import stderr


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

    from evomerge.archive.run import open_run
    from evomerge.errors import RequestError
    from evomerge.report.dashboard.serving import application

    class Silent(WSGIRequestHandler):
        """Requests are no news."""

        def log_message(self, format: str, *args: object) -> None:
            del format, args

    opened = open_run(run, storage=storage)
    number, app = opened.study_id, application(opened)
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
