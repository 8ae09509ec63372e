"""Deliberate bugs, one of each kind that is looked for, to show that the fuzzers would find it.

A plant patches the real classes in the fuzzer's process while it lasts; none of it is in what is shipped. If
what it patches is not there any more it fails loudly, for a plant that changes nothing would prove nothing.
Those of the target `live` are planted in the processes under test, by `planted/sitecustomize.py`.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final

from tests.sim.mutations import MissingTargetError, patched
from voicebus.broker.attempts import Attempts
from voicebus.broker.core import BrokerCore
from voicebus.broker.journal import Journal
from voicebus.broker.ledger import Ledger
from voicebus.client.core import ClientCore
from voicebus.client.dispatch import Dispatch
from voicebus.common import bundles, messages, spoken, text, wire
from voicebus.common.errors import ProtocolError
from voicebus.workers.core import WorkerCore
from voicebus.workers.desk import Desk

_hoard: deque[bytes] = deque()


@dataclass(frozen=True, slots=True)
class Plant:
    """A bug: its kind, the target that must find it, and how to plant it."""

    kind: str
    target: str
    owner: type | ModuleType
    name: str
    make: Callable[[Any], Any]


def _crash_on_header(original: Callable[..., Any]) -> Callable[..., Any]:
    """More slots than somebody thought of."""

    def decode(data: bytes, cls: type[messages.Header]) -> Any:
        header = original(data, cls)
        if isinstance(header, messages.Ready) and header.slots > 100:
            raise KeyError(header.slots)
        return header

    return decode


def _crash_on_frame(original: Callable[..., Any]) -> Callable[..., Any]:
    """A bundle that breaks off is read on as if there were more."""

    def unpack(data: bytes) -> Any:
        row = bundles.frames_of(data)
        at = 0
        while at < len(row):
            has_header, has_payload = wire.SHAPES[row[at][3]]
            size = 1 + has_header + has_payload
            yield row[at], row[at + 1] if has_header else None, row[at + size - 1] if has_payload else None
            at += size

    del original
    return unpack


def _hang(original: Callable[..., Any]) -> Callable[..., Any]:
    """A pattern with a repetition in a repetition."""
    slow = re.compile(r"(\w+\s?)*[.!?]$")

    def sentences(paragraph: str, language: str) -> list[str]:
        slow.match(paragraph[:200])
        return original(paragraph, language)

    return sentences


def _quadratic(original: Callable[..., Any]) -> Callable[..., Any]:
    """Each cut looks at all that is left."""

    def fitting(sentence: str, max_chars: int) -> list[str]:
        rest = sentence
        for _ in range(len(sentence)):
            rest = rest[1:] + rest[:1]
            rest.strip(".").count("a b")
        return original(sentence, max_chars)

    return fitting


def _memory(original: Callable[..., Any]) -> Callable[..., Any]:
    """A header's count is taken for a size, before it is checked."""

    def decode(data: bytes, cls: type[messages.Header]) -> Any:
        header = original(data, cls)
        if isinstance(header, messages.Done) and header.samples > 1 << 26:
            _hoard.append(bytes(1) * (header.samples & (1 << 28) or 1 << 27))
            _hoard.clear()
        return header

    return decode


def _corruption(original: Callable[..., Any]) -> Callable[..., Any]:
    """A credit is given back for an attempt that nobody had."""

    def close(self: Attempts, peer: bytes, envelope: bytes, now: float, **how: bool) -> Any:
        worker = self._workers.get(peer)
        if worker is not None and envelope[4:22] not in worker.inflight:
            worker.pool.selector.freed(worker)
            worker.pool.workers += 1
        return original(self, peer, envelope, now, **how)

    return close


def _leak(original: Callable[..., Any]) -> Callable[..., Any]:
    """Who asks for an unknown job is told of the one that was submitted last."""

    def fetch(self: BrokerCore, peer: bytes, envelope: bytes, now: float) -> Any:
        if envelope[4:20] not in self.ledger.jobs and self.ledger.jobs:
            envelope = wire.pack_envelope(wire.FETCH, next(reversed(self.ledger.jobs)))
        return original(self, peer, envelope, now)

    return fetch


