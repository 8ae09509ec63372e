"""Thousands of plain workers in a process, which beat and answer jobs: the other side of `bench.scale`.

A worker here is a socket that speaks just enough VB1: READY, a HEARTBEAT each interval, and STARTED, CHUNK
and DONE for every JOB. A few processes share a large herd, as one may not open enough files.
"""

from __future__ import annotations

import multiprocessing
import select
import time
from collections import deque
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from math import inf
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Final, Self

from voicebus.common import wire
from voicebus.common.messages import Done, Heartbeat, Ready, Started, encode

from .crowd import Peers

END_S: Final = 10.0
AUDIO: Final = bytes(200)


@dataclass(frozen=True, slots=True)
class Plan:
    """What the workers of one process are like. `answers`: whether they answer jobs, or just hold them."""

    backend: str
    workers: int
    slots: int = 1
    interval_s: float = 10.0
    answers: bool = True
    prefix: str = "w"


class Herd:
    """The workers of one process, in that process."""

    def __init__(self, plan: Plan, line: Connection) -> None:
        self._plan = plan
        self._line = line
        self._peers = Peers(plan.backend, plan.workers)
        self._peers.epoll.register(line.fileno(), select.EPOLLIN)
        self._beat = (wire.pack_envelope(wire.HEARTBEAT), encode(Heartbeat(free_slots=plan.slots)))
        self._done = encode(Done(1, len(AUDIO) // 2, 0.0))
        self._started = encode(Started(plan.prefix, "tone", 24_000, 1))
        self._due: deque[tuple[float, int]] = deque()
        "When each is to beat: all at the same interval, so in the order of the last beats."
        self._welcomed: set[int] = set()
        self._last_welcome_at = 0.0
        self._jobs = 0

    def serve(self) -> None:
        """Do as the line says, until it is closed."""
        line = self._line
        while True:
            now = time.monotonic()
            while self._due and self._due[0][0] <= now:
                _, index = self._due.popleft()
                self._peers.send(index, *self._beat)
                self._due.append((now + self._plan.interval_s, index))
                self._answer(index)
            timeout_s = min(0.5, max(0.0, self._due[0][0] - now) if self._due else inf)
            for index in self._peers.woken(timeout_s):
                self._answer(index)
            while line.poll():
                if not self._obey(line.recv()):
                    self._peers.close()
                    return

    def _obey(self, order: str) -> bool:
        if order == "register":
            now = time.monotonic()
            for index in range(self._plan.workers):
                ready = Ready(
                    f"{self._plan.prefix}{index}", 1, "tone", ["en"], self._plan.slots,
                    round(self._plan.interval_s * 1000), 24_000,
                )  # fmt: skip
                self._peers.connect(index)
                self._peers.send(index, wire.pack_envelope(wire.READY), encode(ready))
                self._due.append((now + self._plan.interval_s, index))
                self._answer(index)
        elif order == "leave":
            for index in range(self._plan.workers):
                self._peers.send(index, wire.pack_envelope(wire.GOODBYE))
            self._due.clear()
        elif order == "report":
            self._line.send((len(self._welcomed), self._last_welcome_at, self._jobs))
        return order != "end"

    def _answer(self, index: int) -> None:
        worked = True
        while worked:
            worked = False
            for frames in self._peers.received(index):
                kind = frames[0][3]
                if kind == wire.WELCOME:
                    self._welcomed.add(index)
                    self._last_welcome_at = time.monotonic()
                elif kind == wire.JOB:
                    self._jobs += 1
                    if self._plan.answers:
                        self._speak(index, frames[0])
                        worked = True

    def _speak(self, index: int, envelope: bytes) -> None:
        job, attempt = envelope[4:20], int.from_bytes(envelope[20:22])
        send = self._peers.send
        send(index, wire.pack_envelope(wire.STARTED, job, attempt), self._started)
        send(index, wire.pack_envelope(wire.CHUNK, job, attempt, wire.SEGMENT_END), AUDIO)
        send(index, wire.pack_envelope(wire.DONE, job, attempt), self._done)


def _run(plan: Plan, line: Connection) -> None:
    herd = Herd(plan, line)
    line.send("connected")
    try:
        herd.serve()
    except (EOFError, KeyboardInterrupt):
        return  # whoever started us is gone, or leaves


class HerdProcess:
    """A process with a herd, for as long as the `with` block runs."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        spawn = multiprocessing.get_context("spawn")
        self._line, far_end = spawn.Pipe()
        self._process = spawn.Process(target=_run, args=(plan, far_end), daemon=True)
        self._process.start()
        far_end.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):  # it may have ended by itself
            self._line.send("end")
        self._process.join(END_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join(END_S)
        self._line.close()

    def wait_made(self, timeout_s: float) -> None:
        """Wait until all its sockets are there. Raises `TimeoutError`."""
        if not self._line.poll(timeout_s):
            raise TimeoutError(f"{self.plan.workers:,} sockets were not made within {timeout_s:g} s")
        self._line.recv()

    def order(self, what: str) -> None:
        """`register` or `leave`."""
        self._line.send(what)

    def report(self, timeout_s: float) -> tuple[int, float, int]:
        """How many are registered, when the last of them was, and jobs received. Raises `TimeoutError`."""
        self._line.send("report")
        if not self._line.poll(timeout_s):
            raise TimeoutError(f"no report within {timeout_s:g} s")
        return self._line.recv()


@contextmanager
def herd(plan: Plan, processes: int, made_s: float = 60.0) -> Generator[list[HerdProcess]]:
    """The workers of a plan, spread over so many processes; they have not connected yet."""
    shares = [plan.workers // processes + (n < plan.workers % processes) for n in range(processes)]
    with ExitStack() as stack:
        made = [
            stack.enter_context(HerdProcess(replace(plan, workers=share, prefix=f"{plan.prefix}{number}-")))
            for number, share in enumerate(shares)
            if share
        ]
        for process in made:
            process.wait_made(made_s)
        yield made
