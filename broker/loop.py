"""The hot loop: drain what has come, let the core work, send what it says in one burst.

The only module of the broker that knows ZeroMQ's receiving side. It makes three choices for speed, measured
in bench/: the compiled base class's `recv` is called directly; a drain takes up to `BATCH` messages, or
`AT_ONCE` of a bundle, before anything is sent, so wake-ups are shared; and payloads from 8 KiB up travel as
unopened frames. And three for safety: the frame count is read off each frame's `more`, never assumed; nothing
is sent inside the `try` that catches "drained"; and an error while one message is handled never reaches the
next.
"""

from __future__ import annotations

import gc
import logging
import random
import socket as sockets
import time
from collections.abc import Callable, KeysView
from functools import partial
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import zmq

from ..common import bundles, wire
from ..common.errors import BusError, ProtocolError
from .binding import SEND_HWM, bind, client_room, make_context
from .core import BrokerCore
from .doors import SHUT, Door, Handlers
from .gate import Gate
from .journal import Journal
from .outbox import Outbox
from .roles import CLIENTS, WORKERS
from .scribe import Scribe
from .states import IllegalMoveError
from .verbs import client_verbs, worker_verbs

if TYPE_CHECKING:
    from ..common.config import Config

log = logging.getLogger(__name__)
BATCH: Final = 32
AT_ONCE: Final = 16
"""Messages of one bundle after which what they led to is sent: whoever waits for it works while we go on.

Else a window of jobs goes round as one train, and all rest but the one who has it: a fifth fewer a second.
"""
_NOBLOCK: Final = int(zmq.NOBLOCK)
_EVENTS, _POLLIN = int(zmq.EVENTS), int(zmq.POLLIN)
_LAST_WORDS_S: Final = 10.0
"""How long the journal may take to write what is left at the end."""
_RETRY_PARKED_MS: Final = 2
_MOST_FRAMES: Final = 1000
"""So many frames are no mistake: whoever sends them is turned away at once."""
_SKIPPED_AT_ONCE: Final = 10_000


