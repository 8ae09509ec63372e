"""An agent: the real worker core, its actions carried out as `workers/agent.py` does.

The agent and its engines are separate processes. Engines speak on while the agent is stopped, and die with
it. The supervisor starts an agent again, under the same id with a larger incarnation, however it ended.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from tests.sim.engines import Engine
from tests.sim.network import REPLAYED, Socket, tell
from tests.sim.plan import ENGINE
from tests.sim.process import Process
from voicebus.workers.actions import (
    Actions,
    Beat,
    CloseLink,
    Exit,
    Frames,
    KillChild,
    Log,
    OpenLink,
    StartChild,
    ToBroker,
    ToChild,
)
from voicebus.workers.core import WorkerCore

if TYPE_CHECKING:
    from tests.sim.world import World


class Agent(Process):
    """One worker, in this life or the next."""

    core: WorkerCore

    def __init__(self, world: World, index: int) -> None:
        super().__init__(world, f"w{index}")
        self.slots = world.plan.slots[index]
        self.batch = world.plan.batches[index]
        self.engines: dict[int, Engine] = {}
        self._sockets: dict[int, Socket] = {}
        self._heard: deque[tuple[Engine, Frames | str]] = deque()
        "What engines said, or how they ended."

    def boot(self) -> None:
        self.core = WorkerCore(
            self.name, self.lives, ENGINE, [broker.name for broker in self.world.brokers],
            slots=self.slots, timing=self.world.plan.timing, random=self.world.dice.random, strict=True,
        )  # fmt: skip
        out: Actions = []
        self.core.start(out)
        self._carry_out(out)
        self.turn()

    def die(self) -> None:
        for engine in self.engines.values():
            engine.dead = True
        for socket in self._sockets.values():
            socket.closed = True
        self.engines.clear()
        self._sockets.clear()
        self._heard.clear()

    def open_sockets(self) -> list[Socket]:
        return list(self._sockets.values())

    def stop(self, *, at_once: bool) -> None:
        """What a first, or a second, SIGTERM does."""
        if self.up and not self.paused:
            out: Actions = []
            (self.core.stop_now if at_once else self.core.stop)(self.world.schedule.now, out)
            self._carry_out(out)
            self.turn()

    def child_says(self, engine: Engine, frames: Frames) -> None:
        """Take a message from an engine."""
        if self.engines.get(engine.slot) is engine:
            self._heard.append((engine, frames))
            self.wake()

    def child_ended(self, engine: Engine, how: str) -> None:
        """Hear that an engine's process has ended, after its last words."""
        if self.engines.get(engine.slot) is engine:
            self._heard.append((engine, how))
            self.wake()

    def turn(self) -> None:
        core, now = self.core, self.world.schedule.now
        out: Actions = []
        while self.inbox:
            connection, frames = self.read()
            socket = connection.socket
            if self._sockets.get(socket.line) is not socket:
                continue
            if self.world.tracing:
                self.world.note(f"{self.name} < {connection.port.owner.name} {tell(frames)}")
            core.broker_message(socket.line, list(frames), now, out)
            self._carry_out(out)
        while self._heard and self.up:
            engine, said = self._heard.popleft()
            if self.engines.get(engine.slot) is not engine:
                continue
            if isinstance(said, str):
                del self.engines[engine.slot]
                core.child_died(engine.slot, said, now, out)
            else:
                core.child_message(engine.slot, said, now, out)
            self._carry_out(out)
        if self.up:
            core.tick(now, out)
            self._carry_out(out)
        self.world.check(core.check_invariants)
        if self.up:
            self.arm(core.next_deadline())

    def _carry_out(self, out: Actions) -> None:
        for action in out:
            self._do(action)
        out.clear()

    def _do(self, action: Any) -> None:
        match action:
            case ToBroker(line, frames):
                self._send(line, frames)
            case ToChild(slot, frames):
                if slot in self.engines:
                    self.engines[slot].hear(tuple(frames))
            case Beat(line, frames):
                self._sockets[line].send(tuple(frames))
            case Log(_, line):
                if self.world.tracing:
                    self.world.note(f"{self.name} says: {line}")
            case OpenLink(line):
                port = self.world.brokers[line].backend
                self._sockets[line] = Socket(self.world.network, self, line, port)
            case CloseLink(line, flush):
                self._sockets.pop(line).close(flush=flush)
            case StartChild(slot):
                self.engines[slot] = Engine(self, slot)
            case KillChild(slot):
                if slot in self.engines:
                    self.engines[slot].kill("signal 9, SIGKILL")
            case Exit():
                self._exit(action)
            case _:
                raise TypeError(f"no such action: {action!r}")

    def _send(self, line: int, frames: Frames) -> None:
        message = tuple(frames)
        self._sockets[line].send(message)
        if message[0][3] in REPLAYED:
            self.world.network.remember(self, self.world.brokers[line].backend, message)

    def _exit(self, action: Exit) -> None:
        if self.world.tracing:
            self.world.note(f"{self.name} exits: {action.error}")
        if action.error is not None:
            self.world.accounts.exited(self, action.error)
        self.ended()
        self.die()
        self.world.schedule.after(0.2 + self.world.dice.random(), self.start)
