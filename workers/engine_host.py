"""The engine's process: it loads one engine and speaks one job after the other.

It is started by the agent with the address of their link and nothing else; everything more comes in SETUP.
It has no say in its own end: Ctrl-C and SIGTERM reach the whole group of processes, but the jobs are the
agent's, so both are ignored here, and the agent ends this process with a GOODBYE or by force. It does not
outlive its agent either: the kernel kills it where it can (Linux), and everywhere a thread waits for the end
of what was standard input, whose other end only the agent holds.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import zmq

from ..common import bundles, wire
from ..common.config import Logging
from ..common.errors import BusError, Cancelled, ConfigError, EngineError, ProtocolError
from ..common.heap import keep_freed_memory
from ..common.logging import setup_logging
from ..common.messages import encode, failed
from ..common.urgency import Urgency
from ..common.wire import COPY_BELOW_BYTES, pack_envelope
from . import control
from .actions import Frames

if TYPE_CHECKING:
    from .engine import Engine

log = logging.getLogger(__name__)

SETUP_TIMEOUT_MS: Final = 30_000
FIXED_NICE: Final = 5
"""Where the system does not let an engine change: a little less than those who carry its audio."""
BUNDLED_BYTES: Final = 64 * 1024
"""Below, a copy is cheaper than another wake-up of the agent."""
SEND_AHEAD: Final = 64
"""Messages that may wait for the agent; more, and the engine waits (at most 16 MiB of audio)."""
_PR_SET_PDEATHSIG: Final = 1


class AgentLink:
    """The child's end of the link. One job is current at a time; its CANCEL, or GOODBYE, stops it."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], address: str) -> None:
        self._socket = context.socket(zmq.PAIR)
        self._socket.linger = 1000
        self._socket.sndhwm = SEND_AHEAD
        self._socket.maxmsgsize = wire.MAX_FRAME_BYTES
        self._socket.connect(address)
        self._current = b""
        self._cancelled = False
        self.leaving = False

    def receive(self, timeout_ms: int | None = None) -> Frames:
        """Wait for the next message; an empty list when none came in time."""
        if not self._socket.poll(timeout_ms):
            return []
        return self._socket.recv_multipart()

    def begin(self, key: bytes) -> None:
        """Make a job the current one."""
        self._current = key
        self._cancelled = False

    def check(self) -> None:
        """Take what has arrived; raise `Cancelled` if the current job is to stop."""
        while True:
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            self._note(frames)
        if self._cancelled or self.leaving:
            raise Cancelled("the job was cancelled")

    def _note(self, frames: Frames) -> None:
        kind = frames[0][3]
        if kind == wire.GOODBYE:
            self.leaving = True
        elif kind == wire.CANCEL and frames[0][4:22] == self._current:
            self._cancelled = True

    def send(self, *messages: Frames) -> None:
        """Send, waiting for room; a job that is cancelled meanwhile raises `Cancelled` at a CHUNK.

        Several messages leave as one if they fit: the agent is then woken once, and has them side by side.
        """
        if len(messages) > 1 and sum(len(frame) for frames in messages for frame in frames) < BUNDLED_BYTES:
            messages = tuple(list(bundle) for bundle in bundles.pack(messages))
        for frames in messages:
            self._send(frames)

    def _send(self, frames: Frames) -> None:
        while True:
            try:
                # The first part finds room for the whole message or fails.
                last = len(frames) - 1
                for place, frame in enumerate(frames):
                    flags = zmq.NOBLOCK | (zmq.SNDMORE if place < last else 0)
                    self._socket.send(frame, flags, copy=len(frame) < COPY_BELOW_BYTES)
            except zmq.Again:
                if frames[0][3] == wire.CHUNK:
                    self.check()
                self._socket.poll(100, zmq.POLLOUT)
            else:
                return

    def close(self) -> None:
        """Close; what was sent still goes out, for a second."""
        self._socket.close()


