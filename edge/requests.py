"""What the middleware finds out about a request and leaves on it for its handler."""

from __future__ import annotations

import random
from typing import Final

from aiohttp import web

from .keys import Caller
from .limits import Share


def new_id() -> str:
    """A name for a request, in the log and in events; nobody is let in by it."""
    return f"{random.getrandbits(64):016x}"


ID: Final = web.RequestKey("id", str)
ADDRESS: Final = web.RequestKey("address", str)
"""The client's, seen past proxies that the operator trusts."""
CALLER: Final = web.RequestKey("caller", Caller)
SHARE: Final = web.RequestKey("share", Share)
BODY_TIMEOUT_S: Final = web.AppKey("body_timeout_s", float)
PREPARED: Final = web.RequestKey("prepared", web.StreamResponse)
"""Its answer, once the headers of that have left."""
CORS: Final = web.RequestKey("cors", dict[str, str])
