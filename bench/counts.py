"""How much Python runs for one request: calls and allocations, which are the same on every machine.

    python -m bench.counts [--record]

Times on a shared machine differ by a quarter from hour to hour; the number of calls does not differ at all.
So this is the figure that may be asserted: `bench/counts.json` holds what was recorded, by minor version of
Python, and `tests/bench/test_counts.py` fails when a request has come to need a tenth more. A job is followed
from SUBMIT to DONE with one chunk, `WINDOW` jobs under way at once, at a broker whose result cache is full,
as it is after the first minutes:

- `core`: the messages are handed to `BrokerCore` as method calls;
- `loop`: they come and go through `Loop`'s two sockets, over inproc, each by itself;
- `loop_bundled`: the same with peers that read and write bundles;
- `loop_spoken`: and with a worker whose attempts are over at once, so that SPOKEN carries them.

Calls are what `sys.setprofile` reports, of Python functions and of C functions. Memory is what `tracemalloc`
finds: of a job that waits or is spoken, of one that has ended (the result cache keeps it a while), and the
peak above that while one single job passes. It is shown and not asserted: freelists make it waver.
"""

from __future__ import annotations

import gc
import json
import random
import sys
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any, Final, Protocol

import click
import zmq

from voicebus.broker.core import BrokerCore
from voicebus.broker.loop import Loop
from voicebus.common import bundles, wire
from voicebus.common.config import Broker, Config
from voicebus.common.messages import Done, Ready, Started, Submit, encode
from voicebus.common.spoken import merge

RECORDED: Final = Path(__file__).with_name("counts.json")
WINDOW: Final = 64
WARM_ROUNDS: Final = 12
ROUNDS: Final = 4
NOW: Final = 1000.0
"""Time stands still: nothing expires while it is counted."""
FULL_CACHE_BYTES: Final = 256 * 1024
"""Filled by the rounds before those that count, so that each new result displaces an old one."""
ROOMY_CACHE_BYTES: Final = 64 * 1024 * 1024

