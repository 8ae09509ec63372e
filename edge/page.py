"""The page for people: files of the package's own folder, read once, with what a browser may do with them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib.resources import files
from typing import Final

from aiohttp import web

MEDIA_TYPES: Final = {
    "html": "text/html",
    "css": "text/css",
    "js": "text/javascript",
    "svg": "image/svg+xml",
    "png": "image/png",
    "json": "application/json",
}
POLICY: Final = (
    "default-src 'self'; media-src 'self' blob:; img-src 'self' data:; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Nothing from another host, and nothing written into the page: what a voice is called is never a script."""
HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": POLICY,
    "Cache-Control": "no-cache",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "microphone=(self)",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class Asset:
    """One file, served from memory."""

    def __init__(self, name: str, data: bytes) -> None:
        self._data = data
        self._media_type = MEDIA_TYPES[name.rpartition(".")[2]]
        self._etag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'

    async def serve(self, request: web.Request) -> web.Response:
        """GET: the file, or that it has not changed."""
        headers = {**HEADERS, "ETag": self._etag}
        known = request.headers.get("If-None-Match", "")
        if self._etag in known or known.strip() == "*":
            return web.Response(status=304, headers=headers)
        text = self._media_type.startswith("text/")
        return web.Response(
            body=self._data, content_type=self._media_type, charset="utf-8" if text else None, headers=headers
        )


def page_routes() -> list[web.RouteDef]:
    """`/` and `/page/…`."""
    folder = files("voicebus.edge").joinpath("page")
    found = {
        item.name: Asset(item.name, item.read_bytes())
        for item in folder.iterdir()
        if item.name.rpartition(".")[2] in MEDIA_TYPES
    }
    routes = [web.get(f"/page/{name}", asset.serve) for name, asset in found.items() if name != "index.html"]
    return [web.get("/", found["index.html"].serve), *routes]
