"""A model hub on loopback: as much of its interface as a download needs."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final, cast

COMMIT: Final = "c0ffee" + "0" * 34
REPOSITORY: Final = "tts-hub/XTTS-v2"


class Hub(ThreadingHTTPServer):
    """Serves the files of one folder as those of the repository, and keeps the paths that were asked for."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.asked: list[str] = []
        self.broken = ""
        "The name of a file that is sent in part, and then no more."

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def log_message(self, format: str, *args: object) -> None:
        """A test's output is no place for an access log."""

    def _answer(self, with_body: bool) -> None:
        hub = cast("Hub", self.server)
        path = self.path.partition("?")[0]
        hub.asked.append(path)
        files = sorted(file for file in hub.folder.iterdir() if file.is_file())
        if path.startswith(f"/api/models/{REPOSITORY}/tree/"):
            listed = [
                {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": "0" * 40}
                for file in files
            ]
            self._send(json.dumps(listed).encode(), "application/json", with_body)
        elif path.startswith(f"/api/models/{REPOSITORY}"):
            siblings = [{"rfilename": file.name, "size": file.stat().st_size} for file in files]
            info = {"id": REPOSITORY, "sha": COMMIT, "private": False, "tags": [], "siblings": siblings}
            self._send(json.dumps(info).encode(), "application/json", with_body)
        elif path.startswith(f"/{REPOSITORY}/resolve/") and (hub.folder / Path(path).name).is_file():
            data = (hub.folder / Path(path).name).read_bytes()
            if with_body and Path(path).name == hub.broken:
                self._break_off(data, again=hub.asked.count(path) > 2)  # it was asked for its size before
            else:
                self._send(data, "application/octet-stream", with_body)
        else:
            self.send_error(404)

    def _break_off(self, data: bytes, *, again: bool) -> None:
        self.close_connection = True
        if again:
            self.send_error(503)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2])

    def _send(self, data: bytes, kind: str, with_body: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.end_headers()
        if with_body:
            self.wfile.write(data)


@contextmanager
def serving(folder: Path) -> Generator[Hub, None, None]:
    """A hub with the files of this folder."""
    with Hub(folder) as hub:
        thread = threading.Thread(target=hub.serve_forever, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()
