"""The one thread that owns a client's sockets, and the door through which the faces reach it.

Callers only append to a deque; a single byte wakes the thread, and only if nobody has woken it since it last
looked, so a thousand submissions cost one system call. The thread drains what has arrived in bursts of
`DRAIN` messages with the calls of pyzmq's base class (a tenth of the cost of `recv_multipart`), lets the core
think, then sends and wakes sinks once for the whole burst. No send ever blocks: what a full pipe
refuses waits until the socket is writable.

A link belongs to the process that made it: threads do not survive a fork, so a child makes its own client.
"""

from __future__ import annotations

import logging
import os
import random
import socket
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import zmq
from zmq.backend import Socket as BaseSocket

from ..common import bundles, handshake, wire
from ..common.errors import BadRequest, BrokerUnreachable, BusError, ProtocolError
from ..common.signs import Sign, refusal
from ..common.urgency import Urgency
from .brokers import Line
from .core import ClientCore
from .task import Phase, Sink, Task

if TYPE_CHECKING:
    from ..common.keyring import KeyFile

logger = logging.getLogger(__name__)

DRAIN: Final = 256
LINGER_MS: Final = 200
"""At the end, how long CANCELs may take to leave."""
HIGH_WATER: Final = 10_000
NOBLOCK: Final = 1
NOBLOCK_MORE: Final = 3
ID_BLOCK: Final = 64

_BUNDLE: Final = bytes((wire.BUNDLE,))
_FRAMES: Final = {
    kind: 1 + has_header + (has_payload or kind == wire.ADMIN)
    for kind, (has_header, has_payload) in wire.SHAPES.items()
}


class _Wire:
    """A line's socket, with its calls bound once, and its monitor."""

    __slots__ = ("introduced", "monitor", "recv", "send", "socket", "unsent", "waits_for_room")

    def __init__(self, context: zmq.Context[Any], address: str, key: KeyFile | None) -> None:
        sock = context.socket(zmq.DEALER)
        handshake.show_key(sock, key)
        sock.ipv6 = "[" in address
        sock.linger = LINGER_MS
        sock.sndhwm = sock.rcvhwm = HIGH_WATER
        sock.setsockopt(zmq.MAXMSGSIZE, wire.MAX_FRAME_BYTES)
        sock.setsockopt(zmq.RECONNECT_IVL, 50)
        sock.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
        self.socket = sock
        self.monitor = sock.get_monitor_socket(handshake.WATCHED)
        self.recv: Callable[..., Any] = BaseSocket.recv.__get__(sock)
        self.send: Callable[..., Any] = BaseSocket.send.__get__(sock)
        self.waits_for_room = False
        self.unsent: list[Sequence[Any]] = []
        "What did not find room yet."
        self.introduced = False
        "Whether a bundle was sent: then the broker sends bundles too."
        try:
            sock.connect(address)
        except zmq.ZMQError as error:
            self.close(0)
            raise BadRequest(
                f"{address!r} is not a broker's address ({error}): give one like tcp://127.0.0.1:5555"
            ) from None

    def close(self, linger_ms: int) -> None:
        self.socket.disable_monitor()
        self.monitor.close(0)
        self.socket.close(linger_ms)


