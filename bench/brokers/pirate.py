"""The Paranoid Pirate queue: the reliable broker of ZeroMQ's guide, in the way most people write it.

Two ROUTERs, a queue of ready workers in the order in which they became so, heartbeats both ways. A worker
holds one request; clients are read only while a worker is ready. Every message is polled for and read as a
list. Written from the pattern's description for this comparison; it is the shape of broker that a project
has before it needs more. A request whose worker dies is lost: in the pattern its client asks again.

Clients send [1 or 2 frames]; workers get [client][these frames] and answer so. 0x01 alone, with the number of
requests the worker would hold behind it, says ready; 0x02 alone is a beat.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

import zmq

ANY_PORT: Final = "tcp://127.0.0.1:*"
BEAT_S: Final = 1.0
LIVENESS: Final = 3
READY: Final = b"\x01"
BEAT: Final = b"\x02"


class Queue:
    """Workers that are ready, each with the time until which it is believed to live."""

    def __init__(self) -> None:
        self._until: OrderedDict[bytes, float] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._until)

    def ready(self, worker: bytes, now: float) -> None:
        """It can take a request: the last in the row."""
        self._until.pop(worker, None)
        self._until[worker] = now + BEAT_S * LIVENESS

    def alive(self, worker: bytes, now: float) -> None:
        """It beat. That says nothing of a busy one, which is not in the row."""
        if worker in self._until:
            self._until[worker] = now + BEAT_S * LIVENESS

    def next(self) -> bytes:
        """Take the one who has waited longest."""
        return self._until.popitem(last=False)[0]

    def purge(self, now: float) -> None:
        """Forget those that have not been heard for too long."""
        for worker in [worker for worker, until in self._until.items() if until < now]:
            del self._until[worker]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._until)


def run(frontend: zmq.Socket[bytes], backend: zmq.Socket[bytes]) -> None:
    """Queue for ever."""
    queue = Queue()
    workers_only, both = zmq.Poller(), zmq.Poller()
    workers_only.register(backend, zmq.POLLIN)
    both.register(backend, zmq.POLLIN)
    both.register(frontend, zmq.POLLIN)
    next_beat = time.monotonic() + BEAT_S
    while True:
        poller = both if queue else workers_only
        events = dict(poller.poll(int(BEAT_S * 1000)))
        now = time.monotonic()
        if backend in events:
            worker, *frames = backend.recv_multipart()
            if len(frames) > 1:
                frontend.send_multipart(frames)
                queue.ready(worker, now)
            elif frames[0].startswith(READY):
                queue.ready(worker, now)
            else:
                queue.alive(worker, now)
        if frontend in events:
            backend.send_multipart([queue.next(), *frontend.recv_multipart()])
        if now >= next_beat:
            for worker in queue:
                backend.send_multipart([worker, BEAT])
            next_beat = now + BEAT_S
        queue.purge(now)


def main() -> None:
    """Bind, say where, and queue."""
    context = zmq.Context()
    frontend, backend = context.socket(zmq.ROUTER), context.socket(zmq.ROUTER)
    addresses: list[str] = []
    for socket in (frontend, backend):
        socket.bind(ANY_PORT)
        addresses.append(socket.getsockopt_string(zmq.LAST_ENDPOINT))
    print(f"ready frontend={addresses[0]} backend={addresses[1]}", flush=True)
    run(frontend, backend)


if __name__ == "__main__":
    main()