class Loop:
    """Two bound ROUTERs around a core. `run` returns when the broker has drained or was stopped twice."""

    def __init__(self, config: Config, clock: Callable[[], float] = time.monotonic) -> None:
        settings = config.broker
        self.core = BrokerCore(
            settings, random.SystemRandom().randrange, clock(), config.workers,
            lambda peer: self._client_out.parked_for(peer),
        )  # fmt: skip
        self._clock = clock
        self._context = make_context()
        self._wake_out, self._wake_in = sockets.socketpair()
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        self._gate: Gate | None = None
        try:
            if config.security.keys is not None:
                self._gate = Gate(self._context, config.security.keys, clock)
            hwm, unsent_bytes = client_room(settings.max_unsent_bytes_per_client)
            self.frontend = bind(self._context, settings.frontend, CLIENTS, self._gate, hwm)
            self.backend = bind(self._context, settings.backend, WORKERS, self._gate, SEND_HWM)
        except (zmq.ZMQError, BusError):
            self.close()
            raise
        self._client_out = Outbox(self.frontend, unsent_bytes, settings.max_unsent_bytes)
        self._worker_out = Outbox(self.backend)
        self._journal = None if settings.journal is None else Journal(Path(settings.journal))
        self._scribe: Scribe | None = None
        self.core.durables.wall_offset = time.time() - self._clock()
        self._tick_at = 0.0
        self._stops = 0
        self._stop_by: float | None = None
        core = self.core
        if self._journal is not None and self._journal.exists:
            try:
                self._open_journal()
            except BusError:
                self.close()
                raise
        allowed = None if self._gate is None else self._gate.allowed
        self._clients = Door(
            CLIENTS, self.frontend, self._client_out, partial(client_verbs, core), allowed, with_payload=True
        )
        self._workers = Door(
            WORKERS, self.backend, self._worker_out, partial(worker_verbs, core), allowed, with_payload=False
        )

    @property
    def endpoints(self) -> tuple[str, str]:
        """Where the frontend and the backend really listen."""
        frontend, backend = (socket.get_string(zmq.LAST_ENDPOINT) for socket in (self.frontend, self.backend))
        return frontend, backend

    def stop(self) -> None:
        """Begin to drain; called again, leave at once. Safe in a signal handler."""
        self._stops += 1
        self._wake()

    def _wake(self) -> None:
        try:
            self._wake_in.send(b"w")
        except (BlockingIOError, OSError):
            return  # the pipe is full of wake-ups already, or closed

    def run(self) -> None:
        """Serve until stopped. Closes the sockets."""
        poller = zmq.Poller()
        poller.register(self.frontend, zmq.POLLIN)
        poller.register(self.backend, zmq.POLLIN)
        poller.register(self._wake_out, zmq.POLLIN)
        wake = self._wake_out.fileno()
        # What is alive now stays alive; a table of 100,000 jobs need not be walked for each 700 allocations.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 20)
        try:
            while not self._finished():
                events = dict(poller.poll(self._timeout_ms()))
                now = self._clock()
                if wake in events:
                    self._on_wake(now)
                if self.backend in events:
                    self._drain(self._workers, now)
                if self.frontend in events:
                    self._drain(self._clients, now)
                if now >= self._tick_at:
                    # The wall clock may be set while we run; it must not be asked for every message.
                    self.core.durables.wall_offset = time.time() - now
                    self.core.tick(now)
                    self._look_round(self._clients, self.core.ledger.clients.keys(), now)
                    self._look_round(self._workers, self.core.members.by_peer.keys(), now)
                self._send(now)
            self.core.abort()
            self._send(self._clock())
            self._client_out.burst([], inf)
        finally:
            if self._scribe is not None and not self._scribe.close(_LAST_WORDS_S):
                log.error("the journal did not finish in time: durable jobs may be spoken once more")
            self.close()

    def close(self) -> None:
        """Close the sockets; what is still queued gets a moment to leave."""
        for name in ("frontend", "backend"):
            socket = getattr(self, name, None)
            if socket is not None:
                socket.close()
        if self._gate is not None:
            self._gate.close()
        self._context.term()
        self._wake_in.close()
        self._wake_out.close()

    def _timeout_ms(self) -> int:
        if self._client_out.waiting or self._worker_out.waiting:
            self._tick_at = self.core.next_deadline()
            return _RETRY_PARKED_MS
        self._tick_at = self.core.next_deadline()
        deadline = min(self._tick_at, self._client_out.bundler.due)
        if self._stop_by is not None:
            deadline = min(deadline, self._stop_by)
        return max(0, int((deadline - self._clock()) * 1000) + 1)

    def _on_wake(self, now: float) -> None:
        self._wake_out.recv(1024)
        if self._scribe is not None:
            for entry, outcome in self._scribe.take():
                self.core.journalled(entry, outcome, now)
        if self._stops and self._stop_by is None:
            log.info("stopping: %d jobs open", len(self.core.ledger.jobs))
            self._stop_by = now + self.core.settings.drain_timeout_s
            self.core.begin_drain()

    def _finished(self) -> bool:
        if self._stops == 0 or self._stop_by is None:
            return False
        if self._stops > 1 or self._clock() >= self._stop_by:
            return True
        core = self.core
        return not (core.ledger.jobs or core.durables.busy or self._client_out.waiting)

    def _look_round(self, door: Door, known: KeysView[bytes], now: float) -> None:
        """Turn those away whose keys were revoked, and forget who has left."""
        if self._gate is not None:
            self._gate.report()
        door.break_off()
        for peer, error in door.revoked():
            log.warning("%s is cut off: %s", peer.hex(), error.message)
            self._turn_away(door, peer, now)
        door.out.forget(known)
        door.forget(known)

    def _turn_away(self, door: Door, peer: bytes, now: float, *, at_once: bool = True) -> None:
        """Listen to a connection no more; what it had goes to others, or is given up.

        With `at_once` it is broken as well; else at the next look round but one, so that it can read why.
        """
        door.shut(peer)
        if at_once:
            door.break_now(peer)
        self.core.ledger.totals["turned_away"] += 1
        if door is self._workers:
            self.core.worker_leaves(peer, "was turned away", now, counted=True)
        else:
            self.core.client_banned(peer)

    def _drain(self, door: Door, now: float) -> None:
        if door.skips and not self._skip(door):
            return
        recv, frames, tables, with_payload = door.recv, door.frames, door.tables, door.with_payload
        left = BATCH
        while left > 0:
            left -= 1
            try:
                peer: bytes = recv(_NOBLOCK)
            except zmq.Again:
                return
            # The frames behind the routing id have arrived with it: none of these calls can come back empty.
            header: Any = None
            payload: Any = None
            head = recv(_NOBLOCK, False)
            count = 1
            size = 0
            if head.more:
                header = recv(_NOBLOCK, False)
                count = 2
                size = len(header)
                if header.more:
                    payload = recv(_NOBLOCK, False)
                    count = 3
                    size = len(payload)
                    rest = payload
                    while rest.more and count < _MOST_FRAMES:
                        rest = recv(_NOBLOCK, False)
                        count += 1
                    if rest.more:
                        door.note_line(peer, head)
                        self._turn_away(door, peer, now)
                        if not self._skip(door):
                            return
                        continue
            handlers = tables.get(peer)
            if handlers is SHUT:
                continue
            envelope: bytes = head.bytes
            try:
                if handlers is None:
                    handlers = door.meet(peer, head)
                if len(envelope) != wire.ENVELOPE_BYTES or not envelope.startswith(wire.MAGIC):
                    wire.unpack_envelope(envelope)  # says what is wrong with it
                kind = envelope[3]
                if frames.get(kind) != count:
                    name = wire.KIND_NAMES.get(kind, f"kind 0x{kind:02x}")
                    raise ProtocolError(f"{name} with {count} frames has no business here")
                if kind == wire.BUNDLE:
                    door.out.bundler.bundled.add(peer)
                    left -= self._unpack(door, handlers, peer, header.bytes, now)
                elif with_payload:
                    header = None if header is None else header.bytes
                    handlers[kind](peer, envelope, header, None if payload is None else _opened(payload), now)
                elif payload is not None:
                    handlers[kind](peer, envelope, (header.bytes, _opened(payload)), now)
                elif header is None:
                    handlers[kind](peer, envelope, None, now)
                else:
                    frame = _opened(header) if kind == wire.CHUNK else header.bytes
                    handlers[kind](peer, envelope, frame, now)
            except BusError as error:
                self._malformed(door, peer, envelope, error, now)
            except Exception as error:
                self._confused(door, peer, error, now)
            # After a large message: asking is cheaper than to be told by an exception that nothing is there.
            if size >= wire.COPY_BELOW_BYTES and not door.events(_EVENTS) & _POLLIN:
                return

    @staticmethod
    def _skip(door: Door) -> bool:
        """Throw away the rest of a message, some frames at a time: others wait. True: all is gone."""
        recv = door.recv
        for _ in range(_SKIPPED_AT_ONCE):
            if not recv(_NOBLOCK, False).more:
                door.skips = False
                return True
        door.skips = True
        return False

    def _unpack(self, door: Door, handlers: Handlers, peer: bytes, data: bytes, now: float) -> int:
        """Handle the messages of a bundle, and return how many there were. Raises `ProtocolError`."""
        count = 0
        with_payload = door.with_payload
        for envelope, header, payload in bundles.unpack(data):
            count += 1
            handler = handlers.get(envelope[3])
            try:
                if handler is None or not envelope.startswith(wire.MAGIC):
                    raise ProtocolError("a message in a bundle has no business here")
                if with_payload:
                    handler(peer, envelope, header, payload, now)
                elif header is None:
                    handler(peer, envelope, payload, now)
                else:
                    handler(peer, envelope, header if payload is None else (header, payload), now)
            except BusError as error:
                self._malformed(door, peer, envelope, error, now)
                if door.tables.get(peer) is SHUT:
                    break
            except Exception as error:
                self._confused(door, peer, error, now)
            if not count % AT_ONCE:
                self._send(now)
        return count

    def _confused(self, door: Door, peer: bytes, error: Exception, now: float) -> None:
        """A bug of ours, which must not end the broker. Whoever has found it does not get to use it twice."""
        self.core.ledger.totals["illegal_moves"] += 1
        log.error("a bug of the broker: message from %s dropped", peer.hex(), exc_info=error)
        if not isinstance(error, IllegalMoveError):
            self._turn_away(door, peer, now)

    def _malformed(self, door: Door, peer: bytes, envelope: bytes, error: BusError, now: float) -> None:
        """Answer what was refused; turn away whoever has no business here, or did it once too often."""
        job_id = envelope[4:20] if len(envelope) == wire.ENVELOPE_BYTES else wire.NO_JOB
        borne = self.core.malformed(peer, job_id, error, now, from_worker=door is self._workers)
        if not borne or peer not in door.tables:
            self._turn_away(door, peer, now, at_once=not borne)

    def _send(self, now: float) -> None:
        core = self.core
        core.flush(now)
        gone_workers = self._worker_out.burst(core.to_workers, now) if core.to_workers else []
        if self._worker_out.waiting:
            gone_workers += self._worker_out.retry()
        gone_clients: list[bytes] = []
        if core.to_clients or now >= self._client_out.bundler.due:
            gone_clients = self._client_out.burst(core.to_clients, now)
        if self._client_out.waiting:
            gone_clients += self._client_out.retry()
        for peer in gone_workers:
            core.worker_leaves(peer, "unreachable", now, counted=True)
        for peer in gone_clients:
            core.client_gone(peer)
        if self._client_out.slow:
            for peer in self._client_out.slow:
                core.client_slow(peer)
                self._clients.shut(peer)
            self._client_out.slow.clear()
        if core.to_journal:
            self._write_down()

    def _write_down(self) -> None:
        """Hand the core's entries to the journal's thread; the first ones make the journal."""
        core = self.core
        entries = core.to_journal.copy()
        core.to_journal.clear()
        if self._scribe is None:
            try:
                self._open_journal()
            except BusError as error:
                log.error("%s", error)  # noqa: TRY400 - the sentence says it all
                now = self._clock()
                for entry in entries:
                    core.journalled(entry, error, now)
                return
        if self._scribe is not None:
            self._scribe.put(entries)
            core.durables.behind_bytes = self._scribe.backlog_bytes

    def _open_journal(self) -> None:
        """Open the journal and take up what it knows. Raises `ConfigError` and `StorageError`."""
        if self._journal is not None:
            found = self._journal.open()
            self._scribe = Scribe(self._journal, self._wake)
            self.core.recover(found, self._clock())


def _opened(frame: Any) -> Any:
    """A small frame's bytes; a large one stays as it is."""
    return frame.bytes if len(frame) < wire.COPY_BELOW_BYTES else frame
