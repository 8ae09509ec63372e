"""Many plain sockets in one process: what `bench.scale` has on both sides of the broker.

Which sockets have something is asked of the system (epoll) and not of each of them: polling thousands would
be what is measured. A socket takes two files, so the system's limit says how many a process may have.
"""

from __future__ import annotations

import resource
import select
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, Final

import msgspec
import zmq
from zmq.backend import Socket as BaseSocket

from voicebus.common import wire
from voicebus.common.messages import Admin, Failed, Submit, decode, encode

FILES_PER_SOCKET: Final = 2
SPARE_FILES: Final = 300
WAIT_S: Final = 120.0
PING_EVERY_S: Final = 2.0
CHUNK: Final = 1000
"""How many jobs are submitted at once before their ACCEPTED are read."""
TEXT: Final = b"The ferry leaves the northern harbour at a quarter past nine."
SUBMIT: Final = encode(Submit("tone", "amber", "en", characters=len(TEXT)))
_NOBLOCK: Final = int(zmq.NOBLOCK)


def raise_file_limit() -> int:
    """Take as many open files as the system grants; how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def sockets_per_process() -> int:
    """How many sockets a process may have."""
    return (raise_file_limit() - SPARE_FILES) // FILES_PER_SOCKET


class Peers:
    """Many sockets for one address, and an epoll that knows which of them have something."""

    def __init__(self, address: str, number: int) -> None:
        raise_file_limit()
        self.address = address
        self.context: zmq.Context[Any] = zmq.Context()
        self.context.max_sockets = int(self.context.get(zmq.SOCKET_LIMIT))
        self.epoll = select.epoll()
        self.sockets: list[zmq.Socket[bytes]] = []
        self._by_file: dict[int, int] = {}
        self._receive: list[Any] = []
        for index in range(number):
            socket = self.context.socket(zmq.DEALER)
            socket.linger = 0
            file = int(socket.getsockopt(zmq.FD))
            self._by_file[file] = index
            self.sockets.append(socket)
            self._receive.append(BaseSocket.recv.__get__(socket))
            self.epoll.register(file, select.EPOLLIN)

    def connect(self, index: int) -> None:
        """Have a socket connect, in its own time; what is sent at once waits for that."""
        self.sockets[index].connect(self.address)

    def send(self, index: int, *frames: bytes) -> None:
        """Send a message. A full peer is an error: nothing here sends as much."""
        self.sockets[index].send_multipart(frames, _NOBLOCK)

    def received(self, index: int) -> Iterator[list[bytes]]:
        """All messages that have come for one socket. To be called after it has sent, too.

        The file tells of a change once, and a send may take note of it as well as a receive.
        """
        receive, socket = self._receive[index], self.sockets[index]
        while True:
            try:
                frames = [receive(_NOBLOCK)]
            except zmq.Again:
                return
            while socket.getsockopt(zmq.RCVMORE):
                frames.append(receive(_NOBLOCK))
            yield frames

    def woken(self, timeout_s: float) -> list[int]:
        """Which sockets may have something."""
        found = self.epoll.poll(timeout_s, max(1, len(self.sockets)))
        return [self._by_file[file] for file, _ in found if file in self._by_file]

    def close(self) -> None:
        """Close all."""
        self.epoll.close()
        self.context.destroy(linger=0)


class Clients:
    """Connections that submit jobs and count the answers. `check` raises if the broker is no more."""

    _ids = count(1)

    def __init__(self, frontend: str, number: int, check: Callable[[], None]) -> None:
        self._check = check
        self._peers = Peers(frontend, number)
        for index in range(number):
            self._peers.connect(index)
        self.number = number
        self.submitted = self.accepted = 0
        self.answers: Counter[bytes] = Counter()
        self.failures: Counter[str] = Counter()
        self._ping_at = 0.0
        self._pong_at = 0.0
        self._status: dict[str, Any] = {}

    def __enter__(self) -> Clients:
        return self

    def __exit__(self, *_: object) -> None:
        self._peers.close()

    @property
    def open(self) -> int:
        """Jobs that have not been answered."""
        return self.submitted - len(self.answers)

    def submit(self, index: int, jobs: int) -> None:
        """Send jobs over one connection."""
        for _ in range(jobs):
            self.submitted += 1
            envelope = wire.pack_envelope(wire.SUBMIT, next(self._ids).to_bytes(16, "big"))
            self._peers.send(index, envelope, SUBMIT, TEXT)
        self._take(index)

    def submit_all(self, jobs: int) -> None:
        """Submit over all connections, a part at a time, and wait until all are accepted."""
        share = -(-jobs // self.number)
        left = jobs
        while left:
            for index in range(self.number):
                part = min(share, CHUNK // self.number, left)
                self.submit(index, part)
                left -= part
            self.pump_until(lambda: self.accepted + sum(self.failures.values()) >= self.submitted, "ACCEPTED")

    def pump(self, timeout_s: float = 0.01) -> None:
        """Take what has come, and beat where it is time."""
        now = time.monotonic()
        if now >= self._ping_at:
            self._ping_at = now + PING_EVERY_S
            for index in range(self.number):
                self._peers.send(index, wire.pack_envelope(wire.PING))
                self._take(index)
        for index in self._peers.woken(timeout_s):
            self._take(index)

    def pump_until(self, condition: Callable[[], bool], what: str, timeout_s: float = WAIT_S) -> float:
        """Pump until something holds; the seconds that took. Raises `TimeoutError`."""
        begun = time.monotonic()
        while not condition():
            self._check()
            if time.monotonic() - begun > timeout_s:
                raise TimeoutError(f"{what} did not come within {timeout_s:g} s: {dict(self.failures)}")
            self.pump()
        return time.monotonic() - begun

    def pump_for(self, seconds: float) -> None:
        """Pump for a while."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.pump(0.05)

    def ping_s(self) -> float:
        """The time a PING over the first connection takes."""
        self._pong_at = 0.0
        begun = time.monotonic()
        self._peers.send(0, wire.pack_envelope(wire.PING, sequence=1))
        self._take(0)
        self.pump_until(lambda: self._pong_at > 0, "a PONG")
        return self._pong_at - begun

    def workers(self) -> int:
        """How many workers the broker has."""
        self._status = {}
        self._peers.send(0, wire.pack_envelope(wire.ADMIN), encode(Admin("status")))
        self._take(0)
        self.pump_until(lambda: bool(self._status), "the status")
        return sum(int(engine["workers"]) for engine in self._status["engines"].values())

    def flow(self, jobs: int, window: int) -> float:
        """Pass so many jobs over the first connection, `window` at once; the seconds that took."""
        last = self.submitted + jobs

        def over() -> bool:
            self.submit(0, min(window - self.open, last - self.submitted))
            # Answers may have come while the last ones were sent: that none is open is not enough.
            return self.submitted >= last and not self.open

        return self.pump_until(over, f"the answers to {jobs:,} jobs")

    def _take(self, index: int) -> None:
        for frames in self._peers.received(index):
            kind = frames[0][3]
            if kind == wire.ACCEPTED:
                self.accepted += 1
            elif kind == wire.DONE:
                self.answers[frames[0][4:20]] += 1
            elif kind == wire.FAILED:
                self.answers[frames[0][4:20]] += 1
                self.failures[decode(frames[1], Failed).code] += 1
            elif kind == wire.PONG and frames[0][27]:
                self._pong_at = time.monotonic()
            elif kind == wire.ADMIN:
                self._status = msgspec.msgpack.decode(frames[2], type=dict[str, Any])
