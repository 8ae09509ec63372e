"""Real processes under hostile peers: a broker, a worker and a client, while honest peers go on.

A hostile client and a hostile worker talk to the real broker, each over a ZeroMQ socket and over bare TCP; a
hostile broker talks to a real worker, which has an honest broker too, and to a real client. What they say are
captured conversations, changed. All along an honest client must get the very samples of its first answer, a
PING must be answered, nobody may end, print a traceback, or grow beyond its bound.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

import psutil
import zmq

from tests.fuzz import mutate
from tests.fuzz.capture import FROM_CLIENT, FROM_WORKER, TO_CLIENT, TO_WORKER, conversations
from tests.fuzz.samples import JOBS, message_of
from voicebus.client import Client
from voicebus.client.launch import Bus, WorkerPlan, worker_command
from voicebus.client.processes import Child
from voicebus.common import bundles, wire

PLANTED: Final = Path(__file__).parent / "planted"
ENGINE: Final = "tone"
TEXT: Final = "All this time, somebody honest is spoken to."
ANSWER_S: Final = 15.0
"""What an honest answer may take while the machine is busy with us."""
GROWTH_BYTES: Final = 192 << 20
"""What a process under test may grow by."""
BORNE: Final = 30
"""Messages over one connection: a peer that is malformed too often is not answered any more."""
SIGNS: Final = re.compile(r"Traceback|a bug of|Error: |Exception in")
BOMBS: Final = (
    b"\xff" * wire.MAX_PAYLOAD_BYTES,
    bytes(wire.MAX_PAYLOAD_BYTES),
    b"\x91" * wire.MAX_PAYLOAD_BYTES,
)
GREETINGS: Final = (
    b"GET / HTTP/1.1\r\n\r\n",
    b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(48),
    b"\xff" + bytes(8) + b"\x7f\x03\x01NULL" + bytes(48)
    + b"\x04\x26\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER",
    b"\xff" + bytes(8) + b"\x7f\x03\x01CURVE" + bytes(47),
    b"\xff" + bytes(8) + b"\x7f\x09\x09NULL" + bytes(48),
)  # fmt: skip
LENGTHS: Final = (
    b"\x02" + b"\x7f" + b"\xff" * 7,
    b"\x00\xff",
    b"\x01\x20",
    b"\x06\xff" + b"\xff" * 8,
    b"\x04\x00",
)


@dataclass(slots=True)
class Report:
    """What came of it."""

    sent: int = 0
    honest: int = 0
    answered_by_client: int = 0
    slowest_s: float = 0.0
    grown_bytes: dict[str, int] = field(default_factory=dict[str, int])
    wrong: list[str] = field(default_factory=list[str])


class Stranger:
    """One hostile peer, in a thread of its own. `last` are the messages that it said last."""

    def __init__(self, say: Callable[[Random], int], seed: int) -> None:
        self.sent = 0
        self._say = say
        self._dice = Random(seed)
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._ends.is_set():
            self.sent += self._say(self._dice)
            self._ends.wait(0.002)

    def close(self) -> None:
        """Fall silent."""
        self._ends.set()
        self._thread.join()


def lines_of(way: int) -> list[list[list[bytes]]]:
    """What was said that way in each captured conversation, with the names of honest peers taken out."""
    found: list[list[list[bytes]]] = []
    for heard in conversations().values():
        said = [
            list(map(_estranged, frames))
            for _, of, _, frames in heard
            if of == way and not _ends(way, frames)
        ]
        if said:
            found.append(said)
    return found


def _ends(way: int, frames: list[bytes]) -> bool:
    """Whether it tells a worker to leave, alone or in a bundle."""
    return way == TO_WORKER and any(b"VB1" + end in frame for end in ENDS for frame in frames)


def _estranged(frame: bytes) -> bytes:
    return (
        frame.replace(b"\xa4tone", b"\xa4evil")
        .replace(b"\xa6tone-0", b"\xa6evil-0")
        .replace(b"tone-0", b"evil-0")
    )


class Talker:
    """Says changed conversations over a ZeroMQ socket, and dials anew now and then."""

    def __init__(self, address: str, ways: int, kinds: tuple[int, ...]) -> None:
        self._address = address
        self._lines = lines_of(ways)
        self._kinds = kinds
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        self._socket: zmq.Socket[bytes] | None = None
        self._left = 0

    def __call__(self, dice: Random) -> int:
        """Say one conversation's piece."""
        if self._socket is None or self._left <= 0:
            if self._socket is not None:
                self._socket.close(0)
            self._socket = self._context.socket(zmq.DEALER)
            self._socket.linger, self._socket.sndtimeo = 0, 200
            self._socket.connect(self._address)
            self._left = BORNE
        said = 0
        line = dice.choice(self._lines)
        at = dice.randrange(len(line))
        for frames in line[at : at + dice.choice((1, 3, 8))]:
            for message in changed(frames, dice, self._kinds):
                try:
                    self._socket.send_multipart(message)
                except zmq.ZMQError:
                    self._left = 0
                    return said
                said += 1
        self._left -= said
        while dice.random() < 0.8 and self._socket.poll(0):
            self._socket.recv_multipart()
        return said


