"""A text that comes in parts, spoken sentence by sentence as soon as each is complete.

A language model writes for seconds; its listener should hear the first sentence while it writes the second.
The next sentence is begun while the one before is still on its way out, so that there is no gap between.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Final

from ..common.errors import TextTooLong
from ..common.text import split
from .service import Heard

AT_ONCE: Final = 2
"""Sentences under way: the one that is heard, and the next."""
SENTENCE_CHARS: Final = 400
MAX_TEXT: Final = 100_000
"""Of one talk, all its parts together."""


class Talk:
    """One text. Feed it from one task and hear it in another; close it in the end."""

    def __init__(self, begin: Callable[[str], Awaitable[Heard]], *, most_chars: int = MAX_TEXT) -> None:
        self._begin = begin
        self._most_chars = most_chars
        self._chars = 0
        self._text = ""
        self._places = asyncio.Semaphore(AT_ONCE)
        self._begun: asyncio.Queue[asyncio.Task[Heard] | None] = asyncio.Queue()
        self._all: set[asyncio.Task[Heard]] = set()

    async def feed(self, part: str) -> None:
        """Add to the text; waits while enough sentences are under way. Raises `TextTooLong`."""
        self._chars += len(part)
        if self._chars > self._most_chars:
            raise TextTooLong(f"a text that comes in parts may have {self._most_chars:,} characters in all")
        self._text += part
        whole, self._text = complete(self._text)
        await self._say(whole)

    async def flush(self) -> None:
        """Speak what is there, complete or not."""
        rest, self._text = self._text, ""
        await self._say(rest)

    async def end(self) -> None:
        """Nothing follows."""
        await self.flush()
        self._begun.put_nowait(None)

    async def heard(self) -> AsyncIterator[Heard]:
        """The sentences, each from its first audio. Raises what the beginning of one raises."""
        while (begun := await self._begun.get()) is not None:
            heard = await begun
            self._all.discard(begun)
            yield heard
            self._places.release()

    async def aclose(self) -> None:
        """Cancel what nobody will hear."""
        for begun in self._all:
            begun.cancel()
        for begun in self._all:
            with suppress(asyncio.CancelledError, Exception):
                await (await begun).chunks.aclose()
        self._all.clear()

    async def _say(self, text: str) -> None:
        if not text.strip():
            return
        await self._places.acquire()
        begun = asyncio.ensure_future(self._begin(text))
        self._all.add(begun)
        self._begun.put_nowait(begun)


def complete(text: str) -> tuple[str, str]:
    """The sentences that are complete, and what may still go on.

    The last sentence of a text may always go on: only what follows tells that it was one.
    """
    pieces = split(text, max_chars=SENTENCE_CHARS)
    if len(pieces) < 2:
        return "", text
    rest = pieces[-1].text
    return text[: len(text) - len(rest)], rest