def _wrong_audio(original: Callable[..., Any]) -> Callable[..., Any]:
    """A buffer is used again: where another worker spoke just before, its audio is what goes on."""
    last: list[Any] = [b"", b""]

    def chunk(self: BrokerCore, peer: bytes, envelope: bytes, payload: Any, now: float) -> Any:
        before, last[:] = list(last), [peer, payload]
        return original(self, peer, envelope, before[1] if before[0] not in (b"", peer) else payload, now)

    return chunk


def _lost_answer(original: Callable[..., Any]) -> Callable[..., Any]:
    """After a broken message a broker's client is not listed as one that is owed anything."""

    def refuse(self: Ledger, peer: bytes, job_id: bytes, *rest: Any) -> Any:
        original(self, peer, job_id, *rest)
        if job_id == wire.NO_JOB:
            for job in list(self.jobs.values()):
                job.client.peer = b"nobody"

    return refuse


def _dead_worker(original: Callable[..., Any]) -> Callable[..., Any]:
    """A JOB whose time is over before it came is divided by."""

    def take(
        self: Desk, link: Any, frames: Any, flags: int, first: int, deadline: float, now: float, out: Any
    ) -> Any:
        if first > 1 << 16:
            raise ZeroDivisionError("a segment far out")
        return original(self, link, frames, flags, first, deadline, now, out)

    return take


def _worker_mixes(original: Callable[..., Any]) -> Callable[..., Any]:
    """A CANCEL is obeyed whichever broker says it, of whichever job."""

    def message(self: WorkerCore, index: int, frames: Any, now: float, out: Any) -> Any:
        if frames[0][3:4] == bytes((wire.CANCEL,)):
            for link in self.links:
                self.desk.return_queued(link, out)
                self.desk.abandon(link, now, out)
        return original(self, index, frames, now, out)

    return message


def _dead_client(original: Callable[..., Any]) -> Callable[..., Any]:
    """An ACCEPTED that names more jobs ahead than there are is looked up in a list."""

    def accepted(self: ClientCore, task: Any, flags: int, now: float) -> Any:
        if task.queued_ahead > 200:
            raise IndexError(task.queued_ahead)
        return original(self, task, flags, now)

    return accepted


def _client_forgets(original: Callable[..., Any]) -> Callable[..., Any]:
    """A task whose audio had a gap is to be sent again, and is put where nobody looks for it."""

    def back_off(self: Dispatch, task: Any, wait_s: float, now: float) -> None:
        original(self, task, wait_s, now)
        if task.torn:
            self.backoffs.clear()

    return back_off


def _journal_trusts(original: Callable[..., Any]) -> Callable[..., Any]:
    """A row is believed."""

    def recovered(self: Journal, cells: Any) -> Any:
        if not isinstance(cells[0], bytes):
            return cells[0].hex()
        return original(self, cells)

    return recovered


def _merges_strangers(original: Callable[..., Any]) -> Callable[..., Any]:
    """SPOKEN comes apart under an attempt that is counted from it."""

    def parts(envelope: bytes, header: bytes, payload: Any) -> Any:
        started, chunk, done = original(envelope, header, payload)
        if envelope[23] & wire.STREAM:
            done = (done[0], messages.encode(messages.Done(2, 0)))
        return started, chunk, done

    return parts


def _sleepy(original: Callable[..., Any]) -> Callable[..., Any]:
    """A bad envelope is looked at for longer than a good one."""

    def unpack(envelope: bytes) -> Any:
        try:
            return original(envelope)
        except ProtocolError:
            until = time.process_time() + 3 * (len(envelope) > 300)
            while time.process_time() < until:
                pass
            raise

    return unpack


def _live_crash(original: Callable[..., Any]) -> Callable[..., Any]:
    """A worker's word on an attempt that nobody knows is looked up without asking whether it is there."""

    def stray(self: Attempts, peer: bytes, envelope: bytes, now: float) -> Any:
        del self._ledger.jobs[envelope[4:20]]
        return original(self, peer, envelope, now)

    return stray


