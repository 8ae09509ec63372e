"""Home Assistant's protocol by the `wyoming` package's own client."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, suppress

import pytest
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncTcpClient
from wyoming.error import Error
from wyoming.event import Event
from wyoming.info import Describe, Info
from wyoming.ping import Ping, Pong
from wyoming.tts import (
    Synthesize,
    SynthesizeChunk,
    SynthesizeStart,
    SynthesizeStop,
    SynthesizeStopped,
    SynthesizeVoice,
)

from tests.edge.conftest import Speaker
from tests.edge.server import EdgeProcess
from voicebus.client import Client
from voicebus.client.launch import Bus

TEXT = "They walked along the river."


@pytest.fixture(scope="module")
def house(bus: Bus) -> Iterator[tuple[str, int]]:
    with EdgeProcess(bus, edge={"wyoming_port": 0}) as edge:
        assert edge.wyoming is not None
        yield edge.wyoming


def talk(house: tuple[str, int], work: Callable[[AsyncTcpClient], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(60), AsyncTcpClient(*house) as client:
            await work(client)

    asyncio.run(main())


async def read(client: AsyncTcpClient) -> Event:
    event = await client.read_event()
    assert event is not None
    return event


async def audio(client: AsyncTcpClient) -> bytes:
    event = await read(client)
    assert AudioStart.from_event(event) == AudioStart(24_000, 2, 1)
    parts = b""
    while not AudioStop.is_type((event := await read(client)).type):
        parts += AudioChunk.from_event(event).audio
    return parts


def test_what_the_house_asks_first(house: tuple[str, int]) -> None:
    async def work(client: AsyncTcpClient) -> None:
        await client.write_event(Describe().event())
        info = Info.from_event(await read(client))
        assert info.tts[0].supports_synthesize_streaming
        assert {"amber", "basil"} <= {voice.name for voice in info.tts[0].voices}
        await client.write_event(Ping("here?").event())
        assert Pong.from_event(await read(client)).text == "here?"

    talk(house, work)


def test_a_text(house: tuple[str, int], spoken: Speaker) -> None:
    async def work(client: AsyncTcpClient) -> None:
        for _ in range(2):
            await client.write_event(Synthesize(TEXT, SynthesizeVoice("basil")).event())
            assert await audio(client) == spoken(TEXT, "basil").tobytes()

    talk(house, work)


def test_a_text_in_chunks_is_spoken_once_whatever_else_comes(house: tuple[str, int], spoken: Speaker) -> None:
    async def work(client: AsyncTcpClient) -> None:
        await client.write_event(SynthesizeStart(voice=SynthesizeVoice("amber")).event())
        await client.write_event(SynthesizeChunk(f"{TEXT} My brother ").event())
        await client.write_event(SynthesizeChunk("keeps his letters.").event())
        # For servers that know no streams; and one that nobody knows.
        await client.write_event(Synthesize(f"{TEXT} My brother keeps his letters.").event())
        await client.write_event(Event("of-tomorrow", {"a": 1}))
        await client.write_event(SynthesizeStop().event())
        assert (
            await audio(client) == spoken(TEXT).tobytes() + spoken("My brother keeps his letters.").tobytes()
        )
        assert SynthesizeStopped.is_type((await read(client)).type)

    talk(house, work)


def test_an_error_is_told_and_the_connection_stays(house: tuple[str, int], spoken: Speaker) -> None:
    async def work(client: AsyncTcpClient) -> None:
        await client.write_event(Synthesize(TEXT, SynthesizeVoice("nobody")).event())
        assert Error.from_event(await read(client)).code == "unknown_voice"
        await client.write_event(Synthesize(TEXT, SynthesizeVoice("amber")).event())
        assert await audio(client) == spoken(TEXT).tobytes()

    talk(house, work)


@pytest.mark.parametrize(
    "line",
    [b"no json\n", b"[]\n", b"{}\n", b'{"type":"synthesize","data_length":99999999999}\n', b"{" * 2_000_000],
    ids=["no json", "a list", "no type", "a claim of 100 GB", "no end"],
)
def test_nonsense_is_cut_off_and_others_are_served(house: tuple[str, int], line: bytes) -> None:
    async def main() -> None:
        reader, writer = await asyncio.open_connection(*house)
        writer.write(line)
        async with asyncio.timeout(30):
            with suppress(ConnectionResetError):  # what had not been read yet when it was cut off
                assert await reader.read() == b""
        writer.close()

    asyncio.run(main())
    test_what_the_house_asks_first(house)


def test_an_error_in_a_text_that_comes_in_chunks_ends_it_and_nothing_else(
    house: tuple[str, int], spoken: Speaker
) -> None:
    """Its third sentence waited for ever, and the connection's place with it."""

    async def work(client: AsyncTcpClient) -> None:
        await client.write_event(SynthesizeStart(voice=SynthesizeVoice("nobody")).event())
        for _ in range(8):
            await client.write_event(SynthesizeChunk(f"{TEXT} ").event())
        await client.write_event(SynthesizeStop().event())
        assert Error.from_event(await read(client)).code == "unknown_voice"
        assert SynthesizeStopped.is_type((await read(client)).type)
        await client.write_event(Synthesize(TEXT, SynthesizeVoice("amber")).event())
        assert await audio(client) == spoken(TEXT).tobytes()
        await client.write_event(Synthesize("  ", SynthesizeVoice("amber")).event())
        assert await audio(client) == b"", "nothing to say is an answer, too"

    talk(house, work)


def test_who_leaves_takes_their_job_along_and_silent_ones_make_room() -> None:
    """Nothing was read while something was spoken; and 64 silent connections closed the port."""
    slow = {"seconds_per_char": 0.05, "realtime_factor": 1}
    with (
        Bus(engines={"tone": 1}, settings=slow, config={"broker": {"default_engine": "tone"}}) as bus,
        EdgeProcess(bus, edge={"wyoming_port": 0}) as edge,
        Client(bus.frontend) as client,
    ):
        assert edge.wyoming is not None
        place = edge.wyoming

        async def leave() -> None:
            async with asyncio.timeout(60), AsyncTcpClient(*place) as house:
                await house.write_event(Synthesize("It goes on and on. " * 100).event())
                assert AudioStart.is_type((await read(house)).type)

        asyncio.run(leave())
        while client.status()["jobs"]["open"]:
            pass
        assert client.status()["totals"]["cancelled"] >= 1

        async def crowd() -> None:
            silent = [await asyncio.open_connection(*place) for _ in range(64)]
            async with asyncio.timeout(60), AsyncTcpClient(*place) as house:
                await house.write_event(Ping("here?").event())
                assert Pong.from_event(await read(house)).text == "here?"
            for _, writer in silent:
                writer.close()

        asyncio.run(crowd())


def test_those_who_begin_a_text_and_say_nothing_make_room(house: tuple[str, int]) -> None:
    """64 of them closed the port for as long as they liked: a text that had begun was under way."""

    async def main() -> None:
        async with asyncio.timeout(60), AsyncExitStack() as stack:
            for _ in range(64):
                silent = await stack.enter_async_context(AsyncTcpClient(*house))
                await silent.write_event(SynthesizeStart(SynthesizeVoice("amber")).event())
                await silent.write_event(Ping("begun").event())
                assert Pong.from_event(await read(silent)).text == "begun"
            client = await stack.enter_async_context(AsyncTcpClient(*house))
            await client.write_event(Ping("here?").event())
            assert Pong.from_event(await read(client)).text == "here?"

    asyncio.run(main())