def main(arguments: list[str] | None = None) -> int:
    """Run the process: ENGINE ADDRESS AGENT_PID SENTINEL_FD. Return the exit code."""
    _, address, agent_pid, sentinel = sys.argv[1:] if arguments is None else arguments
    lifeline = _take_standard_input()
    _die_with_agent(int(agent_pid), lifeline)
    os.set_inheritable(int(sentinel), False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    link = AgentLink(context, address)
    try:
        return _serve(link)
    finally:
        link.close()
        context.term()


def _serve(link: AgentLink) -> int:
    link.send(control.message(control.HELLO))
    frames = link.receive(SETUP_TIMEOUT_MS)
    if not frames or frames[0][3] != control.SETUP:
        return 1
    setup = control.decode(frames[1], control.Setup)
    setup_logging(msgspec.convert(setup.logging, Logging), "engine")
    keep_freed_memory()
    urgency = Urgency(setup.nice, fixed=FIXED_NICE)
    try:
        engine = _load(setup)
    except BusError as error:
        problem = error
    except MemoryError:
        problem = EngineError(f"engine {setup.engine} does not fit into this machine's memory")
    except (Exception, SystemExit) as error:
        log.exception("engine %s could not be loaded", setup.engine)
        problem = EngineError(f"engine {setup.engine} could not be loaded: {type(error).__name__}: {error}")
    else:
        _work(link, *engine, setup, urgency)
        with contextlib.suppress(Exception):
            engine[0].close()
        return 0
    problem.message = problem.message.encode(errors="replace").decode()
    link.send([pack_envelope(wire.FAILED), encode(failed(problem))])
    return 1


def _load(setup: control.Setup) -> tuple[Engine[Any], list[bytes]]:
    """Load the engine; return it and the LOADED that introduces it. Raises `BusError` and what it raises."""
    from .registry import create, remedy

    try:
        engine = create(setup.engine)
        engine.load(setup.settings)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"engine {setup.engine} needs the package {error.name}: {remedy(setup.engine)}"
        ) from error
    languages = [str(language) for language in engine.languages]
    loaded = control.Loaded(
        setup.engine,
        str(engine.version),
        int(engine.sample_rate),
        languages,
        min(map(engine.max_chars, languages), default=0),
        learns=bool(engine.needs_voice),
    )
    message = control.message(control.LOADED, loaded)
    try:
        control.decode(message[1], control.Loaded)
    except ProtocolError as error:
        # Found here it is one clear line; found by a broker it would be a worker that never registers.
        raise EngineError(f"engine {setup.engine} describes itself wrongly: {error.message}") from None
    return engine, message


def _work(
    link: AgentLink, engine: Engine[Any], loaded: list[bytes], setup: control.Setup, urgency: Urgency
) -> None:
    from ..common.voices import VoiceStore
    from .catalogue import StoreCatalogue
    from .speaking import Speaker
    from .voicecache import VoiceCache

    def report(warm_voices: list[str]) -> None:
        link.send(control.message(control.REPORT, control.Report(warm_voices)))

    def learning() -> None:
        link.send(control.message(control.LEARNING))

    voices = VoiceCache(
        engine,
        StoreCatalogue(VoiceStore(setup.voices_path, cache_dir=setup.cache_dir)),
        setup.default_voice,
        Path(setup.cache_dir),
        max_voices=setup.max_voices,
        learning=learning,
        changed=report,
    )
    speaker = Speaker(setup.engine, setup.worker, engine, voices, link)
    # What was loaded stays for good: the collector need not look through it again and again.
    gc.collect()
    gc.freeze()
    link.send(loaded)
    while not link.leaving:
        frames = link.receive(0)
        if not frames:
            # With nothing to do it is ready for a listener.
            urgency.prefer(patient=False)
            frames = link.receive()
        kind = frames[0][3]
        if kind == wire.JOB:
            urgency.prefer(patient=bool(frames[0][23] & wire.PATIENT))
            link.begin(frames[0][4:22])
            speaker.run(frames)
        elif kind == wire.GOODBYE:
            return
        elif kind != wire.CANCEL:  # a CANCEL that crossed the job's end needs no answer
            raise ProtocolError(f"the agent sent kind {kind:#04x}")


def _take_standard_input() -> int:
    """Keep the lifeline for ourselves: an engine that asks a question reads an end of file, and fails."""
    lifeline = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return lifeline


def _die_with_agent(agent_pid: int, lifeline: int) -> None:
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != agent_pid:  # it died before the line above
        os._exit(1)
    threading.Thread(target=_wait_for_agent, args=(lifeline,), name="lifeline", daemon=True).start()


def _wait_for_agent(lifeline: int) -> None:
    with contextlib.suppress(OSError):
        while os.read(lifeline, 1):
            pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
