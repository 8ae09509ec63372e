"""The auditor of durable jobs: when all is over, every one that was ever promised is fetched from its broker.

It speaks FETCH as docs/protocol.md has it, from connections nobody has seen before, page by page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tests.sim.network import Connection, Frames, Socket
from tests.sim.process import Process
from voicebus.common import wire
from voicebus.common.messages import Failed, decode

if TYPE_CHECKING:
    from tests.sim.brokers import Broker
    from tests.sim.world import World

ANSWER_S: Final = 30.0


class Prober(Process):
    """Fetches one job at a time."""

    def __init__(self, world: World) -> None:
        super().__init__(world, "prober")
        self.up = True
        self._heard: list[Frames] = []

    def arrive(self, connection: Connection, frames: Frames) -> None:
        connection.down.unread -= 1
        self._heard.append(frames)

    def run(self) -> None:
        """Fetch everything that was promised."""
        for broker in self.world.brokers:
            jobs = self.world.accounts.promised.get(broker.index)
            if jobs:
                socket = Socket(self.world.network, self, 0, broker.frontend)
                # A promise may still be on its way while these are asked for.
                for job in list(jobs):
                    self._fetch(broker, socket, job)
                socket.close(flush=True)

    def _fetch(self, broker: Broker, socket: Socket, job: bytes) -> None:
        audio = b""
        first = 0
        while True:
            answer = self._ask(socket, job, first)
            for frames in answer:
                kind = frames[0][3]
                if kind == wire.CHUNK:
                    if int.from_bytes(frames[0][24:28]) != first:
                        self.world.accounts.wrong(f"{broker.name} skips chunks of {job.hex()[-6:]}")
                    audio += frames[1]
                    first += 1
                elif kind == wire.DONE:
                    self.world.accounts.fetched(broker, job, "", audio)
                    return
                elif kind == wire.FAILED:
                    self.world.accounts.fetched(broker, job, decode(frames[1], Failed).code, b"")
                    return
            if not answer or answer[-1][0][3] != wire.CHUNK:
                self.world.accounts.wrong(f"{broker.name} does not answer a FETCH of {job.hex()[-6:]}")
                return

    def _ask(self, socket: Socket, job: bytes, first: int) -> list[Frames]:
        """One page: it ends with DONE, FAILED, or as many chunks as a page has."""
        schedule = self.world.schedule
        self._heard = []
        socket.send((wire.pack_envelope(wire.FETCH, job, sequence=first),))
        until = schedule.now + ANSWER_S
        while schedule.now < until:
            schedule.run(schedule.now + 0.05)
            chunks = sum(frames[0][3] == wire.CHUNK for frames in self._heard)
            if chunks >= wire.FETCH_CHUNKS or any(
                frames[0][3] in (wire.DONE, wire.FAILED) for frames in self._heard
            ):
                return [frames for frames in self._heard if frames[0][4:20] == job]
        return self._heard
