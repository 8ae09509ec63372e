"""The headers of VB1: the one place where a frame gets its meaning.

Each kind that carries a header has one frozen type here. On the wire a header is a MessagePack array whose
items are the fields in order: a reader ignores items it does not know and fills missing ones with the
defaults below, so fields may be added at the end and never moved. Decoding validates types, lengths
and ranges in the same step; anything else is a `ProtocolError` that names the field.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta, Struct

from .errors import BusError, ProtocolError, error_from_code
from .wire import MAX_HEADER_BYTES

END: Final = r"$(?!\n)"
"""The end, to Python and to JSON schema alike: Python's `$` alone lets a newline stand behind it."""
VOICE_PATTERN: Final = rf"^[a-z0-9][a-z0-9_-]{{0,63}}{END}"
PRINTABLE_PATTERN: Final = (
    r"^[^\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]*" + END
)
"""Nothing that moves a cursor, ends a line or turns the direction of writing: names are shown and logged."""

Name = Annotated[str, Meta(max_length=128, pattern=PRINTABLE_PATTERN)]
"A worker's, an engine's or a tenant's name."
Told = Annotated[str, Meta(max_length=128)]
"The same in what is decoded for every job, where the pattern would take .9 µs: whoever shows it looks at it."
FullName = Annotated[str, Meta(min_length=1, max_length=128, pattern=PRINTABLE_PATTERN)]
LANGUAGE_PATTERN: Final = r"^([A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*)?" + END
"""A BCP 47 tag, or none."""
VoiceId = Annotated[str, Meta(pattern=VOICE_PATTERN)]
Language = Annotated[str, Meta(pattern=r"^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*" + END, max_length=35)]
Count = Annotated[int, Meta(ge=0, le=2**31)]


MAX_SLOTS: Final = 1024
"""Jobs that one worker may offer to speak at once."""


class Header(Struct, array_like=True, frozen=True):
    """Base of all headers."""


class Submit(Header, frozen=True):
    """SUBMIT and JOB: what to speak with; the text is the payload. JOB carries SUBMIT's header unchanged.

    An empty engine means the broker's default, an empty voice the worker's default voice, an empty
    language the voice's own. `speed` is a factor, 1.0 the engine's own pace. `options` go to the engine
    as they are.
    """

    engine: Name = ""
    voice: Annotated[str, Meta(pattern=r"^([a-z0-9][a-z0-9_-]{0,63})?" + END)] = ""
    language: Annotated[str, Meta(pattern=LANGUAGE_PATTERN, max_length=35)] = ""
    lane: Annotated[str, Meta(pattern="^(interactive|batch)" + END)] = "batch"
    tenant: Name = ""
    characters: Count = 0
    speed: Annotated[float, Meta(ge=0.25, le=4.0)] = 1.0
    durable: bool = False
    options: dict[Annotated[str, Meta(max_length=64)], str | int | float | bool | None] = {}
    traceparent: Name = ""


class Accepted(Header, frozen=True):
    """ACCEPTED: the engine chosen, and how many jobs stood before this one."""

    engine: Name
    queued_ahead: Count = 0


class Started(Header, frozen=True):
    """STARTED: audio will follow in this form. `first_segment` stands in the envelope's sequence."""

    worker: Told
    engine: Told
    sample_rate: Annotated[int, Meta(ge=4000, le=192_000)]
    segments: Count = 0


class Done(Header, frozen=True):
    """DONE: every chunk has been sent; `chunks` of this attempt, `samples` of this attempt."""

    chunks: Count
    samples: Count
    engine_s: Annotated[float, Meta(ge=0)] = 0.0
    "Seconds the engine worked on this attempt."


class Spoken(Header, frozen=True):
    """SPOKEN: an attempt that was one chunk, in one message: what STARTED and DONE would say."""

    worker: Told
    engine: Told
    sample_rate: Annotated[int, Meta(ge=4000, le=192_000)]
    segments: Count = 0
    samples: Count = 0
    engine_s: Annotated[float, Meta(ge=0)] = 0.0


class Failed(Header, frozen=True):
    """FAILED: the error tree's code and sentence. `history` names what became of each attempt."""

    code: Name
    message: Annotated[str, Meta(max_length=2000)]
    retry_after_s: Annotated[float, Meta(ge=0, le=86_400)] | None = None
    history: Annotated[list[Annotated[str, Meta(max_length=300)]], Meta(max_length=16)] = []

    def error(self) -> BusError:
        """The error this header carries, as an exception."""
        return error_from_code(self.code, self.message, self.retry_after_s)


class Ready(Header, frozen=True):
    """READY: a worker registers. `incarnation` is new with each start: the newest of one id wins."""

    worker: FullName
    incarnation: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    engine: FullName
    languages: Annotated[list[Language], Meta(max_length=256)]
    slots: Annotated[int, Meta(ge=1, le=MAX_SLOTS)]
    interval_ms: Annotated[int, Meta(ge=50, le=60_000)]
    sample_rate: Annotated[int, Meta(ge=4000, le=192_000)]
    version: Name = ""
    warm_voices: Annotated[list[VoiceId], Meta(max_length=100)] = []
    max_chars: Count = 400
    learns: bool = False
    "Learning a voice takes its engine time: the broker then has no two workers learn the same one at once."
    renews: bool = False
    "It is registered already, as it believes, and only its slots have changed."


