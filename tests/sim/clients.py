"""A client: the real client core, driven as `client/link.py` drives it, and the callers behind it.

The transport tells this process when a connection breaks, as ZeroMQ's monitor does; what had arrived before
is read first. A client that crashes takes the jobs nobody wrote down with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.sim.accounts import Record
from tests.sim.network import Connection, Frames, Socket, tell
from tests.sim.process import Process
from voicebus.client.brokers import LineState
from voicebus.client.core import ClientCore
from voicebus.common import wire

if TYPE_CHECKING:
    from tests.sim.world import World


class Client(Process):
    """One client process, in this life or the next."""

    core: ClientCore

    def __init__(self, world: World, index: int) -> None:
        super().__init__(world, f"client{index}")
        self._sockets: dict[int, Socket] = {}
        self._broken: list[Socket] = []
        self._open: dict[int, Record] = {}
        "Records of tasks that have not ended, by their numbers."

    def boot(self) -> None:
        self.core = ClientCore(
            [broker.name for broker in self.world.brokers],
            random=self.world.dice.random, new_id=lambda: self.world.dice.randbytes(16),
        )  # fmt: skip
        self.core.open(self.world.schedule.now)
        self._flush()
        self.turn()

    def die(self) -> None:
        for socket in self._sockets.values():
            socket.closed = True
        self._sockets.clear()
        self._broken.clear()
        for record in self._open.values():
            self.world.accounts.void(record)
        self._open.clear()

    def open_sockets(self) -> list[Socket]:
        return list(self._sockets.values())

    # ---- callers

    def submit(self, record: Record) -> None:
        """Take a job from a caller; one that finds no process waits until there is one."""
        if not self.up or self.paused:
            self.world.schedule.after(0.5, self.submit, record)
            return
        now = self.world.schedule.now
        task = record.make_task(self.world.dice.randbytes(16), now)
        self._open[record.number] = record
        if self.world.tracing:
            self.world.note(f"{self.name} submits {task.job.hex()[-6:]} {record.describe()}")
        self.core.submit(task, now)
        for after_s, call in ((record.cancel_after_s, self._cancel), (record.listen_after_s, self._listen)):
            if after_s is not None:
                self.world.schedule.after(after_s, call, record)
        self._flush()
        self.turn()

    def _cancel(self, record: Record) -> None:
        if self._has(record):
            record.cancelled = True
            self.core.cancel(record.task)
            self._flush()
            self.turn()

    def _listen(self, record: Record) -> None:
        if self._has(record):
            record.listens = True
            self.core.listen(record.task)
            self._flush()
            self.turn()

    def _has(self, record: Record) -> bool:
        return self.up and not self.paused and self._open.get(record.number) is record

    # ---- the link

    def disconnected(self, socket: Socket) -> None:
        if self._sockets.get(socket.line) is socket:
            self._broken.append(socket)
            self.wake()

    def turn(self) -> None:
        core, now = self.core, self.world.schedule.now
        while self.inbox:
            self._hear(*self.read(), now)
        for socket in self._broken:
            if self._sockets.get(socket.line) is socket:
                core.disconnected(core.lines[socket.line], now)
        self._broken.clear()
        core.tick(now)
        self._flush()
        self.world.check(core.check_invariants)
        self.arm(core.next_deadline())

    def _hear(self, connection: Connection, frames: Frames, now: float) -> None:
        socket = connection.socket
        if self._sockets.get(socket.line) is not socket:
            return
        if self.world.tracing:
            self.world.note(f"{self.name} < {connection.port.owner.name} {tell(frames)}")
        envelope = frames[0]
        header = payload = None
        if envelope[3] == wire.CHUNK:
            payload = frames[1]
        elif len(frames) > 1:
            header = frames[1]
            payload = frames[2] if len(frames) > 2 else None
        self.core.receive(self.core.lines[socket.line], envelope, header, payload, now)

    def _flush(self) -> None:
        core = self.core
        for line in core.lines:
            if line.hang_up or line.dial:
                old = self._sockets.pop(line.number, None)
                if old is not None:
                    old.close(flush=False)
                line.hang_up = False
                if line.dial:
                    port = self.world.brokers[line.number].frontend
                    self._sockets[line.number] = Socket(self.world.network, self, line.number, port)
                    line.dial = False
            socket = self._sockets.get(line.number)
            if socket is not None and line.out:
                for frames in line.out:
                    socket.send(frames)
                line.out.clear()
        for task in core.touched:
            record = task.tag
            if isinstance(record, Record):
                self.world.accounts.touched(record, self.world.schedule.now)
                if task.ended:
                    self._open.pop(record.number, None)
        core.touched.clear()

    @property
    def is_connected(self) -> bool:
        """Whether any broker answers."""
        return any(line.state is LineState.UP for line in self.core.lines)