TEXT: Final = b"The ferry leaves the northern harbour at nine. " * 4
AUDIO: Final = bytes(200)
SUBMIT: Final = encode(Submit("tone", "amber", "en", characters=len(TEXT)))
STARTED: Final = encode(Started("counted", "tone", 24_000, 1))
DONE: Final = encode(Done(1, len(AUDIO) // 2, 0.01))
READY: Final = encode(Ready("counted", 1, "tone", ["en"], WINDOW, 60_000, 24_000))

Frames = tuple[bytes, ...]


class MiscountError(RuntimeError):
    """The jobs did not take the way that was to be counted."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What one request takes."""

    python_calls: float
    c_calls: float
    open_bytes: int
    open_blocks: float
    kept_bytes: int
    kept_blocks: float
    peak_bytes: int

    @property
    def calls(self) -> float:
        """Calls of both kinds."""
        return self.python_calls + self.c_calls


class Way(Protocol):
    """A way for jobs to be asked and answered. What `load_…` and `read` do is not counted."""

    def load_questions(self, jobs: Sequence[bytes]) -> None:
        """Put a SUBMIT for each job in place."""
        ...

    def take_questions(self) -> None:
        """The broker's work on them: up to the JOBs handed out."""
        ...

    def load_answers(self, jobs: Sequence[bytes]) -> None:
        """Put STARTED, CHUNK and DONE for each job in place."""
        ...

    def take_answers(self) -> None:
        """The broker's work on them."""
        ...

    def read(self) -> int:
        """Take away what was sent, and return how many DONEs the client was sent."""
        ...

    def close(self) -> None:
        """Leave nothing open."""
        ...


def questions(jobs: Sequence[bytes]) -> list[Frames]:
    """A client's messages."""
    return [(wire.pack_envelope(wire.SUBMIT, job), SUBMIT, TEXT) for job in jobs]


def answers(jobs: Sequence[bytes]) -> list[Frames]:
    """A worker's messages, one job after the other."""
    found: list[Frames] = []
    for job in jobs:
        found += [
            (wire.pack_envelope(wire.STARTED, job, 1), STARTED),
            (wire.pack_envelope(wire.CHUNK, job, 1, wire.SEGMENT_END), AUDIO),
            (wire.pack_envelope(wire.DONE, job, 1), DONE),
        ]
    return found


def spoken_answers(jobs: Sequence[bytes]) -> list[Frames]:
    """The same, each job in one message."""
    found = answers(jobs)
    return [whole for at in range(0, len(found), 3) if (whole := merge(*found[at : at + 3])) is not None]


def settings(cache_bytes: int, **more: Any) -> Broker:
    """A broker's settings, with a result cache of this size."""
    return Broker(default_engine="tone", journal=None, result_cache_bytes=cache_bytes, **more)


class CoreWay:
    """Straight into the core."""

    def __init__(self, cache_bytes: int) -> None:
        self.core = BrokerCore(settings(cache_bytes), random.Random(1).randrange, NOW)
        self.core.ready(b"worker", READY, NOW)
        self._loaded: list[Frames] = []
        self.read()

    def load_questions(self, jobs: Sequence[bytes]) -> None:
        self._loaded = questions(jobs)

    def take_questions(self) -> None:
        submit = self.core.submit
        for envelope, header, text in self._loaded:
            submit(b"client", envelope, header, text, NOW)
        self.core.flush(NOW)

    def load_answers(self, jobs: Sequence[bytes]) -> None:
        self._loaded = answers(jobs)

    def take_answers(self) -> None:
        core = self.core
        handlers = {wire.STARTED: core.started, wire.CHUNK: core.chunk, wire.DONE: core.done}
        for envelope, frame in self._loaded:
            handlers[envelope[3]](b"worker", envelope, frame, NOW)
        core.flush(NOW)

    def read(self) -> int:
        done = sum(message[1][3] == wire.DONE for message in self.core.to_clients)
        self.core.to_clients.clear()
        self.core.to_workers.clear()
        self._loaded = []
        return done

    def close(self) -> None:
        self.read()


class LoopWay:
    """Through the loop and its sockets. Over inproc what was sent has arrived: nothing depends on timing."""

    def __init__(self, cache_bytes: int, *, bundled: bool, spoken: bool = False) -> None:
        ends = {"frontend": "inproc://clients", "backend": "inproc://workers"}
        # Passes of the loop are made here one by one, for which it has no public way.
        self._loop: Any = Loop(Config(broker=settings(cache_bytes, **ends)), clock=lambda: NOW)
        self._bundled = bundled
        self._answers = spoken_answers if spoken else answers
        self._client, self._worker = (self._peer(end) for end in ends.values())
        self._put(self._worker, [(wire.pack_envelope(wire.READY), READY)])
        self.take_answers()
        self.read()

    def load_questions(self, jobs: Sequence[bytes]) -> None:
        self._put(self._client, questions(jobs))

    def take_questions(self) -> None:
        self._work(self._loop._clients)

    def load_answers(self, jobs: Sequence[bytes]) -> None:
        self._put(self._worker, self._answers(jobs))

    def take_answers(self) -> None:
        self._work(self._loop._workers)

    def read(self) -> int:
        self._take(self._worker)
        return sum(envelope[3] in (wire.DONE, wire.SPOKEN) for envelope in self._take(self._client))

    def close(self) -> None:
        self._client.close(0)
        self._worker.close(0)
        self._loop.close()

    def _work(self, side: Any) -> None:
        """A pass of the loop for each `BATCH` of messages, as `Loop.run` makes them."""
        socket = self._loop.frontend if side is self._loop._clients else self._loop.backend
        while _readable(socket):
            self._loop._drain(side, NOW)
            self._loop._send(NOW)

    def _peer(self, endpoint: str) -> zmq.Socket[bytes]:
        peer = self._loop.frontend.context.socket(zmq.DEALER)
        peer.sndhwm = peer.rcvhwm = 0
        peer.connect(endpoint)
        return peer

    def _put(self, peer: zmq.Socket[bytes], messages: list[Frames]) -> None:
        for frames in bundles.packed(messages, always=True) if self._bundled else messages:
            peer.send_multipart(frames)

    def _take(self, peer: zmq.Socket[bytes]) -> list[bytes]:
        """The envelopes of all that has come for a peer."""
        envelopes: list[bytes] = []
        while _readable(peer):
            frames = peer.recv_multipart(zmq.NOBLOCK)
            if frames[0][3] == wire.BUNDLE:
                envelopes += [envelope for envelope, _, _ in bundles.unpack(frames[1])]
            else:
                envelopes.append(frames[0])
        return envelopes


def _readable(socket: zmq.Socket[bytes]) -> bool:
    return bool(int(socket.getsockopt(zmq.EVENTS)) & int(zmq.POLLIN))


WAYS: Final[dict[str, Callable[[int], Way]]] = {
    "core": CoreWay,
    "loop": lambda cache_bytes: LoopWay(cache_bytes, bundled=False),
    "loop_bundled": lambda cache_bytes: LoopWay(cache_bytes, bundled=True),
    "loop_spoken": lambda cache_bytes: LoopWay(cache_bytes, bundled=True, spoken=True),
}


def profiled(work: Callable[[], object]) -> tuple[int, int]:
    """How many calls, of Python and of C functions, some work makes, its own and ours included."""
    python = c = 0

    def note(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal python, c
        if event == "call":
            python += 1
        elif event == "c_call":
            c += 1

    before, collects = sys.getprofile(), gc.isenabled()
    # The collector ends what others have left behind, with calls of theirs, whenever it is its turn.
    gc.disable()
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(before)
        if collects:
            gc.enable()
    return python, c


def _nothing() -> None:
    pass


def counted(work: Callable[[], object]) -> tuple[int, int]:
    """How many calls, of Python and of C functions, are made inside of `work`."""
    idle = profiled(_nothing)
    python, c = profiled(work)
    return python - idle[0], c - idle[1]


class Driver:
    """Rounds of jobs on one way."""

    def __init__(self, way: Way) -> None:
        self.way = way
        self._ids = count(1)

    def jobs(self, number: int) -> list[bytes]:
        """Fresh job ids."""
        return [next(self._ids).to_bytes(wire.JOB_ID_BYTES, "big") for _ in range(number)]

    def round(self, number: int, run: Callable[[Callable[[], None]], object]) -> None:
        """`number` jobs from SUBMIT to DONE; `run` calls the two parts of it that are the broker's."""
        jobs = self.jobs(number)
        self.way.load_questions(jobs)
        run(self.way.take_questions)
        self.way.load_answers(jobs)
        run(self.way.take_answers)
        done = self.way.read()
        if done != number:
            raise MiscountError(f"{done} of {number} jobs were done")

    def warm(self) -> None:
        """Fill what fills, and import what is imported late."""
        for _ in range(WARM_ROUNDS):
            self.round(WINDOW, lambda part: part())


def count_calls(way: Way) -> tuple[float, float]:
    """Calls of Python and of C functions per request."""
    driver = Driver(way)
    driver.warm()
    seen: list[tuple[int, int]] = []
    for _ in range(ROUNDS):
        driver.round(WINDOW, lambda part: seen.append(counted(part)))
    python, c = (sum(kind) / (ROUNDS * WINDOW) for kind in zip(*seen, strict=True))
    return python, c


def _alive() -> tuple[int, int]:
    gc.collect()
    snapshot = tracemalloc.take_snapshot().filter_traces((tracemalloc.Filter(False, tracemalloc.__file__),))
    traces = snapshot.traces
    return sum(trace.size for trace in traces), len(traces)


def measure_memory(way: Way) -> dict[str, Any]:
    """Bytes and blocks of a job that is open and of one that has ended, and the peak of a single one."""
    driver = Driver(way)
    driver.warm()
    tracemalloc.start()
    try:
        driver.round(WINDOW, lambda part: part())
        base = _alive()
        jobs = driver.jobs(WINDOW)
        way.load_questions(jobs)
        way.take_questions()
        way.read()
        opened = _alive()
        way.load_answers(jobs)
        way.take_answers()
        way.read()
        ended = _alive()
        peaks: list[int] = []

        def peak(part: Callable[[], None]) -> None:
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            part()
            peaks.append(tracemalloc.get_traced_memory()[1] - before)

        driver.round(1, peak)
    finally:
        tracemalloc.stop()
    return {
        "open_bytes": round((opened[0] - base[0]) / WINDOW),
        "open_blocks": round((opened[1] - base[1]) / WINDOW, 1),
        "kept_bytes": round((ended[0] - base[0]) / WINDOW),
        "kept_blocks": round((ended[1] - base[1]) / WINDOW, 1),
        "peak_bytes": max(peaks),
    }


def measure(name: str) -> Figures:
    """The figures of one way."""
    way = WAYS[name](FULL_CACHE_BYTES)
    python, c = count_calls(way)
    way.close()
    collects = gc.isenabled()
    gc.disable()
    try:
        way = WAYS[name](ROOMY_CACHE_BYTES)
        memory = measure_memory(way)
        way.close()
    finally:
        if collects:
            gc.enable()
    return Figures(round(python, 2), round(c, 2), **memory)


def version() -> str:
    """The minor version of this Python, by which counts are recorded: each compiles calls in its own way."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def recorded(version: str) -> dict[str, Figures]:
    """What was recorded for a version of Python; empty if nothing was."""
    every: dict[str, dict[str, dict[str, Any]]] = (
        json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    )
    return {name: Figures(**figures) for name, figures in every.get(version, {}).items()}


def record(version: str, found: dict[str, Figures]) -> None:
    """Write the figures down; those of other versions stay."""
    every: dict[str, Any] = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    every[version] = {name: asdict(figures) for name, figures in found.items()}
    RECORDED.write_text(json.dumps(dict(sorted(every.items())), indent=1) + "\n", encoding="utf-8")


@click.command()
@click.option("--record", "write", is_flag=True, help="Write the figures to bench/counts.json.")
def main(write: bool) -> None:
    """Print what a request takes, beside what was recorded, as JSON."""
    found = {name: measure(name) for name in WAYS}
    before = recorded(version())
    shown: dict[str, Any] = {"python": version()}
    for name, figures in found.items():
        then = before.get(name)
        shown[name] = asdict(figures) | {"calls": round(figures.calls, 2)}
        if then is not None:
            shown[name] |= {
                "recorded_calls": round(then.calls, 2),
                "calls_to_recorded": round(figures.calls / then.calls, 3),
            }
    click.echo(json.dumps(shown, indent=1))
    if write:
        record(version(), found)


if __name__ == "__main__":
    main()
