"""The engine process's end of its link to the agent.

Jobs come down, audio goes up. While an engine speaks, the link is looked at between its parts: a CANCEL stops
the job it names, GOODBYE stops all, and a job that arrives meanwhile waits here for its turn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from typing import Final

import zmq

from ..common import bundles, wire
from ..common.errors import Cancelled, ProtocolError
from ..common.wire import COPY_BELOW_BYTES
from .actions import Frames

BUNDLED_BYTES: Final = 64 * 1024
"""Below, a copy is cheaper than another wake-up of the agent."""
SEND_AHEAD: Final = 64
"""Messages that may wait for the agent; more, and the engine waits (at most 16 MiB of audio)."""


class AgentLink:
    """A PAIR to the agent. A job goes by its key: id and attempt, as they stand in the envelope."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], address: str) -> None:
        self._socket = context.socket(zmq.PAIR)
        self._socket.linger = 1000
        self._socket.sndhwm = SEND_AHEAD
        self._socket.maxmsgsize = wire.MAX_FRAME_BYTES
        self._socket.connect(address)
        self._waiting: deque[Frames] = deque()
        self._open: set[bytes] = set()
        self._cancelled: set[bytes] = set()
        self.leaving = False

    def receive(self, timeout_ms: int | None = None) -> Frames:
        """Wait for the next message of any kind; an empty list when none came in time."""
        if not self._socket.poll(timeout_ms):
            return []
        return self._socket.recv_multipart()

    def take(self, timeout_ms: int | None) -> Frames | None:
        """Wait for the next JOB; None when none came in time, or none is to come any more."""
        while not self._waiting:
            if self.leaving:
                return None
            frames = self.receive(timeout_ms)
            if not frames:
                return None
            self._note(frames)
        return self._waiting.popleft()

    def check(self, key: bytes) -> None:
        """Take what has arrived; raise `Cancelled` if this job is to stop."""
        if self.stopped((key,)):
            raise Cancelled("the job was cancelled")

    def stopped(self, keys: Collection[bytes]) -> set[bytes]:
        """Take what has arrived; return which of these jobs are to stop."""
        while True:
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            self._note(frames)
        return set(keys) if self.leaving else self._cancelled.intersection(keys)

    def _note(self, frames: Frames) -> None:
        kind, key = frames[0][3], frames[0][4:22]
        if kind == wire.JOB:
            self._open.add(key)
            self._waiting.append(frames)
        elif kind == wire.CANCEL:
            if key in self._open:  # else it crossed the job's end, and needs no answer
                self._cancelled.add(key)
        elif kind == wire.GOODBYE:
            self.leaving = True
        else:
            raise ProtocolError(f"the agent sent kind {kind:#04x}")

    def send(self, *messages: Frames) -> None:
        """Send, waiting for room; a job that is cancelled meanwhile raises `Cancelled` at a CHUNK.

        Several messages leave as one if they fit: the agent is then woken once, and has them side by side.
        """
        last = messages[-1][0]
        if last[3] in (wire.DONE, wire.FAILED):
            self._open.discard(last[4:22])
            self._cancelled.discard(last[4:22])
        if len(messages) > 1 and sum(len(frame) for frames in messages for frame in frames) < BUNDLED_BYTES:
            messages = tuple(list(bundle) for bundle in bundles.pack(messages))
        for frames in messages:
            self._send(frames)

    def _send(self, frames: Frames) -> None:
        while True:
            try:
                # The first part finds room for the whole message or fails.
                last = len(frames) - 1
                for place, frame in enumerate(frames):
                    flags = zmq.NOBLOCK | (zmq.SNDMORE if place < last else 0)
                    self._socket.send(frame, flags, copy=len(frame) < COPY_BELOW_BYTES)
            except zmq.Again:
                if frames[0][3] == wire.CHUNK:
                    self.check(frames[0][4:22])
                self._socket.poll(100, zmq.POLLOUT)
            else:
                return

    def close(self) -> None:
        """Close; what was sent still goes out, for a second."""
        self._socket.close()
