"""The engine's process: it loads one engine and speaks the jobs it is given, one by one or together.

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
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import zmq

from ..common import wire
from ..common.config import Logging
from ..common.errors import BusError, Cancelled, ConfigError, EngineError, ProtocolError
from ..common.heap import keep_freed_memory
from ..common.logging import setup_logging
from ..common.messages import encode, failed
from ..common.urgency import Urgency
from ..common.wire import pack_envelope
from . import control
from .agent_link import AgentLink

if TYPE_CHECKING:
    from collections.abc import Callable

    from .attempt import Host
    from .checking import Checker
    from .engine import Engine
    from .host_settings import HostSettings

log = logging.getLogger(__name__)

SETUP_TIMEOUT_MS: Final = 30_000
FIXED_NICE: Final = 5
"""Where the system does not let an engine change: a little less than those who carry its audio."""
REPORT_S: Final = 1.0
"""How often figures that change go to the agent, whose beats carry them on."""
_MIB: Final = 1024 * 1024
_PR_SET_PDEATHSIG: Final = 1


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
    urgency = Urgency(setup.nice, fixed=FIXED_NICE)
    try:
        settings = _host_settings(setup)
        engine, loaded = _load(setup)
        # Not before: weights in a heap of this kind leave holes as large as they are, and are slower to read.
        keep_freed_memory(computes=True)
        checker = _checker(engine, settings)
    except BusError as error:
        problem = error
    except MemoryError:
        problem = EngineError(f"engine {setup.engine} does not fit into this machine's memory")
    except BaseException as error:
        log.exception("engine %s could not be loaded", setup.engine)
        problem = EngineError(f"engine {setup.engine} could not be loaded: {type(error).__name__}: {error}")
    else:
        _work(link, engine, loaded, setup, settings, checker, urgency)
        with contextlib.suppress(Exception):
            engine.close()
        return 0
    problem.message = problem.message.encode(errors="replace").decode()
    link.send([pack_envelope(wire.FAILED), encode(failed(problem))])
    return 1


def _host_settings(setup: control.Setup) -> HostSettings:
    """Read what the host was told, and bound the memory of this process before anything fills it."""
    from .host_settings import HostSettings

    settings, _ = HostSettings.read(setup.host)
    if settings.memory_limit_mb is not None:
        import resource

        limit_bytes = settings.memory_limit_mb * _MIB
        # Memory of its own: programs and libraries, which are mapped, do not count.
        resource.setrlimit(resource.RLIMIT_DATA, (limit_bytes, limit_bytes))
    return settings


def _checker(engine: Engine[Any], settings: HostSettings) -> Checker:
    from .checking import Checker
    from .verify import Transcriber, VerifySettings

    verify, _ = VerifySettings.read(settings.verify)
    transcriber = Transcriber(verify) if verify.verify != "off" and engine.speech else None
    return Checker(is_on=settings.self_check and engine.speech, transcriber=transcriber)


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
        learns=bool(engine.learns),
        batch=int(engine.batch),
    )
    message = control.message(control.LOADED, loaded)
    try:
        control.decode(message[1], control.Loaded)
    except ProtocolError as error:
        # Found here it is one clear line; found by a broker it would be a worker that never registers.
        raise EngineError(f"engine {setup.engine} describes itself wrongly: {error.message}") from None
    return engine, message


def _work(
    link: AgentLink,
    engine: Engine[Any],
    loaded: list[bytes],
    setup: control.Setup,
    settings: HostSettings,
    checker: Checker,
    urgency: Urgency,
) -> None:
    from ..common.voices import VoiceStore
    from .attempt import Host
    from .catalogue import StoreCatalogue
    from .voicecache import VoiceCache

    def learning() -> None:
        link.send(control.message(control.LEARNING))

    reports = _Reports(link)
    voices = VoiceCache(
        engine,
        StoreCatalogue(VoiceStore(setup.voices_path, cache_dir=setup.cache_dir)),
        setup.default_voice,
        Path(setup.cache_dir),
        max_voices=settings.max_voices,
        learning=learning,
        changed=reports.voices,
    )
    host = Host(setup.engine, setup.worker, engine, voices, link, checker)
    # What was loaded stays for good: the collector need not look through it again and again.
    gc.collect()
    gc.freeze()
    link.send(loaded)
    reports.sources += [checker.figures, engine.figures]
    if engine.batch > 1:
        _speak_together(host, link, settings.batch_wait_s, reports, urgency)
    else:
        _speak_in_turn(host, link, reports, urgency)


def _speak_in_turn(host: Host[Any], link: AgentLink, reports: _Reports, urgency: Urgency) -> None:
    from .speaking import Speaker

    speaker = Speaker(host)
    while not link.leaving:
        frames = link.take(0)
        if frames is None:
            # With nothing to do it is ready for a listener.
            urgency.prefer(patient=False)
            reports.figures(idle=True)
            frames = link.take(None)
        if frames is not None:
            urgency.prefer(patient=bool(frames[0][23] & wire.PATIENT))
            speaker.run(frames)
            reports.figures()


def _speak_together(
    host: Host[Any], link: AgentLink, wait_s: float, reports: _Reports, urgency: Urgency
) -> None:
    from .choir import Choir

    choir = Choir(host, link, wait_s)
    reports.sources.append(choir.figures)
    while not link.leaving:
        if choir.is_empty:
            frames = link.take(0)
            if frames is None:
                urgency.prefer(patient=False)
                reports.figures(idle=True)
                frames = link.take(None)
            if frames is None:
                break
            choir.add(frames)
        choir.gather()
        if not choir.is_empty:
            urgency.prefer(patient=choir.is_patient)
            choir.sing()
            reports.figures()
    choir.dismiss(Cancelled("the worker ends"))


class _Reports:
    """What the agent is told unasked: the voices at once, figures when there is time or once a second."""

    def __init__(self, link: AgentLink) -> None:
        self.sources: list[Callable[[], Mapping[str, int | float]]] = []
        self._link = link
        self._voices: list[str] = []
        self._told: dict[str, int | float] = {}
        self._due_at = 0.0

    def voices(self, warm: list[str]) -> None:
        """Tell which voices are in memory now."""
        self._voices = warm
        self._send()

    def figures(self, *, idle: bool = False) -> None:
        """Tell the figures, if they have changed and it is time."""
        if (idle or time.monotonic() >= self._due_at) and self._now() != self._told:
            self._send()

    def _now(self) -> dict[str, int | float]:
        return {name: value for source in self.sources for name, value in source().items()}

    def _send(self) -> None:
        self._told = self._now()
        self._due_at = time.monotonic() + REPORT_S
        self._link.send(control.message(control.REPORT, control.Report(self._voices, self._told)))


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
