"""Sockets that never block: whole messages in, and out through a queue that holds what the peer cannot take.

pyzmq's own send and recv are called in its C base class, which halves their cost; both raise `zmq.Again`
instead of waiting.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from math import inf
from typing import TYPE_CHECKING, Any, Final

import zmq
from zmq.backend import Socket as BaseSocket

from ..common import bundles, handshake, spoken, wire
from ..common.errors import ProtocolError
from ..common.wire import COPY_BELOW_BYTES, MAX_FRAME_BYTES, MAX_FRAMES
from .actions import Frames

if TYPE_CHECKING:
    from ..common.keyring import KeyFile

SEND_AHEAD: Final = 256
"""Messages that libzmq may hold for a broker, at most 64 MiB of audio; more wait in the outbox."""
MAX_OUTBOX: Final = 1024
"""So many messages waiting, and the broker is not listened to either: it falls silent and is given up."""
RECONNECT_MAX_MS: Final = 1000
"""libzmq tries again from 0.1 s on, doubling to this, as long as the core keeps the socket."""
PATIENCE_S: Final = 0.002
_OF_ATTEMPTS: Final = frozenset((wire.STARTED, wire.CHUNK, wire.DONE))
FLUSH_MS: Final = 1000
"""How long a closed socket may still deliver."""


def receiver(socket: zmq.Socket[bytes]) -> Callable[[], Frames]:
    """Return a function that receives one whole message, or raises `zmq.Again`.

    The envelope comes as bytes, later frames as bytes or, from 8 KiB up, as unopened frames. Of a message
    with too many frames only one more than allowed is kept: enough to see that it is wrong.
    """
    recv: Callable[[int, bool], Any] = BaseSocket.recv.__get__(socket)  # pyright: ignore[reportUnknownMemberType] - untyped C class

    def receive() -> Frames:
        frame = recv(zmq.NOBLOCK, False)
        frames: Frames = [frame.bytes]
        while frame.more:
            frame = recv(zmq.NOBLOCK, False)
            if len(frames) <= MAX_FRAMES:
                frames.append(frame.bytes if len(frame) < COPY_BELOW_BYTES else frame)
        return frames

    return receive


def sender(socket: zmq.Socket[bytes]) -> Callable[[Sequence[Any]], None]:
    """Return a function that sends one whole message, or raises `zmq.Again` and has sent nothing."""
    send: Callable[..., Any] = BaseSocket.send.__get__(socket)  # pyright: ignore[reportUnknownMemberType] - untyped C class
    more, last_one = int(zmq.NOBLOCK | zmq.SNDMORE), int(zmq.NOBLOCK)

    def send_all(frames: Sequence[Any]) -> None:
        last = len(frames) - 1
        for place, frame in enumerate(frames):
            # Only the first part can find the peer full: libzmq takes a message whole.
            copied = frame.__class__ is bytes or len(frame) < COPY_BELOW_BYTES
            send(frame, last_one if place == last else more, copied)

    return send_all


class BrokerSocket:
    """A DEALER to one broker, which is shown `key`, with its outbox. A heartbeat goes before whatever waits.

    What is sent leaves with the next `push`, small messages bundled. The first is always a bundle: so the
    broker knows that it may send bundles as well.
    """

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], address: str, key: KeyFile | None = None
    ) -> None:
        self.socket = context.socket(zmq.DEALER)
        handshake.show_key(self.socket, key)
        self.socket.ipv6 = "[" in address
        self.monitor = self.socket.get_monitor_socket(handshake.WATCHED)
        self.socket.linger = 0
        self.socket.sndhwm = SEND_AHEAD
        self.socket.maxmsgsize = MAX_FRAME_BYTES
        self.socket.reconnect_ivl_max = RECONNECT_MAX_MS
        self.socket.connect(address)
        self._receive = receiver(self.socket)
        self._send = sender(self.socket)
        self._unpacked: Iterator[Frames] = iter(())
        self._burst: list[Frames] = []
        self._outbox: deque[Sequence[Any]] = deque()
        self._beat: Frames | None = None
        self._introduced = False
        self.patient_until = inf
        "When `push` must be called again."

    @property
    def is_blocked(self) -> bool:
        """Whether messages wait for the broker."""
        return bool(self._outbox) or self._beat is not None

    @property
    def is_stuck(self) -> bool:
        """Whether more wait than is sane."""
        return len(self._outbox) >= MAX_OUTBOX

    def receive(self) -> Frames:
        """Take the next message, or raise `zmq.Again`. A bundle that breaks off is itself given at last."""
        frames = next(self._unpacked, None)
        if frames is not None:
            return frames
        frames = self._receive()
        envelope = frames[0]
        if len(frames) != 2 or len(envelope) != wire.ENVELOPE_BYTES or envelope[3] != wire.BUNDLE:
            return frames
        self._unpacked = unpacked(frames)
        return self.receive()

    def send(self, frames: Frames) -> None:
        """Send with the next `push`, in order."""
        self._burst.append(frames)

    def push(self, now: float = inf) -> None:
        """Send what was given to `send`, now or later.

        STARTED alone waits for a moment: nobody misses it before the audio, and with an engine that is fast
        enough all of the attempt fits one message.
        """
        burst = self._burst
        if not burst:
            return
        if now < self.patient_until and all(frames[0][3] == wire.STARTED for frames in burst):
            if self.patient_until == inf:
                self.patient_until = now + PATIENCE_S
        else:
            self.patient_until = inf
            for frames in bundles.packed(_merged(burst), always=not self._introduced):
                self._put(frames)
            self._introduced = True
            burst.clear()

    def _put(self, frames: Sequence[Any]) -> None:
        if self._outbox:
            self._outbox.append(frames)
            return
        try:
            self._send(frames)
        except zmq.Again:
            self._outbox.append(frames)

    def beat(self, frames: Frames) -> None:
        """Send a heartbeat now, or before anything else."""
        self._beat = frames
        self._pump_beat()

    def pump(self) -> None:
        """Send what waits, as far as there is room."""
        self._pump_beat()
        if self._beat is not None:  # room that comes just now is for the beat
            return
        try:
            while self._outbox:
                self._send(self._outbox[0])
                self._outbox.popleft()
        except zmq.Again:
            return

    def _pump_beat(self) -> None:
        if self._beat is not None:
            try:
                self._send(self._beat)
            except zmq.Again:
                return
            self._beat = None

    def close(self, *, flush: bool) -> None:
        """Close; with `flush` what was sent still goes out for a bounded time."""
        if flush:
            self.push()
        self.socket.disable_monitor()
        self.monitor.close(0)
        self.socket.close(linger=FLUSH_MS if flush else 0)


def _merged(burst: list[Frames]) -> list[Sequence[Any]]:
    """The same messages, those of an attempt that is here as a whole as one SPOKEN.

    Attempts may lie between each other; only within an attempt the order means something.
    """
    out: list[Sequence[Any] | None] = []
    places: dict[bytes, list[int]] = {}
    for frames in burst:
        envelope = frames[0]
        if envelope[3] in _OF_ATTEMPTS:
            before = places.setdefault(envelope[4:22], [])
            if len(before) == 2:
                started, chunk = (out[place] for place in before)
                whole = spoken.merge(started or (), chunk or (), frames)
                if whole is not None:
                    out[before[0]], out[before[1]] = None, whole
                    continue
            before.append(len(out))
        out.append(frames)
    return [frames for frames in out if frames is not None]


def unpacked(bundle: Frames) -> Iterator[Frames]:
    """The messages of a bundle; one that breaks off is itself given at last."""
    try:
        for message in bundles.unpack(bytes(bundle[1])):
            yield [frame for frame in message if frame is not None]
    except ProtocolError:
        yield bundle  # the core says what it thinks of it
