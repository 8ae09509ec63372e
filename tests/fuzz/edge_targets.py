"""What the edge reads: bodies, queries, forms, Wyoming's events, and texts that come in parts."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncGenerator, Coroutine, Iterable
from functools import cache
from random import Random
from typing import Any, Final, cast

import msgspec
from aiohttp import MultipartReader, web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.streams import StreamReader
from multidict import CIMultiDict

from tests.fuzz import mutate
from tests.fuzz.document_targets import scratch
from tests.fuzz.target import Target, refused, require
from voicebus.common.wire import check_text
from voicebus.edge import elevenlabs, elevenlabs_socket, jobs_api, openai, voices_api, wyoming
from voicebus.edge.fields import HINTS
from voicebus.edge.reading import decoded, from_words
from voicebus.edge.talk import Talk
from voicebus.edge.wyoming import House

FORMS: Final[tuple[type[msgspec.Struct], ...]] = (
    openai.SpeechRequest, elevenlabs.TextToSpeech, elevenlabs_socket.Part, jobs_api.NewJob,
)  # fmt: skip
QUERIES: Final[tuple[type[msgspec.Struct], ...]] = (
    elevenlabs.Asked, elevenlabs_socket.SocketAsked, jobs_api.Listed, voices_api.NewVoice,
)  # fmt: skip
MOST_SAMPLE_BYTES: Final = 4096
BOUNDARY: Final = "b0"


@cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


def _wait(coroutine: Coroutine[Any, Any, None]) -> None:
    _loop().run_until_complete(coroutine)


def run_bodies(data: bytes) -> None:
    """JSON as each of the forms, and as the query that its members would make."""
    for form in FORMS:
        with refused("bad_request"):
            found = decoded(data, form)
            _check_numbers(found)
            again = decoded(msgspec.json.encode(found), form)
            require(again == found, f"{form.__name__} means the same when it is written again")
    try:
        members: Any = json.loads(data)
    except (ValueError, RecursionError):
        return
    if isinstance(members, dict):
        pairs = cast("dict[Any, Any]", members).items()
        words = {_plain(key): _plain(value) for key, value in pairs}
        for form in QUERIES:
            with refused("bad_request"):
                _check_numbers(from_words(words, form))


def _plain(value: object) -> str:
    """As words come out of an address or a form: never with half a character."""
    return str(value).encode("utf-8", "replace").decode()


def _check_numbers(found: msgspec.Struct) -> None:
    for value in msgspec.structs.astuple(found):
        require(not isinstance(value, float) or math.isfinite(value), "a number is one")


def run_form(data: bytes) -> None:
    """multipart/form-data, in pieces as a connection gives them."""
    _wait(_form(data))


class _Request:
    """As much of a request as the form's reader asks for."""

    def __init__(self, data: bytes) -> None:
        content = StreamReader(BaseProtocol(_loop()), 2**16, loop=_loop())
        for start in range(0, len(data), 700):
            content.feed_data(data[start : start + 700])
        content.feed_eof()
        kind = f"multipart/form-data; boundary={BOUNDARY}"
        self._reader = MultipartReader(CIMultiDict({"Content-Type": kind}), content)

    async def multipart(self) -> MultipartReader:
        return self._reader


async def _form(data: bytes) -> None:
    place = scratch() / "sample"
    place.unlink(missing_ok=True)
    with refused("bad_request", "body_too_large"):
        try:
            fields = await voices_api._parts(cast("web.Request", _Request(data)), place, MOST_SAMPLE_BYTES)
        except voices_api._NO_FORM:
            return  # which the handler turns into bad_request
        require(set(fields) <= set(voices_api.FIELDS), "only fields that are known come out")
        require(place.stat().st_size <= MOST_SAMPLE_BYTES, "a recording is bounded")
        require(bool(fields["name"].strip() and fields["consent"].strip()), "nobody is cloned without a word")
        asked = from_words({**fields, "audio_sample": ""}, voices_api.NewVoice)
        made = voices_api.id_of(asked.name)
        require(0 < len(made) <= 64 and not {*"/.\\\0"} & {*made}, "an id made of a name is no path")


