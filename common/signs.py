"""What a peer can learn of a connection that does not come about, and how that is said.

libzmq keeps the outcome of a handshake to itself unless a socket is watched (`handshake.py`); what it tells
is one of a few words, and most need a sentence that says what to do.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from .errors import BusError, KeyRefused

if TYPE_CHECKING:
    from .keyring import KeyFile


class Sign(Enum):
    """What became of a connection."""

    LOST = "lost"
    REFUSED = "refused"
    "The broker has read our key and does not take it."
    OTHER_WAYS = "other ways"
    "One of the two ends has keys and the other has none."
    CUT_SHORT = "cut short"
    "It ended in the handshake: the broker has gone, or it is not the one that the key is for."


def refusal(sign: Sign, address: str, key: KeyFile | None) -> BusError:
    """The error for a `REFUSED` or `OTHER_WAYS`; `key` is None where none was shown."""
    if key is None:
        return KeyRefused(
            f"the broker at {address} asks for a key: `vc keys new` on its machine makes one, --key names it"
        )
    if sign is Sign.REFUSED:
        return KeyRefused(
            f"the broker at {address} refuses the key {key.name} ({key.role}): it is not listed there, was "
            "revoked, or is for another role; `vc keys list` on its machine tells"
        )
    return KeyRefused(f"the broker at {address} has no keys and cannot prove that it is the right one")


def cut_short(address: str) -> str:
    """What is said of an address where handshakes break off again and again."""
    return (
        f"whatever listens at {address} ends each connection in its beginning: it is no broker, or not the "
        "one that this key is for (`vc keys show` on its machine tells its public key)"
    )
