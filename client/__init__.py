"""The native client: `Client` for ordinary code, `AsyncClient` for asyncio.

Names are imported when first used, so that a command which only needs one of them starts quickly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .aio import AsyncClient, AsyncJob
    from .request import Utterance
    from .speech import Chunk, Result, Speech
    from .sync import Client, Job

__all__ = ["AsyncClient", "AsyncJob", "Chunk", "Client", "Job", "Result", "Speech", "Utterance"]

_HOMES = {
    "AsyncClient": "aio",
    "AsyncJob": "aio",
    "Chunk": "speech",
    "Client": "sync",
    "Job": "sync",
    "Result": "speech",
    "Speech": "speech",
    "Utterance": "request",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