class _Deaf:
    """A writer whose other end takes everything."""

    def __init__(self) -> None:
        self.size = 0
        self.transport = self

    def write(self, data: bytes) -> None:
        self.size += len(data)

    def writelines(self, lines: Iterable[bytes]) -> None:
        for line in lines:
            self.write(line)

    async def drain(self) -> None:
        await asyncio.sleep(0)

    def close(self) -> None:
        return

    abort = close


class _Store:
    def list(self) -> list[Any]:
        return []


class _Heard:
    """A little speech."""

    rate_hz = 8000

    def __init__(self) -> None:
        self.chunks = self._speak()

    async def _speak(self) -> AsyncGenerator[Any]:
        await asyncio.sleep(0)
        yield _Chunk()


class _Chunk:
    pcm = bytes(32)


class _Service:
    """Speaks what it is given, as far as a job could be made of it."""

    def __init__(self) -> None:
        self.store = _Store()
        self.said = 0

    async def begin(self, wish: Any) -> _Heard:
        self.said += len(check_text(wish.text))
        return _Heard()


def run_wyoming(data: bytes) -> None:
    """Events over one connection, until it ends."""
    _wait(_wyoming(data))


async def _wyoming(data: bytes) -> None:
    reader = wyoming._Bounded(limit=wyoming.MAX_EVENT_BYTES)
    reader.feed_data(data)
    reader.feed_eof()
    service = _Service()
    house = House(reader, cast("Any", _Deaf()), cast("Any", service), "1", 5.0)
    try:
        async with asyncio.timeout(10):
            await house.run()
    except wyoming.CUT_OFF:
        return  # the connection ends there
    finally:
        require(house._speaker.done(), "who has left is spoken to no more")
    require(service.said <= 2 * len(data), "nothing is said that was not sent")


def run_talk(data: bytes) -> None:
    """A text in pieces, as a language model writes it: all of it is said, once."""
    _wait(_talk(data))


async def _talk(data: bytes) -> None:
    text = data[1:].decode("utf-8", "replace")
    size = 1 + data[0] % 16 if data else 1
    said: list[str] = []

    async def begin(part: str) -> Any:
        said.append(part)
        return _Heard()

    talk = Talk(begin)

    async def hear() -> None:
        async for heard in talk.heard():
            async for _ in heard.chunks:
                pass

    hearing = asyncio.create_task(hear())
    try:
        with refused("text_too_long"):
            for start in range(0, len(text), size):
                talk.feed(text[start : start + size])
            talk.end()
            await hearing
            require("".join(said).split() == text.split(), "every word is said, once and in its place")
    finally:
        hearing.cancel()
        await asyncio.gather(hearing, return_exceptions=True)
        await talk.aclose()


def _form_seeds() -> Iterable[bytes]:
    def part(name: str, value: bytes, more: str = "") -> bytes:
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'
        return head.encode() + value + b"\r\n"

    fields = part("name", b"Amber") + part("consent", b"Hers, she said so.") + part("language", b"en-us")
    yield fields + part("audio_sample", b"RIFF" + bytes(64), '; filename="a.wav"') + b"--b0--\r\n"
    yield fields + b"--b0--\r\n"
    encoded = b'--b0\r\nContent-Disposition: form-data; name="text"\r\n'
    encoded += b"Content-Transfer-Encoding: base64\r\n\r\naGk=\r\n"
    yield fields + encoded + b"--b0--\r\n"


def _event(kind: str, payload: bytes = b"", **data: Any) -> bytes:
    body = json.dumps(data).encode()
    line = {"type": kind, "data_length": len(body), "payload_length": len(payload)}
    return json.dumps(line).encode() + b"\n" + body + payload


def _wyoming_seeds() -> Iterable[bytes]:
    yield _event("describe") + _event("ping", text="x")
    yield _event("synthesize", text="Hello. Good day.", voice={"name": "amber", "language": "en"})
    parts = b"".join(_event("synthesize-chunk", text=text) for text in ("One. ", "Two", "."))
    yield _event("synthesize-start", voice={"name": "amber"}) + parts + _event("synthesize-stop")
    yield _event("audio-chunk", bytes(16), rate=8000, width=2, channels=1)


