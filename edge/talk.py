"""A text that comes in parts, spoken sentence by sentence as soon as each is complete.

A language model writes for seconds; its listener should hear the first sentence while it writes the second.
The next sentence is begun while the one before is still on its way out, so that there is no gap between.
Feeding never waits: whoever feeds also has to hear that the listener is gone. What bounds it is the length.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from typing import Final

from ..common.errors import TextTooLong
from ..common.text import split
from .parts import SENTENCE_CHARS, parts_of
from .service import Heard

AT_ONCE: Final = 2
"""Sentences under way: the one that is heard, and the next."""
MOST_BLANKS: Final = 16
MAX_TEXT: Final = 100_000
"""Of one talk, all its parts together."""


class Talk:
    """One text, for one event loop. Feed it from one task and hear it in another; close it in the end."""

    def __init__(self, begin: Callable[[str], Awaitable[Heard]], *, most_chars: int = MAX_TEXT) -> None:
        self._begin = begin
        self._most_chars = most_chars
        self._chars = 0
        self._text = ""
        self._ready: deque[str] = deque()
        self._under_way: deque[asyncio.Task[Heard]] = deque()
        self._moved = asyncio.Event()
        self._has_ended = False
        self._is_closed = False

    @property
    def is_waiting(self) -> bool:
        """Whether all that came was said, and more may come."""
        return not (self._ready or self._under_way or self._has_ended)

    def feed(self, part: str) -> None:
        """Add to the text. Raises `TextTooLong`."""
        self._chars += len(part)
        if self._chars > self._most_chars:
            raise TextTooLong(f"a text that comes in parts may have {self._most_chars:,} characters in all")
        if part.isspace() and len(self._text) - len(self._text.rstrip()) >= MOST_BLANKS:
            return  # a text of nothing else never has a sentence, and would be looked through again and again
        whole, self._text = complete(self._text + part)
        self._say(whole)

    def flush(self) -> None:
        """Speak what is there, complete or not."""
        rest, self._text = self._text, ""
        self._say(rest)

    def end(self) -> None:
        """Nothing follows."""
        self.flush()
        self._has_ended = True
        self._moved.set()

    async def heard(self) -> AsyncGenerator[Heard]:
        """The sentences, each from its first audio. Raises what the beginning of one raises."""
        while True:
            while self._under_way:
                yield await self._under_way[0]
                if self._under_way:
                    self._under_way.popleft()
                self._advance()
            if self._has_ended:
                return
            self._moved.clear()
            await self._moved.wait()

    async def aclose(self) -> None:
        """Cancel what nobody will hear. What is fed afterwards is not spoken."""
        self._is_closed = True
        self._ready.clear()
        while self._under_way:
            begun = self._under_way.popleft()
            begun.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await (await begun).chunks.aclose()

    def _say(self, text: str) -> None:
        self._ready.extend(part for part in parts_of(text) if part.strip())
        self._advance()

    def _advance(self) -> None:
        while self._ready and len(self._under_way) < AT_ONCE and not self._is_closed:
            self._under_way.append(asyncio.ensure_future(self._begin(self._ready.popleft())))
            self._moved.set()


def complete(text: str) -> tuple[str, str]:
    """The sentences that are complete, and what may still go on.

    The last sentence of a text may always go on: only what follows tells that it was one.
    """
    pieces = split(text, max_chars=SENTENCE_CHARS)
    if len(pieces) < 2:
        return "", text
    rest = pieces[-1].text
    return text[: len(text) - len(rest)], rest
