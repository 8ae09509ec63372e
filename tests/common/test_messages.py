"""Headers: the independent `msgpack` package and our types must agree byte for byte on what is meant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicebus.common import messages as m
from voicebus.common.errors import ProtocolError, RateLimited, UnknownVoice
from voicebus.common.wire import MAX_HEADER_BYTES

pack = cast("Callable[[Any], bytes]", msgpack.packb)
HEADERS = [
    m.Submit("kokoro", "amber", "en-us", "interactive", "t", 12, 1.5, True, {"k": 1, "f": 0.5, "n": None}),
    m.Accepted("kokoro", 3),
    m.Started("w1", "kokoro", 24_000, 2),
    m.Done(3, 72_000, 0.25),
    m.Failed("poison_job", "no", 1.5, ["attempt 1 on w1: died"]),
    m.Ready("w1", 2**62, "kokoro", ["en-us", "fr"], 2, 1000, 24_000, "1", ["amber"], 300),
    m.Welcome("broker", 1000, 3),
    m.Heartbeat(1, ["amber"], [bytes(16)], {"rss_bytes": 1, "audio_s": 0.5, "note": "x"}),
    m.Admin("status", "", 200),
    m.AdminReply(False, 0, "bad_request", "no"),
]


@pytest.mark.parametrize("header", HEADERS, ids=lambda header: type(header).__name__)
def test_msgpack_reads_what_we_write_and_we_read_what_it_writes(header: m.Header) -> None:
    array = msgpack.unpackb(m.encode(header))
    assert array == [getattr(header, name) for name in header.__struct_fields__]
    assert m.decode(pack(array), type(header)) == header


@pytest.mark.parametrize("header", HEADERS, ids=lambda header: type(header).__name__)
def test_newer_items_are_ignored(header: m.Header) -> None:
    array = [*msgpack.unpackb(m.encode(header)), "from the future", {"x": 1}]
    assert m.decode(pack(array), type(header)) == header


def test_missing_items_take_their_defaults() -> None:
    assert m.decode(pack([]), m.Submit) == m.Submit()
    with pytest.raises(ProtocolError):
        m.decode(pack(["w"]), m.Ready)


BAD = [
    (m.Submit, ["kokoro", "../x"]),
    (m.Submit, ["kokoro", "Amber"]),
    (m.Submit, ["kokoro", "a" * 65]),
    (m.Submit, ["kokoro", "", "not a tag"]),
    (m.Submit, ["kokoro", "", "", "urgent"]),
    (m.Submit, ["kokoro", "", "", "batch", "", -1]),
    (m.Submit, ["kokoro", "", "", "batch", "", 1, 99.0]),
    (m.Submit, ["kokoro", "", "", "batch", "", 1, float("nan")]),
    (m.Submit, ["kokoro", "", "", "batch", "", 1, 1.0, False, {"nested": {"a": 1}}]),
    (m.Submit, {"engine": "kokoro"}),
    (m.Submit, "kokoro"),
    (m.Ready, ["w", 1, "e", ["en"], 0, 1000, 24_000]),
    (m.Ready, ["w", 1, "e", ["en"], 1, 10, 24_000]),
    (m.Ready, ["", 1, "e", ["en"], 1, 1000, 24_000]),
    (m.Ready, ["w", -1, "e", ["en"], 1, 1000, 24_000]),
    (m.Heartbeat, [1, [], [b"short"]]),
]


@pytest.mark.parametrize(("cls", "value"), BAD)
def test_what_does_not_fit_is_refused(cls: type[m.Header], value: Any) -> None:
    with pytest.raises(ProtocolError, match=cls.__name__):
        m.decode(pack(value), cls)


@given(st.binary(max_size=200))
def test_noise_never_does_more_than_raise(data: bytes) -> None:
    for header in HEADERS:
        try:
            m.decode(data, type(header))
        except ProtocolError:
            continue


def test_text_that_is_no_utf8_is_refused() -> None:
    """msgspec lets the codec's own error through: one such header ended the broker."""
    with pytest.raises(ProtocolError, match="Submit"):
        m.decode(b"\x91\xa3\x00\x00\x80", m.Submit)
    with pytest.raises(ProtocolError):
        m.decode_submit(b"\x91\xa3\x00\x00\x80")


