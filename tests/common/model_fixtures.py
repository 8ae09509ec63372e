"""Small stand-ins for the places model files come from: wheels, an npm registry and a hub, all local."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import threading
import zipfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from voicebus.common.manifest import Manifest, ModelFile, Source


def model_file(path: str, data: bytes, *sources: Source) -> ModelFile:
    return ModelFile(path, hashlib.sha256(data).hexdigest(), len(data), "CC0-1.0", sources)


def manifest(*files: ModelFile) -> Manifest:
    return Manifest("tiny", "1", "CC0-1.0", files)


def make_wheel(folder: Path, package: str, version: str, members: dict[str, bytes]) -> Path:
    """A wheel that pip accepts; its package name must be plain letters."""
    info = f"{package}-{version}.dist-info"
    path = folder / f"{package}-{version}-py3-none-any.whl"
    everything = {
        **members,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, data in everything.items():
            wheel.writestr(name, data)
        wheel.writestr(f"{info}/RECORD", "".join(f"{name},,\n" for name in everything))
    return path


def make_tarball(members: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tarball:
        for info, data in members:
            info.size = len(data)
            tarball.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@dataclass
class Server:
    """A loopback web server. A page that is a string sends on to there; `limit_bytes` cuts answers short,
    as a bad line does."""

    url: str = ""
    pages: dict[str, bytes | str] = field(default_factory=dict)
    limit_bytes: int | None = None
    honours_range: bool = True
    requests: list[tuple[str, str | None]] = field(default_factory=list)

    def package(self, name: str, version: str, tarball: bytes) -> None:
        """Offer an npm package."""
        address = f"/{name}-{version}.tgz"
        manifest = {"name": name, "version": version, "dist": {"tarball": self.url + address}}
        packument = {"name": name, "dist-tags": {"latest": version}, "versions": {version: manifest}}
        self.pages[address] = tarball
        self.pages[f"/{name}"] = json.dumps(packument).encode()


@contextmanager
def serving() -> Generator[Server]:
    server = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            server.requests.append((self.path, asked))
            data = server.pages.get(self.path)
            if data is None:
                self.send_error(404)
                return
            if isinstance(data, str):
                self.send_response(302)
                self.send_header("Location", data)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            start = 0
            if asked and server.honours_range:
                start = int(asked.removeprefix("bytes=").rstrip("-"))
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            else:
                self.send_response(200)
            self.send_header("Content-Length", str(len(data) - start))
            self.end_headers()
            end = len(data) if server.limit_bytes is None else start + server.limit_bytes
            self.wfile.write(data[start:end])
            self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{listener.server_port}"
    thread = threading.Thread(target=listener.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join()
