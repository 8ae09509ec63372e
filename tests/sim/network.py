"""A network of ordered connections that break, stall, fall silent and lie about being alive.

What TCP and ZeroMQ promise is kept: within a connection messages arrive in order, and if one is lost, all
after it are lost too and the connection ends. A socket that dials (a DEALER) keeps what it is given until it
is connected, and dials until it is closed. A socket that listens (a ROUTER) makes a new routing id for each
connection and learns that a peer has gone when the network tells it, which may be late or never.

Message faults go further where the protocol does: a lost PING or SUBMIT is made good, so those are also lost
alone; messages that are idempotent by the protocol are repeated; what an ended attempt said is said again.
A chunk that vanishes from the middle of a living connection is no fault any transport of the bus can show.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import TYPE_CHECKING, Any, Final

from voicebus.common import wire

if TYPE_CHECKING:
    from tests.sim.process import Process
    from tests.sim.world import World

Frames = tuple[Any, ...]


class Replayed(tuple[Any, ...]):
    """Frames that came once before. If their attempt has not ended where they arrive, they are ignored."""

    __slots__ = ()


LOST_ALONE: Final = {
    "client up": frozenset({wire.SUBMIT, wire.PING, wire.CANCEL}),
    "client down": frozenset({wire.PONG, wire.ACCEPTED}),
    "worker up": frozenset({wire.HEARTBEAT}),
    "worker down": frozenset({wire.HEARTBEAT}),
}
"""What may vanish while its connection lives; any other loss takes the connection with it."""
REPEATED: Final = {
    "client up": frozenset({wire.SUBMIT, wire.PING, wire.CANCEL}),
    "client down": frozenset({wire.PONG, wire.ACCEPTED, wire.CHUNK, wire.DONE}),
    "worker up": frozenset({wire.HEARTBEAT, wire.READY, wire.DONE, wire.FAILED, wire.RETURN}),
    "worker down": frozenset({wire.HEARTBEAT, wire.CANCEL, wire.WELCOME, wire.REREGISTER}),
}
REPLAYED: Final = frozenset({wire.STARTED, wire.CHUNK, wire.DONE, wire.FAILED, wire.RETURN})
"""What a worker said of an attempt may come once more, long after that attempt has ended."""
REMEMBERED: Final = 64


class Port:
    """One ROUTER: the connections of the peers it knows, by routing id."""

    def __init__(self, owner: Process, side: str) -> None:
        self.owner = owner
        self.side = side
        self.listens = False
        self.connections: dict[bytes, Connection] = {}
        self.taken = 0

    def send(self, message: Frames) -> bool | None:
        """Send behind a routing id: False when that peer is full, None when there is none."""
        connection = self.connections.get(message[0])
        if connection is None:
            return None
        if connection.down.unread >= connection.down.most_unread:
            return False
        connection.down.send(message[1:])
        return True


class Pipe:
    """One direction of a connection."""

    __slots__ = ("connection", "holds", "last_at", "most_unread", "open", "unread", "way")

    def __init__(self, connection: Connection, way: str, most_unread: float) -> None:
        self.connection = connection
        self.way = way
        self.open = True
        self.holds = False
        "Swallows everything: the other end will never know."
        self.last_at = 0.0
        self.unread = 0
        self.most_unread = most_unread

    def send(self, frames: Frames) -> None:
        network = self.connection.network
        network.until_fault -= 1
        if network.until_fault > 0 or not network.mischief(self, frames):
            self.put(frames)

    def put(self, frames: Frames) -> None:
        """Hand a message to the network."""
        self.unread += 1
        if not self.open or self.holds:
            return
        network = self.connection.network
        schedule = network.world.schedule
        at = schedule.now + network.latency_s * (0.5 + network.world.dice.random())
        if at < self.last_at:
            at = self.last_at
        self.last_at = at
        schedule.at(at, self._arrive, frames)

    def _arrive(self, frames: Frames) -> None:
        if not self.open or self.holds:
            return
        connection = self.connection
        if self is connection.up:
            connection.port.owner.arrive(connection, frames)
        else:
            connection.socket.owner.arrive(connection, frames)


class Connection:
    """One TCP connection between a socket that dialled and a port."""

    __slots__ = ("down", "network", "peer", "port", "socket", "up")

    def __init__(self, network: Network, socket: Socket, port: Port, peer: bytes) -> None:
        self.network = network
        self.socket = socket
        self.port = port
        self.peer = peer
        most = network.world.plan.unread_most if port.side == "client" else inf
        self.up = Pipe(self, f"{port.side} up", inf)
        self.down = Pipe(self, f"{port.side} down", most)

    def cut(self) -> None:
        """Break it now; both ends hear of it a little later."""
        self.up.open = self.down.open = False
        world = self.network.world
        world.schedule.after(world.soon(), self.router_hears)
        world.schedule.after(world.soon(), self.socket.broken, self)

    def router_hears(self) -> None:
        """The listening end notices that the connection has gone."""
        self.port.connections.pop(self.peer, None)


class Socket:
    """One DEALER of a process. `line` is its owner's number for the broker at the other end."""

    def __init__(self, network: Network, owner: Process, line: int, port: Port) -> None:
        self.owner = owner
        self.line = line
        self.closed = False
        self._network = network
        self._port = port
        self._connection: Connection | None = None
        self._waiting: deque[Frames] = deque()
        self._pause_s = 0.05
        network.world.schedule.after(network.world.soon(), self._dial)

    @property
    def connection(self) -> Connection | None:
        """The present connection."""
        return self._connection

    def send(self, frames: Frames) -> None:
        """Send, or keep until there is a connection."""
        if self._connection is None:
            self._waiting.append(frames)
        else:
            self._connection.up.send(frames)

    def close(self, *, flush: bool) -> None:
        """End it. With `flush` what was sent still arrives, otherwise perhaps."""
        self.closed = True
        connection, self._connection = self._connection, None
        if connection is None:
            return
        world = self._network.world
        connection.down.open = False
        if not flush and world.dice.random() < 0.5:
            connection.up.open = False
        if not connection.up.holds:
            at = max(connection.up.last_at, world.schedule.now + world.soon())
            world.schedule.at(at, connection.router_hears)

    def broken(self, connection: Connection) -> None:
        """Hear that a connection has gone: dial again, unless the owner closes this socket now."""
        if self.closed or connection is not self._connection:
            return
        self._connection = None
        self._pause_s = 0.05
        self._network.world.schedule.after(self._network.world.dice.random() * 0.1, self._dial)
        self.owner.disconnected(self)

    def _dial(self) -> None:
        if self.closed or self._connection is not None:
            return
        network, port = self._network, self._port
        if not port.listens or network.is_parted(self.owner, port.owner):
            self._pause_s = min(1.0, self._pause_s * 2)
            network.world.schedule.after(self._pause_s, self._dial)
            return
        port.taken += 1
        peer = f"{port.owner.name}{port.side[0]}{port.taken}".encode()
        connection = self._connection = Connection(network, self, port, peer)
        port.connections[peer] = connection
        if network.world.tracing:
            network.world.note(f"{self.owner.name} connects as {peer.decode()}")
        while self._waiting and self._connection is connection:
            connection.up.send(self._waiting.popleft())