def changed(frames: list[bytes], dice: Random, kinds: tuple[int, ...]) -> list[list[bytes]]:
    """One message as it was, changed, said twice, or another of a kind that goes this way."""
    what = dice.random()
    if what < 0.3:
        return [frames]
    if what < 0.6:
        frames = [
            _estranged(frame)
            for frame in message_of(dice.choice(kinds), dice.choice(JOBS), dice.choice((0, 1, 2)))
        ]
        return [frames if what < 0.45 else mutate.message(frames, dice, JOBS)]
    if what < 0.65:
        return [[frames[0], dice.choice(BOMBS)] if len(frames) < 3 else [*frames[:-1], dice.choice(BOMBS)]]
    if what < 0.7:
        return [frames] * dice.choice((2, 5))
    return [[_estranged(frame) for frame in mutate.message(frames, dice, JOBS)]]


class Garbler:
    """Says on bare TCP what is ZMTP at most in part, and leaves some connections half-open."""

    def __init__(self, address: str) -> None:
        host, _, port = address.removeprefix("tcp://").rpartition(":")
        self._place = host, int(port)
        self._open: list[socket.socket] = []

    def __call__(self, dice: Random) -> int:
        """One connection."""
        try:
            line = socket.create_connection(self._place, 1)
            line.sendall(dice.choice(GREETINGS)[: dice.choice((1, 10, 64, 200))])
            if dice.random() < 0.5:
                line.sendall(dice.choice(LENGTHS) + dice.randbytes(dice.choice((0, 10, 3000))))
        except OSError:
            return 0
        self._open.append(line)
        while len(self._open) > 20:
            self._open.pop(dice.randrange(len(self._open))).close()
        return 1


class FalseBroker:
    """Two ROUTERs that answer whoever comes with changed conversations, about whatever jobs they name."""

    def __init__(self, dice: Random) -> None:
        self._dice = dice
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        self._sides: list[tuple[zmq.Socket[bytes], list[list[list[bytes]]], tuple[int, ...]]] = []
        for way, kinds in ((TO_CLIENT, CLIENT_HEARS), (TO_WORKER, WORKER_HEARS)):
            router = context.socket(zmq.ROUTER)
            router.linger, router.sndtimeo = 0, 100
            router.bind("tcp://127.0.0.1:*")
            self._sides.append((router, lines_of(way), kinds))
        self.frontend, self.backend = (side[0].get_string(zmq.LAST_ENDPOINT) for side in self._sides)
        self._peers: list[list[bytes]] = [[], []]
        self._jobs: list[bytes] = list(JOBS)

    def __call__(self, _dice: Random) -> int:
        """Hear what has come, and say something to somebody."""
        dice, said = self._dice, 0
        for number, (router, lines, kinds) in enumerate(self._sides):
            peers = self._peers[number]
            while router.poll(0):
                peer, *frames = router.recv_multipart()
                if peer not in peers:
                    peers[:] = [*peers[-3:], peer]
                if frames and len(frames[0]) == wire.ENVELOPE_BYTES:
                    self._jobs = [*self._jobs, *_named(frames)][-24:]
                    said += self._answer(router, peer, frames[0])
            for peer in peers:
                for frames in changed(dice.choice(dice.choice(lines)), dice, kinds):
                    if frames[0][3:4] in ENDS:
                        continue
                    if len(frames[0]) == wire.ENVELOPE_BYTES and dice.random() < 0.8:
                        row = bytearray(frames[0])
                        row[4:20] = dice.choice(self._jobs)
                        frames = [bytes(row), *frames[1:]]
                    said += _told(router, [peer, *frames])
        return said

    def _answer(self, router: zmq.Socket[bytes], peer: bytes, envelope: bytes) -> int:
        """Be polite for once, so that the other end goes on."""
        if envelope[3] == wire.PING and self._dice.random() < 0.7:
            return _told(router, [peer, envelope[:3] + bytes((wire.PONG,)) + envelope[4:]])
        if envelope[3] in (wire.READY, wire.BUNDLE) and self._dice.random() < 0.7:
            return _told(router, [peer, *message_of(wire.WELCOME, wire.NO_JOB, 0)])
        return 0


