"""Makes the captured conversations anew: real clients and workers, a real broker, and a tap between them.

    python -m tests.fuzz.capture

The tap is a ROUTER where peers connect, and a DEALER to the broker for each of them, so the broker sees the
connections that it would see. Audio is cut short in what is kept: how much there was matters to nobody.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Any, Final

import msgpack
import zmq

from tests.fuzz.target import CORPUS
from voicebus.client import Client
from voicebus.client.launch import Bus, WorkerPlan, worker_command
from voicebus.client.processes import Child
from voicebus.common import wire
from voicebus.common.errors import BusError

mp: Any = msgpack
FOLDER: Final = CORPUS / "conversations"
KEPT_PCM_BYTES: Final = 64
MOST_MESSAGES: Final = 60
FROM_CLIENT, FROM_WORKER, TO_CLIENT, TO_WORKER = range(4)
Message = tuple[int, int, int, list[bytes]]
"""(ms since the beginning, way, number of the peer, frames)"""


class Tap:
    """Passes messages between peers and one side of a broker, and keeps them."""

    def __init__(self, upstream: str, ways: tuple[int, int]) -> None:
        self.heard: list[Message] = []
        self._ways = ways
        self._upstream = upstream
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._front = self._context.socket(zmq.ROUTER)
        self._front.bind("tcp://127.0.0.1:*")
        self.endpoint = self._front.get_string(zmq.LAST_ENDPOINT)
        self._began = time.monotonic()
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        peers: dict[bytes, zmq.Socket[bytes]] = {}
        poller = zmq.Poller()
        poller.register(self._front, zmq.POLLIN)
        while not self._ends.is_set():
            ready = dict(poller.poll(50))
            if self._front in ready:
                peer, *frames = self._front.recv_multipart()
                if peer not in peers:
                    peers[peer] = back = self._context.socket(zmq.DEALER)
                    back.linger = 0
                    back.connect(self._upstream)
                    poller.register(back, zmq.POLLIN)
                self._keep(self._ways[0], [*peers].index(peer), frames)
                peers[peer].send_multipart(frames)
            for number, (peer, back) in enumerate(peers.items()):
                if back in ready:
                    frames = back.recv_multipart()
                    self._keep(self._ways[1], number, frames)
                    self._front.send_multipart([peer, *frames])
        for back in peers.values():
            back.close(0)
        self._front.close(0)
        self._context.term()

    def _keep(self, way: int, number: int, frames: list[bytes]) -> None:
        if len(self.heard) < MOST_MESSAGES:
            at_ms = int((time.monotonic() - self._began) * 1000)
            short = [
                frame[:KEPT_PCM_BYTES] if len(frame) > 400 and frames[0][3] != wire.BUNDLE else frame
                for frame in frames
            ]
            self.heard.append((at_ms, way, number, short))

    def close(self) -> None:
        """End the thread."""
        self._ends.set()
        self._thread.join()


@contextmanager
def tapped() -> Generator[tuple[Bus, Tap, Tap, Child]]:
    """A bus whose clients and whose only worker talk through taps."""
    with Bus(engines={}) as bus:
        clients, workers = (
            Tap(bus.frontend, (FROM_CLIENT, TO_CLIENT)),
            Tap(bus.backend, (FROM_WORKER, TO_WORKER)),
        )
        plan = WorkerPlan(
            "tone", "tone-0", ("--slots", "2", "--set=sample_rate=8000", "--set=seconds_per_char=0.01")
        )
        worker = Child(
            "worker",
            worker_command(plan, workers.endpoint, ("--config", str(bus.config_file))),
            "vc-worker ready",
        )
        try:
            worker.wait_ready(60)
            yield bus, clients, workers, worker
        finally:
            worker.end(10)
            clients.close()
            workers.close()


def speak(client: Client) -> None:
    """Texts at once, as they come, and one that is stopped."""
    client.say("One. Two.", engine="tone")
    list(client.stream("Three, four.", engine="tone"))
    job = client.submit("Nobody hears this.", engine="tone")
    job.cancel()
    with suppress(BusError):
        job.result(5)


def keep(client: Client) -> None:
    """A durable job, fetched, and asked about."""
    job = client.submit("Keep this.", engine="tone", durable=True)
    job.result(10)
    other = client.job(job.id)
    with suppress(BusError):
        other.result(10)
    client.status()
    client.jobs()


def fail(client: Client) -> None:
    """What is refused, and what fails."""
    for engine, options in (("none", {}), ("tone", {"unknown": 1})):
        with suppress(BusError):
            client.say("This fails.", engine=engine, options=options, deadline_s=2)
    client.drain("tone-0")


def main() -> None:
    """See the module."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, play in (("speak", speak), ("keep", keep), ("fail", fail)):
        with tapped() as (_, clients, workers, _worker), Client(clients.endpoint) as client:
            play(client)
        heard = sorted([*clients.heard, *workers.heard], key=lambda message: message[0])
        (FOLDER / name).write_bytes(mp.packb([list(message) for message in heard]))
        print(f"{name}: {len(heard)} messages, {(FOLDER / name).stat().st_size:,} bytes")


def conversations() -> dict[str, list[Message]]:
    """Those that were kept, by name."""
    found: dict[str, list[Message]] = {}
    for file in sorted(FOLDER.glob("*")):
        rows: list[Any] = mp.unpackb(file.read_bytes())
        found[file.name] = [(at, way, peer, frames) for at, way, peer, frames in rows]
    return found


if __name__ == "__main__":
    main()