class Network:
    """Every connection of a history, and the dice that say which message meets with misfortune."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.latency_s = world.plan.latency_s
        self.until_fault = inf
        self.parted: dict[tuple[str, str], float] = {}
        "(process, broker) → until when no connection comes up between them."
        self._said: dict[str, deque[tuple[Port, int, Frames]]] = {}
        "What each worker said of its attempts, with the broker's life it was said to."
        self.draw_fault()

    def draw_fault(self) -> None:
        """Draw how many messages pass until the next fault."""
        every = self.world.plan.message_fault_every
        self.until_fault = inf
        if every < inf and self.world.striking:
            self.until_fault = 1 + int(self.world.dice.expovariate(1 / every))

    def connections_of(self, process: Process) -> list[Connection]:
        """The connections of a process that it believes in, at whichever end it is."""
        found = [c for port in process.ports for c in port.connections.values()]
        found += [socket.connection for socket in process.open_sockets() if socket.connection is not None]
        return found

    def is_parted(self, a: Process, b: Process) -> bool:
        """Whether the network between two processes is down."""
        until = self.parted.get((a.name, b.name))
        return until is not None and self.world.schedule.now < until

    def remember(self, process: Process, port: Port, frames: Frames) -> None:
        """Keep what a worker said of an attempt, for a replay."""
        said = self._said.setdefault(process.name, deque(maxlen=REMEMBERED))
        said.append((port, port.owner.lives, frames))

    # ---- faults of single messages

    def mischief(self, pipe: Pipe, frames: Frames) -> bool:
        """Let something happen to a message; True if it must not be sent as usual."""
        self.draw_fault()
        world = self.world
        kind = world.dice.choice(("drop", "delay", "duplicate", "replay"))
        if kind == "replay" and pipe.way == "worker up":
            return self._replay(pipe)
        if kind == "duplicate" and frames[0][3] in REPEATED[pipe.way]:
            self._count(kind, pipe, frames)
            pipe.put(frames)
            pipe.put(Replayed(frames))
            return True
        if kind == "drop":
            self._count(kind, pipe, frames)
            if frames[0][3] not in LOST_ALONE[pipe.way]:
                pipe.connection.cut()
            return True
        self._count("delay", pipe, frames)
        pipe.last_at = max(pipe.last_at, world.schedule.now) + world.dice.expovariate(2.0)
        return False

    def _replay(self, pipe: Pipe) -> bool:
        connection = pipe.connection
        said = self._said.get(connection.socket.owner.name, ())
        life = connection.port.owner.lives
        ended = {
            frames[0][4:22]
            for port, lives, frames in said
            if port is connection.port
            and lives == life
            and frames[0][3] in (wire.DONE, wire.FAILED, wire.RETURN)
        }
        old = [frames for port, _, frames in said if port is connection.port and frames[0][4:22] in ended]
        if old:
            frames = self.world.dice.choice(old)
            self._count("replay", pipe, frames)
            pipe.put(Replayed(frames))
        return False

    def _count(self, kind: str, pipe: Pipe, frames: Frames) -> None:
        self.world.struck(kind)
        if self.world.tracing:
            self.world.note(f"! {kind} on {pipe.connection.peer.decode()} {pipe.way}: {tell(frames)}")


def tell(frames: Frames) -> str:
    """A message in one line."""
    kind, job, attempt, flags, sequence, value = wire.unpack_envelope(frames[0])
    name = wire.KIND_NAMES.get(kind, f"0x{kind:02x}")
    return f"{name} {job.hex()[-6:]}/{attempt} flags={flags:x} sequence={sequence} value={value}"