CLIENT_HEARS: Final = (
    wire.ACCEPTED,
    wire.STARTED,
    wire.CHUNK,
    wire.DONE,
    wire.FAILED,
    wire.SPOKEN,
    wire.PONG,
    wire.ADMIN,
)
ENDS: Final = (bytes((wire.DRAIN,)), bytes((wire.GOODBYE,)))
"""After these a worker has left a broker for good, and hears nothing more that could be tried on it."""
# Without GOODBYE: two in a row mean to a worker that another has its name, and then it leaves, as it should.
WORKER_HEARS: Final = (wire.WELCOME, wire.JOB, wire.CANCEL, wire.HEARTBEAT, wire.REREGISTER, wire.FAILED)
CLIENT_SAYS: Final = (wire.SUBMIT, wire.PING, wire.CANCEL, wire.FETCH, wire.ADMIN)
WORKER_SAYS: Final = (
    wire.READY, wire.HEARTBEAT, wire.STARTED, wire.CHUNK, wire.DONE, wire.SPOKEN, wire.FAILED, wire.RETURN,
    wire.DRAIN, wire.DRAINED, wire.GOODBYE,
)  # fmt: skip


def _named(frames: list[bytes]) -> list[bytes]:
    """The jobs that a message names, or those in its bundle do."""
    envelopes = [frames[0]]
    if frames[0][3] == wire.BUNDLE and len(frames) == 2:
        envelopes = [envelope for envelope, _, _ in bundles.unpack(frames[1])]
    return [envelope[4:20] for envelope in envelopes if envelope[4:20] != wire.NO_JOB]


def _told(router: zmq.Socket[bytes], frames: list[bytes]) -> int:
    try:
        router.send_multipart(frames)
    except zmq.ZMQError:
        return 0
    return 1


