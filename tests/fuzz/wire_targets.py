"""Frames and headers: what every peer decodes of what every other may send."""

from __future__ import annotations

import math
from collections.abc import Iterable
from random import Random
from typing import Any, Final

import msgpack
import msgspec

from tests.fuzz import mutate
from tests.fuzz.samples import HEADERS, apart, every_message, joined, message_of
from tests.fuzz.target import BrokenPromiseError, Target, check_error, refused, require
from voicebus.common import bundles, messages, spoken, wire
from voicebus.common.errors import BusError, ProtocolError
from voicebus.workers import control
from voicebus.workers.sockets import unpacked

mp: Any = msgpack
KNOWN: Final[tuple[type[messages.Header], ...]] = tuple(dict.fromkeys(type(header) for header in HEADERS))


def change_message(data: bytes, dice: Random) -> bytes:
    """Frames with one of them changed."""
    return joined(mutate.message(apart(data), dice))


def run_frames(data: bytes) -> None:
    """An envelope, a bundle, a SPOKEN: read as every peer reads them."""
    frames = apart(data)
    try:
        fields = wire.unpack_envelope(frames[0])
    except ProtocolError as error:
        check_error(error)
        return
    kind, job, attempt, flags, sequence, value = fields
    again = wire.pack_envelope(kind, job, attempt, flags, sequence, value)
    require(again == frames[0], "an envelope that is read says the same when it is written again")
    if kind == wire.BUNDLE and len(frames) == 2:
        _bundle(frames)
    elif kind == wire.SPOKEN and len(frames) == 3:
        _spoken(frames)
    elif len(frames) > 1:
        with refused("protocol_error"):
            spoken.merge(frames, frames, frames)


def _bundle(frames: list[bytes]) -> None:
    found: list[tuple[bytes, bytes | None, bytes | None]] = []
    broke = False
    try:
        for message in bundles.unpack(frames[1]):
            found.append(message)
    except ProtocolError as error:
        check_error(error)
        broke = True
    require(len(found) <= wire.MAX_BUNDLED * wire.MAX_FRAMES, "a bundle has no more messages than it may")
    size = 0
    for envelope, header, payload in found:
        shape = (header is not None, payload is not None)
        require(wire.SHAPES[envelope[3]] == shape, "each has the frames of its kind")
        require(envelope[3] not in bundles.ALONE, "none is in it that may not be")
        size += sum(len(frame or b"") for frame in (envelope, header, payload))
    require(size <= len(frames[1]), "what comes out of a bundle is no more than went in")
    if not broke:
        theirs: Any = mp.unpackb(frames[1], strict_map_key=False)
        ours = [frame for message in found for frame in message if frame is not None]
        require(theirs == ours, "msgspec and msgpack read the same frames in a bundle")
    whole = [[frame for frame in message if frame is not None] for message in found]
    again = [m for _, payload in bundles.pack(whole) for m in bundles.unpack(payload)]
    require(again == found, "what is bundled again is unbundled as the same")
    seen = list(unpacked(frames))
    require(seen == [*whole, *([frames] if broke else [])], "a worker reads a bundle alike")


def _spoken(frames: list[bytes]) -> None:
    with refused("protocol_error"):
        started, chunk, done = spoken.parts(*frames)
        header = messages.decode(frames[1], messages.Spoken)
        require(
            messages.decode(started[1], messages.Started) == spoken.started_of(header), "STARTED is its own"
        )
        require(messages.decode(done[1], messages.Done).chunks == 1, "there is one chunk")
        require(chunk[1] == frames[2], "the audio is not touched")
        whole = spoken.merge(started, chunk, done)
        if frames[2]:
            require(whole is not None, "what was taken apart can be put together")
            if whole is not None:
                require(whole[0][4:22] == frames[0][4:22], "and is the same attempt")
                _same(messages.decode(whole[1], messages.Spoken), header)


