"""The worker's loop: sockets to the brokers and links to the engine processes, with the core between them.

Nothing here waits for anything but the poll, and nothing here decides: messages go into the core, the actions
it returns are carried out. No numeric library is imported in this process, so no long call can hold the
interpreter and starve the heartbeats. When a broker takes no more, the engines that speak for it are not read
until it does; they wait in turn, and memory stays bounded.
"""

from __future__ import annotations

import gc
import logging
import os
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import msgspec
import zmq

from ..common import handshake, wire
from ..common.errors import BusError
from ..common.signs import Sign, refusal
from ..common.urgency import Urgency
from . import control
from .actions import (
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
from .children import Child, rss_bytes
from .core import WorkerCore
from .sockets import FLUSH_MS, BrokerSocket, receiver, sender, unpacked

if TYPE_CHECKING:
    from ..common.keyring import KeyFile

log = logging.getLogger(__name__)

BATCH: Final = 64
"""Messages taken from one socket before the others have their turn."""
LAST_WORDS_S: Final = 0.01
"""How long after a process's end the link may still deliver what it had sent."""
LAST_WAIT_S: Final = 1.0
GAUGES_S: Final = 1.0
MAX_WAIT_S: Final = 60.0


class Agent:
    """Runs a core until it exits. `announce` is called once, when the worker is ready.

    The engines take turns at the `devices`; "auto" is what one does that is told of none. `environment` is
    theirs, beside the agent's own. `key` is shown to the brokers.
    """

    def __init__(
        self,
        core: WorkerCore,
        setup: control.Setup,
        *,
        devices: Sequence[str] = ("auto",),
        environment: Mapping[str, str] | None = None,
        announce: Callable[[], None] = lambda: None,
        key: KeyFile | None = None,
        clock: Callable[[], float] = time.monotonic,
        urgency: Urgency | None = None,
    ) -> None:
        self._core = core
        self._setups = [control.message(control.SETUP, _on(setup, device)) for device in devices]
        self._engine = setup.engine
        self._environment = environment or {}
        self._announce: Callable[[], None] | None = announce
        self._key = key
        self._clock = clock
        self._urgency = urgency
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._poller = zmq.Poller()
        self._brokers: dict[int, BrokerSocket] = {}
        self._closing: list[tuple[float, BrokerSocket]] = []
        self._children: dict[int, Child] = {}
        self._receivers: dict[int, Callable[[], Frames]] = {}
        self._senders: dict[int, Callable[[Frames], None]] = {}
        self._actions: Actions = []
        self._stops = self._stops_seen = 0
        self._gauges_at = 0.0
        self._exit: Exit | None = None
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)
        self._poller.register(self._wake_read, zmq.POLLIN)

    def wakeup_fd(self) -> int:
        """For `signal.set_wakeup_fd`: a signal ends the poll."""
        return self._wake_write.fileno()

    def request_stop(self) -> None:
        """Ask for a drain; asked again, for an end at once. Safe in a signal handler."""
        self._stops += 1
        try:
            self._wake_write.send(b"\0")
        except BlockingIOError:  # full of wake-ups already
            return

    def run(self) -> BusError | None:
        """Work until the end; return the error that caused it, None if it was asked for."""
        gc.freeze()
        try:
            self._core.start(self._actions)
            self._flush()
            while self._exit is None or self._closing:
                self._turn()
            return self._exit.error
        finally:
            self._close()

    def _turn(self) -> None:
        self._watch()
        if self._urgency is not None:
            self._urgency.prefer(patient=self._core.desk.is_patient)
        ready = dict(self._poller.poll(self._wait_ms()))
        now = self._clock()
        if self._wake_read in ready or self._wake_read.fileno() in ready:
            self._drain_wakeups()
        for index, broker in list(self._brokers.items()):
            if self._brokers.get(index) is not broker:
                continue  # what another broker said has closed it
            events = ready.get(broker.socket, 0)
            if events & zmq.POLLOUT:
                broker.pump()
            if events & zmq.POLLIN:
                self._hear_broker(index, broker, now)
            if broker.monitor in ready:
                self._note_signs(index, broker, now)
        for slot, child in list(self._children.items()):
            if ready.get(child.socket, 0) & zmq.POLLIN:
                self._hear_child(slot, child, now)
            if child.died_at is not None or child.sentinel in ready:
                self._bury(slot, child, now)
        while self._stops_seen < self._stops:
            stop = self._core.stop_now if self._stops_seen else self._core.stop
            self._stops_seen += 1
            stop(now, self._actions)
        if now >= self._gauges_at:
            self._measure(now)
        self._core.tick(now, self._actions)
        self._flush()
        self._push(now)
        for deadline, broker in list(self._closing):
            broker.pump()
            if not broker.is_blocked or now >= deadline:
                self._closing.remove((deadline, broker))
                broker.close(flush=True)
        if self._announce is not None and self._core.is_ready:
            self._announce()
            self._announce = None

    def _wait_ms(self) -> int:
        now = self._clock()
        wait_s = min(MAX_WAIT_S, self._core.next_deadline() - now)
        if any(child.died_at is not None for child in self._children.values()):
            wait_s = min(wait_s, LAST_WORDS_S)
        for broker in self._brokers.values():
            wait_s = min(wait_s, broker.patient_until - now)
        for deadline, _ in self._closing:
            wait_s = min(wait_s, deadline - now, LAST_WORDS_S)
        # Rounded up: a poll that ends a little early would spin until the deadline.
        return max(0, int(wait_s * 1000) + 1 if wait_s > 0 else 0)

    def _drain_wakeups(self) -> None:
        try:
            while self._wake_read.recv(4096):
                pass
        except BlockingIOError:
            return

    # Hearing.

    def _hear_broker(self, index: int, broker: BrokerSocket, now: float) -> None:
        try:
            for _ in range(BATCH):
                self._core.broker_message(index, broker.receive(), now, self._actions)
        except zmq.Again:
            pass
        self._flush()

    def _note_signs(self, index: int, broker: BrokerSocket, now: float) -> None:
        """Tell the core of a connection that does not come about. One that is lost it finds out itself."""
        address = self._core.links[index].address
        for sign in handshake.signs(broker.monitor):
            if sign is Sign.CUT_SHORT:
                self._core.cut_short(index, self._actions)
            elif sign is not Sign.LOST:
                self._core.refused(index, refusal(sign, address, self._key), now, self._actions)
        self._flush()

    def _hear_child(self, slot: int, child: Child, now: float) -> None:
        receive = self._receivers[slot]
        try:
            for _ in range(BATCH):
                frames = receive()
                kind = control.kind_of(frames)
                if kind == control.HELLO:
                    child.forget_folder()
                    self._senders[slot](self._setups[slot % len(self._setups)])
                elif kind == wire.BUNDLE:
                    for message in unpacked(frames):
                        self._core.child_message(slot, message, now, self._actions)
                else:
                    self._core.child_message(slot, frames, now, self._actions)
        except zmq.Again:
            pass
        self._flush()

    def _bury(self, slot: int, child: Child, now: float) -> None:
        """Report a dead process, after its last words had a moment to arrive."""
        if child.died_at is None:
            child.died_at = now
            child.kill()  # it may have closed the sentinel and live: one that cannot be watched must not
            self._poller.unregister(child.sentinel)
            return
        how = child.outcome()
        if how is None or now < child.died_at + LAST_WORDS_S:
            return
        del self._children[slot], self._receivers[slot], self._senders[slot]
        if child.socket in self._poller:
            self._poller.unregister(child.socket)
        child.close()
        self._core.child_died(slot, how, now, self._actions)
        self._flush()

    def _measure(self, now: float) -> None:
        self._gauges_at = now + GAUGES_S
        total = rss_bytes(os.getpid()) + sum(child.rss_bytes() for child in self._children.values())
        self._core.tally.gauges["rss_bytes"] = total

    # Doing.

    def _flush(self) -> None:
        while self._actions:  # carrying one out may lead to others: a process that cannot be started
            actions, self._actions = self._actions, []
            for action in actions:
                self._carry_out(action)

    def _push(self, now: float) -> None:
        for broker in self._brokers.values():
            broker.push(now)

    def _carry_out(self, action: Any) -> None:
        match action:
            case ToBroker(link, frames):
                self._brokers[link].send(frames)
            case ToChild(slot, frames):
                self._tell_child(slot, frames)
            case Beat(link, frames):
                self._brokers[link].beat(frames)
            case Log(level, line):
                log.log(level, "%s", line)
            case OpenLink(link):
                broker = BrokerSocket(self._context, self._core.links[link].address, self._key)
                self._brokers[link] = broker
                self._poller.register(broker.monitor, zmq.POLLIN)
            case CloseLink(link, flush):
                self._close_broker(link, flush=flush)
            case StartChild(slot):
                self._start_child(slot)
            case KillChild(slot):
                child = self._children.get(slot)
                if child is not None:
                    child.kill()
            case Exit():
                self._exit = action
            case _:
                raise TypeError(f"no such action: {action!r}")

    def _tell_child(self, slot: int, frames: Frames) -> None:
        try:
            if slot in self._senders:
                self._senders[slot](frames)
        except zmq.Again:  # one job at a time and its CANCEL always find room: this link is broken
            self._children[slot].kill()

    def _start_child(self, slot: int) -> None:
        try:
            child = Child(self._context, self._engine, self._environment)
        except OSError as error:
            self._core.child_died(slot, f"it could not be started: {error}", self._clock(), self._actions)
            return
        self._children[slot] = child
        self._receivers[slot] = receiver(child.socket)
        self._senders[slot] = sender(child.socket)
        self._poller.register(child.sentinel, zmq.POLLIN)

    def _close_broker(self, link: int, *, flush: bool) -> None:
        broker = self._brokers.pop(link)
        if flush:
            broker.push()
        for socket_ in (broker.socket, broker.monitor):
            if socket_ in self._poller:
                self._poller.unregister(socket_)
        if flush and broker.is_blocked:
            self._closing.append((self._clock() + FLUSH_MS / 1000, broker))
        else:
            broker.close(flush=flush)

    def _watch(self) -> None:
        """Poll for what is wanted now: room where messages wait, audio where there is room for it."""
        for broker in self._brokers.values():
            flags = (0 if broker.is_stuck else zmq.POLLIN) | (zmq.POLLOUT if broker.is_blocked else 0)
            self._poller.register(broker.socket, flags)
        for slot, child in self._children.items():
            brokers = map(self._brokers.get, self._core.crew.links_of(slot))
            held_back = any(broker is not None and broker.is_blocked for broker in brokers)
            self._poller.register(child.socket, 0 if held_back else zmq.POLLIN)

    def _close(self) -> None:
        for child in self._children.values():
            child.kill()
            with suppress(subprocess.TimeoutExpired):  # one that hangs in a driver is left to the system
                child.process.wait(LAST_WAIT_S)
            child.close()
        for broker in [*self._brokers.values(), *(broker for _, broker in self._closing)]:
            broker.close(flush=False)
        self._wake_read.close()
        self._wake_write.close()
        self._context.term()


def _on(setup: control.Setup, device: str) -> control.Setup:
    if device == "auto":
        return setup
    return msgspec.structs.replace(setup, settings=setup.settings | {"device": device})