class Link:
    """Carries tasks to the brokers and their answers back. Thread-safe. `key` is shown to all of them.

    Raises `BadRequest` for an address that ZeroMQ does not understand.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        *,
        key: KeyFile | None = None,
        interval_s: float = 1.0,
        connect_timeout_s: float = 5.0,
    ) -> None:
        if not addresses:
            raise BadRequest("no broker's address was given: give one like tcp://127.0.0.1:5555")
        self._ids: list[bytes] = []
        self._core = ClientCore(
            addresses,
            random=random.random,
            new_id=self.new_id,
            interval_s=interval_s,
            connect_timeout_s=connect_timeout_s,
        )
        self._pid = os.getpid()
        self._key = key
        self._context: zmq.Context[Any] = zmq.Context()
        self._wires: list[_Wire | None] = [None] * len(addresses)
        self._inbox: deque[Task] = deque()
        self._orders: deque[tuple[Callable[[Task], None], Task]] = deque()
        self._bell_in, self._bell_out = socket.socketpair()
        self._bell_in.setblocking(False)
        self._bell_out.setblocking(False)
        self._rung = False
        self._rewire = False
        self._closing = False
        self._failure: BusError | None = None
        self._core.open(monotonic())
        try:
            for line in self._core.lines:
                self._dial(line)
        except BadRequest:
            self._hang_up_all(0)
            raise
        self._thread = threading.Thread(target=self._run, name="voicebus-client", daemon=True)
        self._thread.start()

    # -- any thread ---------------------------------------------------------------------------------

    def new_id(self) -> bytes:
        """Make a job id: 16 random bytes, drawn from the system in blocks."""
        try:
            return self._ids.pop()
        except IndexError:
            block = os.urandom(ID_BLOCK * wire.JOB_ID_BYTES)
            size = wire.JOB_ID_BYTES
            fresh = [block[at : at + size] for at in range(0, len(block), size)]
            # Two threads may both come here; each then leaves with an id of its own block.
            made = fresh.pop()
            self._ids = fresh
            return made

    def submit(self, *tasks: Task) -> None:
        """Hand tasks to the thread. Raises `BadRequest` on a closed or forked client."""
        if self._closing or os.getpid() != self._pid:
            raise self._refusal()
        self._inbox.extend(tasks)
        if not self._rung:
            self._ring()
        if self._closing:
            # The thread may have looked into the inbox for the last time just before.
            self._reject()

    def cancel(self, task: Task) -> None:
        """End a task as cancelled, and its job, unless it has ended already."""
        self._order(self._core.cancel, task)

    def leave(self, task: Task) -> None:
        """Wait for a task no longer: a durable job goes on, any other is cancelled."""
        self._order(self._core.leave, task)

    def listen(self, task: Task) -> None:
        """Have this task's audio delivered to `task.heard` from now on."""
        self._order(self._core.listen, task)

    def close(self) -> None:
        """Cancel what is not durable, close the sockets and end the thread. Idempotent and quick."""
        if self._closing:
            return
        self._closing = True
        if os.getpid() == self._pid:
            self._ring()
            if threading.current_thread() is not self._thread:
                self._thread.join()

    def _order(self, call: Callable[[Task], None], task: Task) -> None:
        if self._closing or os.getpid() != self._pid:
            return
        self._orders.append((call, task))
        if not self._rung:
            self._ring()

    def _ring(self) -> None:
        self._rung = True
        # Full or closed: either way the thread is awake or gone.
        with suppress(OSError):
            self._bell_out.send(b"\0")

    def _refusal(self) -> BusError:
        if self._failure is not None:
            return self._failure
        if os.getpid() != self._pid:
            return BadRequest("this client was made before the process forked: make a new one in the child")
        return BadRequest("this client is closed: make a new one")

    def _reject(self) -> None:
        refused: list[Task] = []
        with suppress(IndexError):
            while True:
                task = self._inbox.popleft()
                task.error = self._refusal()
                task.phase = Phase.ENDED
                refused.append(task)
        wake(refused)

    # -- the thread ---------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            urgency = Urgency(os.getpriority(os.PRIO_PROCESS, 0), thread_only=True)
            while not self._closing:
                self._turn(urgency)
        except Exception as error:
            logger.exception("the client's I/O thread failed")
            self._failure = BrokerUnreachable(
                f"the client's I/O thread failed ({error!r}): make a new client"
            )
            self._closing = True
        finally:
            self._finish()

    def _turn(self, urgency: Urgency) -> None:
        """Go round until the set of sockets, or what is waited for on them, changes."""
        core = self._core
        poller = zmq.Poller()
        poller.register(self._bell_in, zmq.POLLIN)
        open_lines: list[tuple[Line, _Wire]] = []
        for line in core.lines:
            connection = self._wires[line.number]
            if connection is not None:
                events = zmq.POLLIN | zmq.POLLOUT if connection.waits_for_room else zmq.POLLIN
                poller.register(connection.socket, events)
                poller.register(connection.monitor, zmq.POLLIN)
                open_lines.append((line, connection))
        bell = self._bell_in.fileno()
        self._rewire = False
        while not (self._closing or self._rewire):
            left_s = core.next_deadline() - monotonic()
            ready = dict(poller.poll(None if left_s == inf else max(0, int(left_s * 1000) + 1)))
            now = monotonic()
            # The byte may come after its flag was seen and cleared: it must be read all the same.
            if self._rung or bell in ready:
                self._take_orders(now)
            for line, connection in open_lines:
                if connection.socket in ready:
                    self._drain(line, connection, now)
                if connection.monitor in ready:
                    self._note_signs(line, connection, now)
            core.tick(now)
            self._flush()
            urgency.prefer(patient=bool(core.tasks) and not core.urgent)

    def _note_signs(self, line: Line, connection: _Wire, now: float) -> None:
        """Tell the core what became of a connection."""
        for sign in handshake.signs(connection.monitor):
            if sign is Sign.LOST:
                # What came before the break is still to be read: the socket is dropped next.
                while self._drain(line, connection, now):
                    pass
                self._core.disconnected(line, now)
            elif sign is Sign.CUT_SHORT:
                line.cut_short += 1
            else:
                self._core.refused(line, refusal(sign, line.address, self._key), now)

    def _take_orders(self, now: float) -> None:
        with suppress(OSError):
            self._bell_in.recv(64)
        # Cleared before the deques are read: whoever appends after that rings again.
        self._rung = False
        inbox, submit = self._inbox, self._core.submit
        while inbox:
            submit(inbox.popleft(), now)
        orders = self._orders
        while orders:
            call, task = orders.popleft()
            call(task)

    def _drain(self, line: Line, connection: _Wire, now: float) -> bool:
        """Hand over up to `DRAIN` messages. True: there may be more."""
        recv, receive = connection.recv, self._core.receive
        try:
            for _ in range(DRAIN):
                frame = recv(NOBLOCK, False)
                envelope = frame.bytes
                header = payload = None
                if frame.more:
                    # The kind says which frames follow; `.more` alone says whether they do.
                    wanted = _FRAMES.get(envelope[3], 1) if len(envelope) == wire.ENVELOPE_BYTES else 1
                    frames: list[bytes] = []
                    while frame.more:
                        frame = recv(NOBLOCK, False)
                        frames.append(frame.bytes)
                    if len(frames) + 1 != wanted:
                        self._core.errors += 1
                        continue
                    if envelope[3] in (wire.CHUNK, wire.BUNDLE):
                        payload = frames[0]
                    else:
                        header = frames[0]
                        payload = frames[1] if wanted == 3 else None
                if envelope[3:4] == _BUNDLE and payload is not None:
                    self._unpack(line, payload, now)
                else:
                    receive(line, envelope, header, payload, now)
        except zmq.Again:
            return False
        return True

    def _unpack(self, line: Line, data: bytes, now: float) -> None:
        receive = self._core.receive
        try:
            for envelope, header, payload in bundles.unpack(data):
                receive(line, envelope, header, payload, now)
        except ProtocolError:
            self._core.errors += 1

    def _flush(self) -> None:
        core = self._core
        for line in core.lines:
            if line.hang_up or line.dial:
                self._rewire = True
                old = self._wires[line.number]
                if old is not None:
                    old.close(0)
                    self._wires[line.number] = None
                line.hang_up = False
                if line.dial:
                    self._dial(line)
            connection = self._wires[line.number]
            if connection is not None and (line.out or connection.unsent):
                self._send(line, connection)
        if core.touched:
            wake(core.touched)
            core.touched.clear()

    def _send(self, line: Line, connection: _Wire) -> None:
        send, unsent = connection.send, connection.unsent
        if line.out:
            unsent.extend(bundles.packed(line.out, always=not connection.introduced))
            connection.introduced = True
            line.out.clear()
        done = 0
        try:
            for frames in unsent:
                last = len(frames) - 1
                for frame in frames[:last]:
                    send(frame, NOBLOCK_MORE)
                send(frames[last], NOBLOCK)
                done += 1
        except zmq.Again:
            pass
        del unsent[:done]
        if bool(unsent) != connection.waits_for_room:
            connection.waits_for_room = bool(unsent)
            self._rewire = True

    def _dial(self, line: Line) -> None:
        self._wires[line.number] = _Wire(self._context, line.address, self._key)
        line.dial = False

    def _hang_up_all(self, linger_ms: int) -> None:
        for number, connection in enumerate(self._wires):
            if connection is not None:
                connection.close(linger_ms)
                self._wires[number] = None
        self._bell_in.close()
        self._bell_out.close()
        self._context.term()

    def _finish(self) -> None:
        with suppress(Exception):
            self._take_orders(monotonic())
        self._core.close(self._failure)
        with suppress(Exception):
            self._flush()
        self._reject()
        self._hang_up_all(LINGER_MS)


def wake(touched: list[Task]) -> None:
    """Tell each sink once about all its tasks."""
    by_sink: dict[Sink, list[Task]] = {}
    for task in touched:
        sink = task.sink
        if sink is not None:
            tasks = by_sink.get(sink)
            if tasks is None:
                by_sink[sink] = [task]
            else:
                tasks.append(task)
    for sink, tasks in by_sink.items():
        sink.wake(tasks)
