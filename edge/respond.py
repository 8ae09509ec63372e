"""Answers in JSON, made by the same library that checks requests."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web


def respond(body: Any, *, status: int = 200) -> web.Response:
    """A response with this body: a struct, or plain lists and maps."""
    return web.Response(body=msgspec.json.encode(body), status=status, content_type="application/json")