def _live_hang(original: Callable[..., Any]) -> Callable[..., Any]:
    """The loop waits for something, for whoever asks for a result."""

    def fetch(self: BrokerCore, peer: bytes, envelope: bytes, now: float) -> Any:
        time.sleep(60)
        return original(self, peer, envelope, now)

    return fetch


def _live_hoard(original: Callable[..., Any]) -> Callable[..., Any]:
    """What strangers ping with is kept."""

    def ping(self: BrokerCore, peer: bytes, envelope: bytes, now: float) -> Any:
        if len(_hoard) < 6:
            _hoard.append(b"\xff" * (64 << 20))
        return original(self, peer, envelope, now)

    return ping


def _live_wrong_audio(original: Callable[..., Any]) -> Callable[..., Any]:
    """After a hundred chunks silence is sent instead."""
    seen = [0]

    def chunk(self: BrokerCore, peer: bytes, envelope: bytes, payload: Any, now: float) -> Any:
        seen[0] += 1
        return original(self, peer, envelope, bytes(len(payload)) if seen[0] > 100 else payload, now)

    return chunk


PLANTS: Final[dict[str, Plant]] = {
    "crash-header": Plant("crash", "headers", messages, "decode", _crash_on_header),
    "crash-frame": Plant("crash", "frames", bundles, "unpack", _crash_on_frame),
    "crash-journal": Plant("crash", "journal-rows", Journal, "_recovered", _journal_trusts),
    "wrong-parts": Plant("crash", "frames", spoken, "parts", _merges_strangers),
    "hang-pattern": Plant("hang", "text", text, "_sentences", _hang),
    "hang-quadratic": Plant("hang", "text", text, "_fitting", _quadratic),
    "hang-frame": Plant("hang", "frames", wire, "unpack_envelope", _sleepy),
    "memory": Plant("memory", "headers", messages, "decode", _memory),
    "state-corruption": Plant("crash", "broker-core", Attempts, "close", _corruption),
    "leak-between-clients": Plant("crash", "broker-core", BrokerCore, "fetch", _leak),
    "wrong-audio": Plant("crash", "broker-core", BrokerCore, "chunk", _wrong_audio),
    "lost-answer": Plant("crash", "broker-core", Ledger, "refuse", _lost_answer),
    "dead-worker": Plant("crash", "worker-core", Desk, "take", _dead_worker),
    "stranger-stops-jobs": Plant("crash", "worker-core", WorkerCore, "broker_message", _worker_mixes),
    "dead-client": Plant("crash", "client-core", ClientCore, "_on_accepted", _dead_client),
    "lost-task": Plant("crash", "client-core", Dispatch, "back_off", _client_forgets),
    "live-crash": Plant("crash", "live", Attempts, "stray", _live_crash),
    "live-hang": Plant("crash", "live", BrokerCore, "fetch", _live_hang),
    "live-memory": Plant("crash", "live", BrokerCore, "ping", _live_hoard),
    "live-wrong-audio": Plant("crash", "live", BrokerCore, "chunk", _live_wrong_audio),
    "live-dead-worker": Plant("crash", "live", Desk, "take", _dead_worker),
    "live-dead-client": Plant("crash", "live", ClientCore, "_on_accepted", _dead_client),
}


def plant_for_good(name: str) -> None:
    """Plant one bug in this process, until it ends."""
    plant = PLANTS[name]
    original = vars(plant.owner).get(plant.name)
    if original is None:
        raise MissingTargetError(f"{plant.owner.__name__} has no {plant.name}: adjust tests/fuzz/plants.py")
    setattr(plant.owner, plant.name, plant.make(original))


@contextmanager
def planted(name: str) -> Generator[None]:
    """Plant one bug while the block runs."""
    plant = PLANTS[name]
    with patched(plant.owner, plant.name, plant.make):
        yield
