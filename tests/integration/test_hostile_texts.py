"""Texts by somebody with bad intentions, through a whole bus: spoken or refused, and no engine dies of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import zmq

from voicebus.client import Client
from voicebus.client.launch import Bus
from voicebus.common import bundles, wire
from voicebus.common.errors import BadRequest
from voicebus.common.messages import Failed, Submit, decode, encode
from voicebus.common.wire import pack_envelope

SPOKEN = {
    "no-break space": "Plan B\u00a0. And then? Plan C\u2028. No.",
    "NUL": "one\0two",
    "escapes": "\x1b[2J\x1b]0;title\x07 hello \x9b31m",
    "turned around": "\u202egnp.exe\u2066 and \u200f so on",
    "no width": "a\u200bb\u200dc\ufeffd",
    "accents": "e" + "\u0301" * 500,
    "beyond": "\U0010ffff \ue000 \U000e0041 x",
    "line of the helper": 'one"}\n{"phonemes": ["evil"]}\nthree',
    "a long word": "a" * 500,
    "marks": "Hi" + "!?" * 300,
}
BUSY = {
    "letters": "a" * 100_000,
    "digits": "1" * 100_000,
    "spaces": "a" + " " * 99_998 + "b",
    "brackets": "\u300ca\u3002" * 2_000,
}


@pytest.fixture(scope="module")
def bus() -> Any:
    with Bus(engines={"tone": 1}, settings={"seconds_per_char": 0.001}) as running:
        yield running


def retried(client: Client) -> int:
    """How often an engine was lost with a job in it."""
    return client.status()["totals"]["retried"]


def answers(socket: zmq.Socket[bytes]) -> Iterator[tuple[int, bytes]]:
    """What comes, as kind and header."""
    while True:
        assert socket.poll(30_000), "no answer"
        frames = socket.recv_multipart()
        if frames[0][3] == wire.BUNDLE:
            yield from ((envelope[3], header or b"") for envelope, header, _ in bundles.unpack(frames[1]))
        else:
            yield frames[0][3], frames[1] if len(frames) > 1 else b""


@pytest.mark.parametrize("text", [*SPOKEN.values(), *BUSY.values()], ids=[*SPOKEN, *BUSY])
def test_any_text_is_spoken_and_the_next_one_too(bus: Bus, text: str) -> None:
    with Client(bus.frontend) as client:
        before = retried(client)
        assert client.say(text, engine="tone", voice="amber").samples.size
        assert client.say("Good morning.", engine="tone", voice="amber").attempts == 1
        assert retried(client) == before


def test_half_a_character_is_refused_by_the_client_and_by_the_worker(bus: Bus) -> None:
    with Client(bus.frontend) as client, pytest.raises(BadRequest, match="not valid Unicode"):
        client.say("half \ud83d", engine="tone")
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.connect(bus.frontend)
    try:
        for payload in (b"half \xed\xa0\xbd", b"\xff\xfe", b"\xc0\x80", b"cut \xe2\x82"):
            job = os.urandom(16)
            socket.send_multipart([pack_envelope(wire.SUBMIT, job), encode(Submit("tone", "amber")), payload])
            refusal = decode(next(head for kind, head in answers(socket) if kind == wire.FAILED), Failed)
            assert refusal.code == "bad_request"
            assert "UTF-8" in refusal.message
    finally:
        socket.close(0)
        context.term()


@pytest.mark.model
@pytest.mark.parametrize("text", SPOKEN.values(), ids=SPOKEN)
def test_kokoro_says_something_or_says_why_not(kokoro: Bus, text: str) -> None:
    with Client(kokoro.frontend) as client:
        for result in client.map([text, "Good morning."], engine="kokoro", voice="amber"):
            assert result.speech is not None or (result.index == 0 and isinstance(result.error, BadRequest))
        assert retried(client) == 0


@pytest.fixture(scope="module")
def kokoro() -> Any:
    with Bus(engines={"kokoro": 1}) as running:
        yield running
