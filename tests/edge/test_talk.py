"""Text in parts: cut where sentences end, spoken in order, bounded, and let go of when nobody listens."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicebus.common.errors import EngineError, TextTooLong
from voicebus.edge.parts import PART_CHARS
from voicebus.edge.talk import AT_ONCE, Talk, complete


class Stand:
    """Stands for the service: notes what is begun, and what of it is closed."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.closed: list[str] = []

    async def begin(self, text: str) -> Any:
        self.begun.append(text)
        if "fail" in text:
            raise EngineError("it failed")
        return Speech(text, self)


class Speech:
    def __init__(self, text: str, stand: Stand) -> None:
        self.text = text
        self.chunks = self
        self._stand = stand

    async def aclose(self) -> None:
        self._stand.closed.append(self.text)


@pytest.mark.parametrize(
    ("text", "whole", "rest"),
    [
        ("", "", ""),
        ("Hello", "", "Hello"),
        ("Hello. ", "", "Hello. "),
        ("Hello. How", "Hello. ", "How"),
        ("One. Two. Thr", "One. Two. ", "Thr"),
        ("Dr. Smith is", "", "Dr. Smith is"),
        ("你好。今天", "你好。", "今天"),
    ],
)
def test_a_sentence_is_complete_when_another_has_begun(text: str, whole: str, rest: str) -> None:
    assert complete(text) == (whole, rest)


@given(
    st.lists(
        st.sampled_from(["Hello. ", "How are", " you? ", "你好。", "x", " ", "\n\n", "3.5", "!"]), max_size=20
    )
)
def test_nothing_is_lost_or_said_twice(parts: list[str]) -> None:
    async def main() -> list[str]:
        stand = Stand()
        talk = Talk(stand.begin)

        async def listen() -> None:
            async for _ in talk.heard():
                pass

        listening = asyncio.create_task(listen())
        for part in parts:
            talk.feed(part)
        talk.end()
        await listening
        return stand.begun

    begun = asyncio.run(main())
    assert "".join("".join(begun).split()) == "".join("".join(parts).split())


def test_no_more_is_begun_than_a_listener_can_use() -> None:
    async def main() -> None:
        stand = Stand()
        talk = Talk(stand.begin)
        words = ("One. ", "Two. ", "Three. ", "Four. ", "Five. ")
        for word in words:
            talk.feed(word)
        talk.end()
        heard = talk.heard()
        for taken in range(1, len(words) + 1):
            await anext(heard)
            for _ in range(10):
                await asyncio.sleep(0)
            assert len(stand.begun) == min(taken - 1 + AT_ONCE, len(words))
        await talk.aclose()

    asyncio.run(main())


def test_what_nobody_hears_is_closed() -> None:
    async def main() -> None:
        stand = Stand()
        talk = Talk(stand.begin)
        talk.feed("One. Two. Th")
        await asyncio.sleep(0)
        await talk.aclose()
        assert stand.closed == stand.begun == ["One. Two. "]

    asyncio.run(main())


def test_an_error_reaches_the_listener_and_the_length_is_bounded() -> None:
    async def main() -> None:
        talk = Talk(Stand().begin, most_chars=20)
        talk.feed("fail. Then")
        with pytest.raises(EngineError):
            await anext(talk.heard())
        with pytest.raises(TextTooLong, match="20 characters"):
            talk.feed("a" * 20)

    asyncio.run(main())


def test_a_long_text_at_once_is_begun_in_parts() -> None:
    """A book in one message was one wish, above what a request may have."""

    async def main() -> list[str]:
        stand = Stand()
        talk = Talk(stand.begin)
        talk.feed("A sentence of some length that is one of very many. " * 200)
        talk.end()
        async for _ in talk.heard():
            pass
        return stand.begun

    begun = asyncio.run(main())
    assert len(begun) > 5
    assert max(map(len, begun)) <= PART_CHARS