def _body_seeds() -> Iterable[bytes]:
    yield b'{"input": "Hello.", "model": "tts-1", "voice": "alloy", "speed": 1.5, "options": {"seed": 1}}'
    yield b'{"input": "Hello.", "voice": {"id": "amber"}, "response_format": "wav", "stream_format": "sse"}'
    yield b'{"text": "Hello.", "model_id": "eleven_x", "voice_settings": {"stability": 0.5, "speed": 1.0}}'
    yield b'{"text": "Hello. ", "flush": true, "xi_api_key": "k"}'
    yield b'{"lines": [{"text": "One.", "voice": "amber"}, {"text": "Two."}], "voice": "amber"}'
    yield b'{"output_format": "mp3_44100_128", "inactivity_timeout": "20", "name": "A", "consent": "yes"}'


JSON_TOKENS: Final = (
    '"', "{", "}", "[", "]", ":", ",", "null", "true", "1e999", "-0", "NaN", "\\ud800", "\\u0000", "[" * 3000,
    '{"a":' * 2000, "1" * 5000, "\x00", "\ufeff", '"speed": ', '"voice": ', '"text": ', '"input": ', " ",
    "\\n",
    *(f'"{hint}"' for hint in list(HINTS)[:2]),
)  # fmt: skip
FORM_TOKENS: Final = (
    "\r\n", "\n", f"--{BOUNDARY}", f"--{BOUNDARY}--", "Content-Disposition: form-data; ", 'name="consent"',
    'name="id"',
    "Content-Transfer-Encoding: ", "base64", "quoted-printable", "Content-Encoding: gzip\r\n",
    "Content-Length: 9",
    "Content-Type: multipart/mixed; boundary=b1", "charset=utf-7", "filename*=utf-8''%ff", '"', ";", "=",
    "\x00", "é",
    "Content-Encoding: deflate\r\n", "--", "x: y\r\n",
)  # fmt: skip
EVENT_TOKENS: Final = (
    '{"type": "synthesize-start"}\n', '{"type": "synthesize-stop"}\n', '{"type": "describe"}\n', "\n",
    '"data_length": ',
    '"payload_length": ', "-1", "1e9", "99999999999", "null", '"text": ', "[]", "{}", '"data": ',
    "[" * 3000, "\\ud800",
    '{"type": "synthesize-chunk", "data": {"text": 5}}\n',
    '{"type": "synthesize-chunk", "data": {"text": "A. B. "}}\n',
    '{"type": "synthesize", "data": {"text": "A.", "voice": {"name": []}}}\n', '{"type": []}\n', "[]\n",
    "5\n",
)  # fmt: skip
TEXT_TOKENS: Final = (
    ". ", "! ", " ", "\n", "\n\n", "a", "Mr. ", "…", "。", "\u200d", "\u0301", ",", '"', "(", "1.5",
    "\u2029", "\ufffd",
)  # fmt: skip


def change_text(data: bytes, dice: Random) -> bytes:
    """A text changed; one in five is a piece of it, over and over."""
    if dice.random() < 0.2 and data:
        at = dice.randrange(len(data))
        piece = data[at : at + dice.choice((1, 2, 3, 8, 30))]
        return data[:at] + piece * (dice.choice((300, 3000, 20_000)) // max(1, len(piece))) + data[at:]
    return _words(data, dice)


_words: Final = mutate.words(TEXT_TOKENS)

TARGETS: Final = (
    Target(
        "bodies", "a body or query is refused as bad_request, or is what it means when it is written again",
        run_bodies, _body_seeds, mutate.words(JSON_TOKENS), 20_000,
    ),
    Target(
        "form", "a form gives known fields and a bounded recording, or is refused",
        run_form, _form_seeds, mutate.words(FORM_TOKENS), 16_384,
    ),
    Target(
        "wyoming", "a connection is answered or ended, and nothing goes on when it has ended",
        run_wyoming, _wyoming_seeds, mutate.words(EVENT_TOKENS), 16_384,
    ),
    Target(
        "talk", "of a text in pieces every word is said once, in time that grows with its length",
        run_talk, lambda: [b"\x05Hello there. Mr. Smith said: no! And then\n\nwe went.",
        b"\x01" + b"word " * 50],
        change_text, 6_000, 4.0,
    ),
)  # fmt: skip