class Welcome(Header, frozen=True):
    """WELCOME: the broker took the registration; `liveness` beats missed in a row mean death."""

    broker: Name
    interval_ms: Annotated[int, Meta(ge=50, le=60_000)]
    liveness: Annotated[int, Meta(ge=1, le=100)]


class Heartbeat(Header, frozen=True):
    """HEARTBEAT from a worker: its own view, and jobs that made progress since the last beat."""

    free_slots: Count = 0
    warm_voices: Annotated[list[VoiceId], Meta(max_length=100)] = []
    progressed: Annotated[
        list[Annotated[bytes, Meta(min_length=16, max_length=16)]], Meta(max_length=256)
    ] = []
    stats: dict[Annotated[str, Meta(max_length=64, pattern=PRINTABLE_PATTERN)], int | float | Name] = {}


class Admin(Header, frozen=True):
    """ADMIN request: `status`, or `drain` with a worker's id as target; `offset` pages on."""

    command: Name
    target: Name = ""
    offset: Count = 0


class AdminReply(Header, frozen=True):
    """ADMIN reply: `next_offset` is 0 on the last page; the payload is a MessagePack map."""

    ok: bool
    next_offset: Count = 0
    code: Name = ""
    message: Annotated[str, Meta(max_length=2000)] = ""


HeaderT = TypeVar("HeaderT", bound=Header)

_PATTERN: Final = re.compile(r"matching regex '.*'(?= - at |$)")
_PLACE: Final = re.compile(r"`\$\[(\d+)\](.*?)`$")
_encoder = msgspec.msgpack.Encoder()
_decoders: dict[type[Header], msgspec.msgpack.Decoder[Any]] = {
    cls: msgspec.msgpack.Decoder(cls)
    for cls in (Submit, Accepted, Started, Done, Spoken, Failed, Ready, Welcome, Heartbeat, Admin, AdminReply)
}


def encode(header: Header) -> bytes:
    """Pack a header; raise `ProtocolError` when it would exceed the limit all peers obey."""
    packed = _encoder.encode(header)
    if len(packed) > MAX_HEADER_BYTES:
        raise ProtocolError(
            f"the header takes {len(packed):,} bytes, at most {MAX_HEADER_BYTES:,} are allowed"
        )
    return packed


def decode(data: bytes | memoryview, cls: type[HeaderT]) -> HeaderT:
    """Unpack and validate a header. The size is checked before the first byte is decoded."""
    if len(data) > MAX_HEADER_BYTES:
        raise ProtocolError(f"the header takes {len(data):,} bytes, at most {MAX_HEADER_BYTES:,} are allowed")
    try:
        return _decoders[cls].decode(data)
    except (msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"bad {cls.__name__} header: {_said(str(error), cls)}") from None


def _said(words: str, cls: type[Header]) -> str:
    """msgspec's sentence with the field's name for its place, and without the pattern it does not match."""
    words = _PATTERN.sub("of its form", words)
    return _PLACE.sub(lambda found: f"`{cls.__struct_fields__[int(found[1])]}{found[2]}`", words)


_MOST_KNOWN: Final = 4096
_LONGEST_KNOWN_BYTES: Final = 512
_known: dict[bytes, tuple[Submit, bytes]] = {}


def decode_submit(data: bytes) -> tuple[Submit, bytes]:
    """Unpack and validate a Submit; return it and these bytes, both shared by all jobs with the same header.

    The lines of a book differ in their text, and in their headers at most in its length: nearly every one has
    been seen, which saves its decoding (1.5 µs, most of it the patterns) and, in a long queue, its memory.
    """
    known = _known.get(data)
    if known is None:
        known = decode(data, Submit), data
        if len(data) <= _LONGEST_KNOWN_BYTES:
            if len(_known) >= _MOST_KNOWN:
                _known.clear()
            _known[data] = known
    return known


def failed(error: BusError, history: Sequence[str] = ()) -> Failed:
    """Turn an error of ours into the header that carries it. What others have said in it is cut to fit."""
    return Failed(
        error.code,
        _cut(error.message, 2000, _MESSAGE_BYTES),
        error.retry_after_s,
        [_cut(line, 300, _LINE_BYTES) for line in history[-16:]],
    )


_MESSAGE_BYTES: Final = 6000
_LINE_BYTES: Final = 600
"""All of them, with the message, are smaller than a header: a letter may take four bytes."""


def _cut(text: str, characters: int, size_bytes: int) -> str:
    text = text[:characters]
    return text if text.isascii() else text.encode("utf-8", "replace")[:size_bytes].decode("utf-8", "ignore")