def test_size_is_checked_before_decoding() -> None:
    """A megabyte of empty maps became 69 MiB of objects before this."""
    bomb = b"\xdc\xff\xff" + b"\x80" * 65_535
    with pytest.raises(ProtocolError, match="bytes"):
        m.decode(bomb, m.Submit)
    with pytest.raises(ProtocolError, match=f"{MAX_HEADER_BYTES:,}"):
        m.encode(m.Submit(options={f"k{number}": "v" * 100 for number in range(200)}))


OPTIONS = b"\x99\xa4tone\xa0\xa0\xa5batch\xa0\x00\x01\xc2\x81\xa1a"
"""A Submit up to the value of its only option."""
DEEP = 8000
NO_HEADERS = {
    "an extension": b"\x91\xd4\x05\x00",
    "a timestamp": b"\x91\xd6\xff\x00\x00\x00\x00",
    "an extension as an option": OPTIONS + b"\xd4\x05\x00",
    "a timestamp as an option": OPTIONS + b"\xd6\xff\x00\x00\x00\x00",
    "a large extension that is not there": OPTIONS + b"\xc9\xff\xff\xff\xff\x05",
    "arrays in arrays": b"\x91" * DEEP + b"\xc0",
    "arrays in an option": OPTIONS + b"\x91" * DEEP + b"\xc0",
    "maps in an option": OPTIONS + b"\x81\xa1a" * (DEEP // 2) + b"\xc0",
    "an array of four thousand million": b"\xdd\xff\xff\xff\xff",
    "a map of four thousand million": OPTIONS[:-3] + b"\xdf\xff\xff\xff\xff",
    "a text that is not there": b"\x91\xdb\xff\xff\xff\xff",
}


def test_the_bombs_below_would_be_headers_with_a_plain_option() -> None:
    assert m.decode(OPTIONS + b"\x05", m.Submit).options == {"a": 5}


@pytest.mark.parametrize("data", NO_HEADERS.values(), ids=NO_HEADERS)
def test_bombs_and_extensions_are_refused_like_any_mistake(data: bytes) -> None:
    for read in (lambda: m.decode(data, m.Submit), lambda: m.decode_submit(data)):
        with pytest.raises(ProtocolError):
            read()


def test_an_error_travels_whole() -> None:
    sent = m.failed(RateLimited("slow down", retry_after_s=2.5), ["attempt 1"])
    error = m.decode(m.encode(sent), m.Failed).error()
    assert isinstance(error, RateLimited)
    assert (error.message, error.retry_after_s, error.retryable) == ("slow down", 2.5, True)
    assert isinstance(m.Failed("unknown_voice", "x").error(), UnknownVoice)
    assert m.Failed("from_the_future", "x").error().message == "[from_the_future] x"


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        (("", "amber\n"), "voice"),
        (("", "", "en\n"), "language"),
        (("", "", "", "batch\n"), "lane"),
        (("kokoro\n2026-11-26 error forged line",), "engine"),
        (("", "", "", "batch", "\x1b[2J"), "tenant"),
        (("", "", "", "batch", "a\u202eb"), "tenant"),
        (("", "", "", "batch", "a\u2028b"), "tenant"),
    ],
)
def test_a_name_holds_nothing_that_moves_a_cursor_or_ends_a_line(fields: tuple[str, ...], named: str) -> None:
    """Caught: Python's `$` lets a newline stand behind it, so "amber\\n" was a voice and went into logs."""
    with pytest.raises(ProtocolError, match=f"at `{named}`"):
        m.decode(pack(list(fields)), m.Submit)


def test_names_may_be_of_any_script() -> None:
    assert m.decode(pack(["Ünï 语音 صوت"]), m.Submit).engine == "Ünï 语音 صوت"
