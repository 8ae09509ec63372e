"""What every simulated process has: a name, a clock that stops with it, an inbox, and connections.

A process does nothing by itself. Something arrives or a deadline comes, it gets a turn, and in that turn it
reads everything that has come, as the real loops do. One that is paused gets no turn while its inbox fills
and time passes; one that is down hears nothing.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tests.sim.network import Connection, Frames, Port, Socket
    from tests.sim.world import World

SOONEST_S: Final = 0.0005
"""A loop sleeps a millisecond at least, so that it does not spin towards a deadline."""


class Process:
    """Base of brokers, agents and clients."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.ports: list[Port] = []
        self.up = False
        self.lives = 0
        self.paused = False
        self.inbox: deque[tuple[Connection, Frames]] = deque()
        self._lag_s = 0.0
        self._lagging = False
        self._timer_at = inf

    # ---- what the others define

    def boot(self) -> None:
        """Start from nothing but what is on the disk."""
        raise NotImplementedError

    def turn(self) -> None:
        """Read what has come, do what is due, send."""
        raise NotImplementedError

    def die(self) -> None:
        """Lose everything that was only in memory."""
        raise NotImplementedError

    def open_sockets(self) -> list[Socket]:
        """The sockets it dials with."""
        return []

    def disconnected(self, socket: Socket) -> None:
        """Hear from the transport that a connection broke; most do not listen."""

    # ---- life

    def start(self) -> None:
        """Begin a new life."""
        if self.up:
            return
        self.up, self.paused = True, False
        self.lives += 1
        self._lag_s = self.world.dice.choice((0.0, 0.0, 0.0, 0.002))
        if self.world.tracing:
            self.world.note(f"{self.name} starts, life {self.lives}")
        self.boot()

    def crash(self, *, silently: bool = False) -> None:
        """Die at once. `silently`: the machine went, so nobody is told that the connections have ended."""
        if not self.up:
            return
        if self.world.tracing:
            self.world.note(f"! {self.name} dies")
        network = self.world.network
        for connection in network.connections_of(self):
            if silently:
                connection.up.holds = connection.down.holds = True
            else:
                connection.cut()
        self.ended()
        self.die()

    def ended(self) -> None:
        """Be no more, whatever the reason."""
        self.up = self._lagging = False
        self.inbox.clear()
        self._timer_at = inf
        for port in self.ports:
            port.listens = False
            port.connections.clear()

    def pause(self, seconds: float) -> None:
        """Get no turn for a while."""
        if self.up and not self.paused:
            self.paused = True
            self.world.schedule.after(seconds, self.resume, self.lives)

    def resume(self, life: int | None = None) -> None:
        """Go on."""
        if self.paused and life in (None, self.lives):
            self.paused = False
            if self.up:
                self.turn()

    # ---- turns

    def arrive(self, connection: Connection, frames: Frames) -> None:
        """Take a message from the network."""
        if self.up:
            self.inbox.append((connection, frames))
            self.wake()

    def wake(self) -> None:
        """Get a turn, at once or a little later together with what comes meanwhile."""
        if not self.up or self.paused:
            return
        if not self._lag_s:
            self.turn()
        elif not self._lagging:
            self._lagging = True
            self.world.schedule.after(self._lag_s, self._lagged, self.lives)

    def _lagged(self, life: int) -> None:
        if life == self.lives and self._lagging:
            self._lagging = False
            if self.up and not self.paused:
                self.turn()

    def arm(self, deadline: float) -> None:
        """Get a turn at a time, unless an earlier one comes first (which arms anew)."""
        if deadline < self._timer_at:
            at = self._timer_at = max(deadline, self.world.schedule.now + SOONEST_S)
            self.world.schedule.at(at, self._timer, at)

    def _timer(self, at: float) -> None:
        if at == self._timer_at:
            self._timer_at = inf
            if self.up and not self.paused:
                self.turn()

    def read(self) -> tuple[Connection, Frames]:
        """Take the oldest message out of the inbox, which makes room in its connection."""
        connection, frames = self.inbox.popleft()
        connection.down.unread -= 1
        return connection, frames
