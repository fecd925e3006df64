"""A stand-in for the hub on 127.0.0.1: the calls that huggingface_hub makes to upload a folder over HTTP.

Repositories, preupload, git-LFS batches and commits as the client of huggingface_hub 2.4 asks for them
(its `_commit_api.py` and `lfs.py`); Xet storage, which has a protocol of its own, is not spoken.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

TOKEN = "hf_stand_in"


@dataclass
class Hub:
    """What the stand-in holds, and what it was asked; `failing` maps a call to a status or "drop"."""

    files: dict[str, bytes] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    repos: dict[str, bool] = field(default_factory=dict)
    branches: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    tokens: set[str | None] = field(default_factory=set)
    failing: dict[str, int | str] = field(default_factory=dict)
    address: str = ""


@contextmanager
def standing_in() -> Iterator[Hub]:
    """Give a hub that listens while the `with` lasts."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            del format, args

        def do_POST(self) -> None:
            self._answer()

        def do_PUT(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self._answer()

        def do_HEAD(self) -> None:
            self._answer()

        def _answer(self) -> None:
            body = self._body()
            call = call_of(self.command, self.path)
            hub.calls.append(call)
            if call != "object":
                hub.tokens.add(self.headers.get("Authorization"))
            failure = hub.failing.get(call)
            if failure == "drop":
                self.connection.close()
                self.close_connection = True
                return
            if isinstance(failure, int):
                self._send(failure, {"error": "said by the stand-in"})
                return
            status, content = answer(hub, call, unquote(self.path), body)
            self._send(status, content)

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") == "chunked":
                parts = []
                while size := int(self.rfile.readline(), 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(parts)
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def _send(self, status: int, content: Any) -> None:
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def call_of(verb: str, path: str) -> str:
    """Return what is asked for, in a word."""
    for part, call in (
        ("/api/repos/create", "create"), ("/api/validate-yaml", "card"), ("/preupload/", "preupload"),
        ("/info/lfs/objects/batch", "batch"), ("/objects/", "object"), ("/branch/", "branch"),
        ("/commit/", "commit"),
    ):  # fmt: skip
        if part in path:
            return call
    return "info" if verb == "GET" else "other"


def answer(hub: Hub, call: str, path: str, body: bytes) -> tuple[int, Any]:
    """Return the status and content of the answer to a call."""
    if call == "object":
        hub.objects[path.rpartition("/")[2]] = body
        return 200, {}
    if call == "commit":
        return commit(hub, path.removeprefix("/api/models/").partition("/commit/")[0], body)
    asked = json.loads(body) if body else {}
    if call == "create":
        repo = "/".join(each for each in (asked.get("organization"), asked["name"]) if each)
        if repo in hub.repos:
            return 409, {"error": "You already created this model repo", "url": f"{hub.address}/{repo}"}
        hub.repos[repo] = bool(asked.get("private") or asked.get("visibility") == "private")
        return 200, {"url": f"{hub.address}/{repo}", "name": repo}
    if call == "card":
        return 200, {"errors": [], "warnings": []}
    if call == "branch":
        hub.branches.append(path.rpartition("/branch/")[2])
        return 200, {}
    if call == "preupload":
        modes = [
            (each["path"], "lfs" if each["path"].endswith(".safetensors") else "regular")
            for each in asked["files"]
        ]
        return 200, {
            "files": [
                {"path": name, "uploadMode": mode, "shouldIgnore": False, "oid": None} for name, mode in modes
            ]
        }
    if call == "batch":
        return 200, {
            "transfer": "basic",
            "objects": [
                {**each, "actions": {"upload": {"href": f"{hub.address}/objects/{each['oid']}"}}}
                for each in asked["objects"]
            ],
        }
    if call == "info":
        repo = path.partition("/api/models/")[2]
        if repo not in hub.repos:
            return 404, {"error": "Repository not found"}
        return 200, {"id": repo, "private": hub.repos.get(repo, False), "siblings": [], "tags": []}
    return 404, {"error": path}


def commit(hub: Hub, repo: str, body: bytes) -> tuple[int, Any]:
    """Take the files of a commit, a JSON value per line: small ones in it, large ones by their digest."""
    for line in body.splitlines():
        entry = json.loads(line)
        value = entry["value"]
        if entry["key"] == "file":
            hub.files[value["path"]] = base64.b64decode(value["content"])
        elif entry["key"] == "lfsFile":
            hub.files[value["path"]] = hub.objects[value["oid"]]
    oid = "0" * 40
    return 200, {"commitUrl": f"{hub.address}/{repo}/commit/{oid}", "commitOid": oid, "success": True}
