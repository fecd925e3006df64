"""Where this process and its children listen."""

import psutil

LOOPBACK = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def listening() -> set[str]:
    """Return the addresses."""
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return {
        connection.laddr.ip
        for process in processes
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