class Watch:
    """The processes under test: whether they live, what they print, what they take."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._base: dict[str, tuple[psutil.Process, int]] = {}

    def line(self, child: Child, line: str) -> None:
        """Look at a line of output."""
        if SIGNS.search(line) and len(self._report.wrong) < 20:
            self._report.wrong.append(f"{child.name} prints {line!r}")

    def add(self, name: str, pid: int) -> None:
        """Watch a process from what it takes now."""
        process = psutil.Process(pid)
        self._base[name] = process, _rss(process)

    def look(self) -> None:
        """Note who is gone, and who has grown too much."""
        for name, (process, base) in self._base.items():
            if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
                self._report.wrong.append(f"{name} has ended")
                continue
            grown = _rss(process) - base
            self._report.grown_bytes[name] = max(grown, self._report.grown_bytes.get(name, 0))
            if grown > GROWTH_BYTES:
                self._report.wrong.append(f"{name} has grown by {grown >> 20} MiB")


def _rss(process: psutil.Process) -> int:
    total = 0
    for one in (process, *process.children(recursive=True)):
        try:
            total += one.memory_info().rss
        except psutil.Error:
            continue
    return total


def ping(address: str) -> float:
    """Seconds until a broker says that it is here; raises `TimeoutError`."""
    line = zmq.Context.instance().socket(zmq.DEALER)
    line.linger = 0
    line.connect(address)
    began = time.monotonic()
    try:
        line.send_multipart([wire.pack_envelope(wire.PING, sequence=7)])
        if not line.poll(int(ANSWER_S * 1000)):
            raise TimeoutError("no PONG")
        return time.monotonic() - began
    finally:
        line.close(0)


CONFIG: Final[dict[str, Any]] = {
    "broker": {
        "default_engine": "evil",
        "no_worker_grace_s": 2,
        "default_deadline_s": 10,
        "client_timeout_s": 5,
    }
}


def live(seconds: float, seed: int, plant: str = "") -> Report:
    """Run it all for so long; `plant` names a bug to plant in all processes under test."""
    report = Report()
    environ = {"VOICEBUS_FUZZ_PLANT": plant, "PYTHONPATH": str(PLANTED)} if plant else {}
    watch = Watch(report)
    strangers: list[Stranger] = []
    false = FalseBroker(Random(seed))
    with Bus({}, config=CONFIG, environ=environ, on_line=watch.line) as bus:
        plan = WorkerPlan(ENGINE, "honest-worker", ("--broker", false.backend))
        command = worker_command(plan, bus.backend, ("--config", str(bus.config_file), "--slots", "3"))
        worker = Child("worker", command, "vc-worker ready", environ=environ, on_line=watch.line)
        speaker = Speaker(false.frontend, report, environ)
        try:
            worker.wait_ready(60)
            if bus.broker is None:
                raise AssertionError("a bus has a broker")
            with Client(bus.frontend) as client:
                first = client.say(TEXT, engine=ENGINE, deadline_s=ANSWER_S).pcm
                watch.add("broker", bus.broker.pid)
                watch.add("worker", worker.pid)
                watch.add("client", speaker.pid)
                said: list[Callable[[Random], int]] = [
                    Talker(bus.frontend, FROM_CLIENT, CLIENT_SAYS),
                    Talker(bus.backend, FROM_WORKER, WORKER_SAYS),
                    Garbler(bus.frontend), Garbler(bus.backend), false,
                ]  # fmt: skip
                strangers += [Stranger(say, seed + number) for number, say in enumerate(said)]
                until = time.monotonic() + seconds
                while time.monotonic() < until and not report.wrong:
                    _honest(client, bus.frontend, first, report)
                    watch.look()
                for stranger in strangers:
                    stranger.close()
                    report.sent += stranger.sent
                strangers.clear()
                _honest(client, bus.frontend, first, report)
                watch.look()
        finally:
            for stranger in strangers:
                stranger.close()
            speaker.close()
            worker.end(10)
    if not report.answered_by_client:
        report.wrong.append("the client under the hostile broker has ended no job at all")
    return report


def _honest(client: Client, address: str, first: bytes, report: Report) -> None:
    began = time.monotonic()
    try:
        pcm = client.say(TEXT, engine=ENGINE, deadline_s=ANSWER_S).pcm
        ping(address)
    except Exception as error:
        report.wrong.append(f"an honest client is not served: {error!r}")
        return
    if pcm != first:
        report.wrong.append("the samples are not those of the first answer")
    report.honest += 1
    report.slowest_s = max(report.slowest_s, time.monotonic() - began)


class Speaker:
    """The client under test: its lines are counted; a silence longer than its deadlines is a hang."""

    def __init__(self, address: str, report: Report, environ: dict[str, str]) -> None:
        self._report = report
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.live_client", address],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            cwd=PLANTED.parents[2], env=os.environ | environ,
        )  # fmt: skip
        self.pid = self._process.pid
        self._heard_at = time.monotonic()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        for line in self._process.stdout or ():
            if SIGNS.search(line):
                self._report.wrong.append(f"the client prints {line!r}")
            elif re.fullmatch(r"[a-z_]+\n", line):
                self._report.answered_by_client += 1
                now = time.monotonic()
                if now - self._heard_at > ANSWER_S:
                    self._report.wrong.append(f"the client stood still for {now - self._heard_at:.0f} s")
                self._heard_at = now

    def close(self) -> None:
        """Have it end."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(ANSWER_S)
        except subprocess.TimeoutExpired:
            self._report.wrong.append("the client does not end")
            self._process.kill()
        self._thread.join()


def told(report: Report, seconds: float) -> str:
    """A report as lines."""
    grown = ", ".join(f"{name} {size >> 20} MiB" for name, size in report.grown_bytes.items())
    return (
        f"live: {report.sent:,} hostile messages in {seconds:.0f} s, {report.honest} honest answers (slowest"
        f" {report.slowest_s:.1f} s), {report.answered_by_client} jobs ended under a hostile broker;"
        f" grown: {grown}"
    )
