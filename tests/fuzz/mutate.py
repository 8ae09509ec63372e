"""Changes of bytes, of MessagePack trees, of messages and of texts: what turns a good input into a bad one.

Random bytes seldom get past the first check. So what is known of a format is used to break it: a header is
taken apart, one item of it is replaced by something of another type or size, and it is packed again. All
chance comes from the `Random` that is given: the same seed makes the same inputs.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Final

import msgpack

from voicebus.common import wire

mp: Any = msgpack  # it carries no types
Mutator = Callable[[bytes, Random], bytes]
INTERESTING: Final = (0, 1, 2, 3, 127, 128, 255, 256, 32767, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1)
NUMBERS: Final[tuple[Any, ...]] = (
    -1, -(2**63), 2**63 - 1, 2**64 - 1, float("nan"), float("inf"), -float("inf"), 1e308, 5e-324, -0.0, True,
)  # fmt: skip
WORDS: Final = (
    "", "tone", "batch", "interactive", "amber", "../../etc/passwd", "en-US", "a" * 129, "é" * 64, "\x00",
    "\n\r\t", "\u202e", "x" * 2001, "status", "drain", "jobs", "job", "cancel", "00" * 16, "ff" * 16,
)  # fmt: skip
MOST_LEAVES: Final = 4000
LONGEST_TEXT: Final = 300_000
UNREADABLE: Final = (ValueError, TypeError, OverflowError, RecursionError, mp.UnpackException)
"""What msgpack raises for what is none; TypeError for a map whose key is a list."""


def flip(data: bytes, dice: Random) -> bytes:
    """One to four small changes anywhere: bits, bytes, numbers, pieces left out, doubled or put elsewhere."""
    row = bytearray(data)
    for _ in range(dice.choice((1, 1, 1, 2, 4))):
        at = dice.randrange(len(row) + 1)
        what = dice.randrange(8)
        if what == 0 and at < len(row):
            row[at] ^= 1 << dice.randrange(8)
        elif what == 1 and at < len(row):
            row[at] = dice.choice((0, 1, 0x7F, 0x80, 0xC0, 0xC1, 0xD4, 0xFF, dice.randrange(256)))
        elif what == 2:
            row[at:at] = dice.randbytes(dice.choice((1, 1, 2, 4, 16)))
        elif what == 3:
            del row[at : at + dice.choice((1, 2, 4, 32))]
        elif what == 4:
            size = dice.choice((1, 2, 4))
            number = dice.choice(INTERESTING) & ((1 << 8 * size) - 1)
            row[at : at + size] = number.to_bytes(size, dice.choice(("big", "little")))
        elif what == 5:
            end = min(len(row), at + dice.choice((2, 8, 64, 512)))
            row[at:at] = row[at:end] * dice.choice((1, 1, 2, 16))
        elif what == 6:
            del row[at:]
        else:
            end = min(len(row), at + dice.choice((2, 8, 64)))
            piece = row[at:end]
            del row[at:end]
            to = dice.randrange(len(row) + 1)
            row[to:to] = piece
    return bytes(row)


def leaf(dice: Random) -> Any:
    """Something that may stand in a header, mostly where it must not."""
    what = dice.randrange(9)
    if what == 0:
        return dice.choice(NUMBERS)
    if what == 1:
        return dice.choice(INTERESTING)
    if what == 2:
        return dice.choice(WORDS)
    if what == 3:
        return dice.choice((None, True, False, b"", b"\xff" * 16, dice.randbytes(16)))
    if what == 4:
        return mp.ExtType(dice.randrange(128), dice.randbytes(dice.choice((0, 1, 16))))
    if what == 5:
        return [[]] * dice.choice((1, 300, MOST_LEAVES))
    if what == 6:
        return {str(number): {} for number in range(dice.choice((1, 70, 1500)))}
    if what == 7:
        return {dice.choice((1, None, b"k", -1)): "no str for a key"}
    return ["a" * dice.choice((1, 65, 301))] * dice.choice((1, 17, 257))


def nested(dice: Random) -> bytes:
    """Arrays or maps in each other, some deeper than any recursion goes."""
    depth = dice.choice((2, 30, 500, 1100, 16_000))
    return dice.choice((b"\x91", b"\x81\xa1k", b"\xdc\x00\x01")) * depth + b"\xc0"


def pack_tree(tree: Any) -> bytes:
    """MessagePack of whatever `leaf` makes; text with half a surrogate is packed as it lies in memory."""
    return mp.packb(tree, unicode_errors="surrogatepass", strict_types=False)


def tree(data: bytes, dice: Random) -> bytes:
    """MessagePack with one item replaced, left out, doubled or added; anything else is only flipped."""
    if dice.random() < 0.05:
        return nested(dice)
    try:
        # Its keys may be anything: they are what is fuzzed.
        found: Any = mp.unpackb(data, strict_map_key=False, unicode_errors="surrogateescape")
    except UNREADABLE:
        return flip(data, dice)
    try:
        return pack_tree(_changed(found, dice))
    except (ValueError, TypeError, OverflowError, RecursionError):
        return flip(data, dice)


def _changed(item: Any, dice: Random) -> Any:
    if isinstance(item, list) and item and dice.random() < 0.85:
        row: list[Any] = list(item)  # pyright: ignore[reportUnknownArgumentType]
        at = dice.randrange(len(row))
        what = dice.randrange(8)
        if what == 0:
            del row[at]
        elif what == 1:
            row[at:at] = [row[at]] * dice.choice((1, 2, 300))
        elif what == 2:
            row.append(leaf(dice))
        elif what == 3:
            to = dice.randrange(len(row))
            row[at], row[to] = row[to], row[at]
        else:
            row[at] = _changed(row[at], dice)
        return row
    if isinstance(item, dict) and item and dice.random() < 0.7:
        chosen: dict[Any, Any] = dict(item)  # pyright: ignore[reportUnknownArgumentType]
        key = dice.choice(list(chosen))
        if dice.random() < 0.3:
            chosen[dice.choice(WORDS)] = chosen.pop(key)
        else:
            chosen[key] = _changed(chosen[key], dice)
        return chosen
    if isinstance(item, int) and not isinstance(item, bool) and dice.random() < 0.6:
        return item + dice.choice((-1, 1, 100, 256, -item, 2**16, 2**31))
    if isinstance(item, str) and dice.random() < 0.4:
        return item + dice.choice((*WORDS, "\ud800"))
    return leaf(dice)


KINDS: Final = tuple(wire.SHAPES)
FIELDS: Final = ((3, "B"), (4, "16s"), (20, "H"), (22, "H"), (24, "I"), (28, "I"))


def envelope(data: bytes, dice: Random, jobs: Sequence[bytes] = ()) -> bytes:
    """An envelope with one field changed, or none any more."""
    if len(data) != wire.ENVELOPE_BYTES or dice.random() < 0.06:
        return flip(data, dice)
    row = bytearray(data)
    at, form = dice.choice(FIELDS)
    if form == "B":
        row[3] = dice.choice(KINDS) if dice.random() < 0.8 else dice.randrange(256)
    elif form == "16s":
        row[4:20] = dice.choice((*jobs, wire.NO_JOB, dice.randbytes(16)))
    else:
        size = struct.calcsize(form)
        old = int.from_bytes(row[at : at + size])
        new = dice.choice((*INTERESTING, old + 1, old - 1, old + 2, 1 << dice.randrange(8 * size)))
        row[at : at + size] = (new % (1 << 8 * size)).to_bytes(size)
    return bytes(row)


def message(frames: Sequence[bytes], dice: Random, jobs: Sequence[bytes] = ()) -> list[bytes]:
    """One message with one thing changed: its envelope, its header, its payload or its frames."""
    row = list(frames)
    what = dice.random()
    if what < 0.3 or len(row) < 2:
        row[0] = envelope(row[0], dice, jobs)
    elif what < 0.75:
        row[1] = tree(row[1], dice)
    elif what < 0.85:
        row[-1] = flip(row[-1], dice)
    elif what < 0.88:
        row[-1] = row[-1] * dice.choice((2, 64)) if row[-1] else bytes(2)
    else:
        return _reframed(row, dice)
    return row


def _reframed(row: list[bytes], dice: Random) -> list[bytes]:
    at = dice.randrange(len(row))
    what = dice.randrange(6)
    if what == 0:
        row.insert(at, dice.choice((b"", row[at], bytes(32))))
    elif what == 1 and len(row) > 1:
        del row[at]
    elif what == 2:
        cut = dice.randrange(len(row[at]) + 1)
        row[at : at + 1] = [row[at][:cut], row[at][cut:]]
    elif what == 3 and at:
        row[at - 1 : at + 1] = [row[at - 1] + row[at]]
    elif what == 4:
        row += [b"\xc0"] * dice.choice((1, 4, 40))
    else:
        row[at] = b""
    return row


def words(tokens: Sequence[str]) -> Mutator:
    """Changes of a text: tokens of its format set in, lines doubled or left out; some only flipped."""

    def change(data: bytes, dice: Random) -> bytes:
        if dice.random() < 0.25:
            return flip(data, dice)
        text = data.decode("utf-8", "replace")
        for _ in range(dice.choice((1, 1, 2, 5))):
            text = text[:LONGEST_TEXT]
            at = dice.randrange(len(text) + 1)
            what = dice.randrange(5)
            if what <= 1:
                times = dice.choice((1, 1, 1, 1, 2, 50, 400))
                text = text[:at] + dice.choice(tokens) * times + text[at:]
            elif what == 2:
                end = at + dice.choice((1, 4, 20))
                text = text[:at] + text[end:]
            elif what == 3:
                rows = text.splitlines(keepends=True) or [""]
                place = dice.randrange(len(rows))
                rows[place:place] = [dice.choice(rows)] * dice.choice((1, 1, 30))
                text = "".join(rows)
            else:
                end = min(len(text), at + dice.choice((1, 3, 12)))
                text = text[:at] + dice.choice(tokens) + text[end:]
        return text.encode("utf-8", "surrogatepass" if dice.random() < 0.9 else "replace")

    return change
