"""What the middleware finds out about a request and leaves on it for its handler."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from .keys import Caller
from .limits import Share


@dataclass(slots=True)
class Bodies:
    """What of requests' bodies is in memory while they come: one may be large, a thousand may not."""

    most_bytes: int
    held_bytes: int = 0


def new_id() -> str:
    """A name for a request, in the log and in events; nobody is let in by it."""
    return f"{random.getrandbits(64):016x}"


ID: Final = web.RequestKey("id", str)
ADDRESS: Final = web.RequestKey("address", str)
"""The client's, seen past proxies that the operator trusts."""
CALLER: Final = web.RequestKey("caller", Caller)
SHARE: Final = web.RequestKey("share", Share)
BODY_TIMEOUT_S: Final = web.AppKey("body_timeout_s", float)
BODIES: Final = web.AppKey("bodies", Bodies)
PREPARED: Final = web.RequestKey("prepared", web.StreamResponse)
"""Its answer, once the headers of that have left."""
CORS: Final = web.RequestKey("cors", dict[str, str])
