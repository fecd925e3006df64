"""A search of models on this machine asks nobody else for anything."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from tests.cli.conftest import Workplace

SEARCH = """
import json, sys

WATCHED = ("socket.connect", "socket.getaddrinfo", "socket.sendto", "socket.bind")
asked = []


def watch(event, args):
    if event in WATCHED and args[1:] != (("::1", 0),):  # urllib3 looks whether there is IPv6 here
        asked.append([event, str(args[1:])])


sys.addaudithook(watch)
from evomerge.cli.main import main

sys.argv = ["evomerge", "search", "space.yaml", "--serial", "--quiet", "--budget", "2"]
try:
    main()
finally:
    print("ASKED", json.dumps(asked))
"""


def test_a_search_of_local_models_reaches_out_to_nobody(workplace: Workplace) -> None:
    """Also where the hub is not told to be offline."""
    online = {name: value for name, value in os.environ.items() if not name.endswith("_OFFLINE")}
    done = subprocess.run(
        [sys.executable, "-c", SEARCH],
        cwd=workplace.path, env=online, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.rpartition("ASKED ")[2]) == []