def run_headers(data: bytes) -> None:
    """The same bytes as each of the headers."""
    for cls in KNOWN:
        try:
            header = messages.decode(data, cls)
        except ProtocolError as error:
            check_error(error)
            require(cls.__name__ in error.message or "header" in error.message, "it is said which header")
            continue
        require(len(data) <= wire.MAX_HEADER_BYTES, "no header is longer than allowed")
        theirs = _theirs(data, len(cls.__struct_fields__))
        require(theirs is not None, f"{cls.__name__} is MessagePack to an independent reader as well")
        _agree(header, theirs or [])
        try:
            packed = messages.encode(header)
        except ProtocolError as error:
            # Shorter forms of numbers may be longer as msgspec writes them: a float for an int, at most.
            check_error(error)
            require(len(data) > wire.MAX_HEADER_BYTES // 2, "what was decoded can be encoded")
            continue
        _same(messages.decode(packed, cls), header)
        if isinstance(header, messages.Failed):
            check_error(header.error())
    _submit(data)


def _submit(data: bytes) -> None:
    """The cache answers as the decoder does, however often it is asked."""
    answers: list[Any] = []
    for _ in range(2):
        try:
            submit, kept = messages.decode_submit(data)
            require(kept == data, "the bytes that are shared are these")
            answers.append(submit)
        except ProtocolError as error:
            answers.append(str(error))
    try:
        fresh: Any = messages.decode(data, messages.Submit)
    except ProtocolError as error:
        fresh = str(error)
    for answer in answers:
        require(type(answer) is type(fresh), "a header that is known is judged as one that is new")
        if isinstance(fresh, messages.Submit):
            _same(answer, fresh)


def _theirs(data: bytes, most: int) -> list[Any] | None:
    """The items that a header has, as an independent reader reads them; it ignores further ones, too."""
    unpacker = mp.Unpacker(strict_map_key=False, object_pairs_hook=list, max_buffer_size=len(data) + 1)
    unpacker.feed(data)
    try:
        return [unpacker.unpack() for _ in range(min(most, unpacker.read_array_header()))]
    except mutate.UNREADABLE:
        return None


def _agree(header: messages.Header, theirs: list[Any]) -> None:
    for name, other in zip(header.__struct_fields__, theirs, strict=False):
        ours = getattr(header, name)
        require(
            _equal(ours, other),
            f"{type(header).__name__}.{name} is {ours!r} to msgspec, {other!r} to msgpack",
        )


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, int | float):
        return one == other or (math.isnan(one) and math.isnan(other)) or one == float(other)
    if isinstance(one, dict):
        other = other if isinstance(other, dict) else dict(other)
        rows: dict[Any, Any] = one  # pyright: ignore[reportUnknownVariableType]
        return rows.keys() == other.keys() and all(_equal(rows[key], other[key]) for key in rows)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))  # pyright: ignore[reportUnknownArgumentType]
    return bool(one == other)


def _same(one: messages.Header, other: messages.Header) -> None:
    pairs = zip(msgspec.structs.astuple(one), msgspec.structs.astuple(other), strict=True)
    require(all(_equal(a, b) for a, b in pairs), f"{one!r} and {other!r} mean the same")


def run_control(data: bytes) -> None:
    """What agent and engine process say to each other, and to nobody else."""
    kinds: tuple[Any, ...] = (control.Setup, control.Loaded, control.Report)
    for cls in kinds:
        try:
            header: Any = control.decode(data, cls)
        except ProtocolError as error:
            check_error(error)
            continue
        again: Any = control.decode(control.message(control.REPORT, header)[1], cls)
        pairs = zip(msgspec.structs.astuple(header), msgspec.structs.astuple(again), strict=True)
        require(all(_equal(a, b) for a, b in pairs), f"{cls.__name__} says the same when it is packed again")


def _control_seeds() -> Iterable[bytes]:
    setup = control.Setup(
        "w", "tone", {"speed": 1.0}, "voices", "amber", "cache", {"level": "INFO"}, 0, {"a": 1}
    )
    loaded = control.Loaded("tone", "1", 8000, ["en", "de-AT"], 400, ["amber"], True, 4)
    report = control.Report(["amber", "basil"], {"jobs": 3, "seconds": 0.5})
    for kind, header in ((control.SETUP, setup), (control.LOADED, loaded), (control.REPORT, report)):
        yield control.message(kind, header)[1]


def _frame_seeds() -> Iterable[bytes]:
    yield from map(joined, every_message())
    many = [
        message_of(wire.STARTED),
        message_of(wire.CHUNK),
        message_of(wire.DONE),
        message_of(wire.SPOKEN),
    ] * 8
    yield from (joined(bundle) for bundle in bundles.pack(many))


def run_errors(data: bytes) -> None:
    """A FAILED of any peer becomes an error, and that a FAILED again."""
    try:
        error = messages.decode(data, messages.Failed).error()
    except BusError as bad:
        check_error(bad)
        return
    check_error(error)
    again = messages.decode(messages.encode(messages.failed(error)), messages.Failed).error()
    if type(again) is not type(error):
        raise BrokenPromiseError(f"{error.code} came back as {again.code}")


TARGETS: Final = (
    Target(
        "frames",
        "an envelope reads as it was written; bundles and SPOKEN come apart into what they were made of",
        run_frames, _frame_seeds, change_message, 32_768,
    ),
    Target(
        "headers",
        "a header is refused or says the same to msgspec and msgpack, and encodes to the same meaning",
        run_headers, lambda: map(messages.encode, HEADERS), mutate.tree, 20_000,
    ),
    Target(
        "errors",
        "whatever a FAILED says becomes one of our errors, and survives the way back",
        run_errors, lambda: [messages.encode(HEADERS[7])], mutate.tree,
    ),
    Target(
        "control",
        "what an engine process says is refused or means the same when it is packed again",
        run_control, _control_seeds, mutate.tree,
    ),
)  # fmt: skip
