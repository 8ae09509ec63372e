"""The brokers of the comparison, each with a worker behind it, ready to be asked.

What differs between them is written down here and nowhere else: how the broker is started and what is spoken
with it. Load generator and worker are the same compiled programs for all. Voicebus is the real `vc-broker`
with the configuration it has when nobody configures anything, in a folder of its own.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from ..native import Programs
from ..processes import ROOT, Running, cpu_ns, python_command

READY_S: Final = 15.0
ANY_PORT: Final = "tcp://127.0.0.1:*"
_ENDPOINTS: Final = re.compile(r"ready frontend=(\S+) backend=(\S+)(?: key=(\S+))?")


@dataclass(frozen=True, slots=True)
class Party:
    """A broker, and what is spoken with it."""

    name: str
    command: Callable[[Programs], list[str]]
    worker_dialect: str = "ready"
    load_dialect: str = "echo"
    bundles: bool = False
    frames: int = 2
    parts: int = 1
    "Messages of an answer."
    ready: str = "ready"
    "How the line begins that names its addresses."

    @property
    def is_voicebus(self) -> bool:
        """Whether it speaks VB1."""
        return self.load_dialect == "vb1"

    def held(self, credit: int) -> int:
        """How many requests a worker of this party holds where `credit` of them are asked for."""
        # The protocol gives a worker one job beyond its slots, and a worker has at least one slot.
        return max(2, credit) if self.is_voicebus else credit

    def slots(self, credit: int) -> int:
        """What its worker is to be told, so that it holds that many."""
        return self.held(credit) - 1 if self.is_voicebus else credit


def _vc_broker(_programs: Programs) -> list[str]:
    return python_command("voicebus.broker.cli", "--frontend", ANY_PORT, "--backend", ANY_PORT)


def _proxy(_programs: Programs) -> list[str]:
    return python_command("bench.brokers.proxy")


def _curve_proxy(_programs: Programs) -> list[str]:
    return python_command("bench.brokers.proxy", "--curve")


VOICEBUS: Final = Party("voicebus", _vc_broker, "vb1", "vb1", ready="vc-broker ready")
BUNDLED: Final = replace(VOICEBUS, name="voicebus, bundles", bundles=True)
PROXY: Final = Party("zmq.proxy", _proxy, "echo")
PROXY_ONE_FRAME: Final = replace(PROXY, name="zmq.proxy, one frame", frames=1)
PROXY_PARTS: Final = replace(PROXY, name="zmq.proxy, 4 messages", parts=4)
PROXY_CURVE: Final = replace(PROXY, name="zmq.proxy, CURVE", command=_curve_proxy)
C_BROKER: Final = Party("C broker", lambda programs: [str(programs.lru_broker)])
PIRATE: Final = Party("Paranoid Pirate", lambda _programs: python_command("bench.brokers.pirate"))


class Stand:
    """A party's broker and its workers, running for as long as the `with` block.

    `credit`: how many requests a worker may hold, if the party can do that. `service_us`: how long each keeps
    one of the worker's slots busy.
    """

    def __init__(
        self,
        party: Party,
        programs: Programs,
        *,
        answer_bytes: int,
        workers: int,
        credit: int,
        service_us: int = 0,
    ) -> None:
        self.party = party
        self.credit = credit
        self._programs = programs
        self._answer_bytes, self._workers, self._service_us = answer_bytes, workers, service_us
        self._stack = ExitStack()
        self._broker: Running | None = None
        self._worker: Running | None = None
        self.frontend = self.backend = ""
        self.connecting: tuple[str, ...] = ()
        "What both ends are told so that they may connect: the broker's key, if it has one."

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
            errors = stack.enter_context((folder / "errors").open("w"))
            try:
                self._start(stack, folder, errors.fileno())
            except (TimeoutError, RuntimeError) as error:
                said = (folder / "errors").read_text()
                raise RuntimeError(f"{self.party.name} does not start: {error}\n{said}") from error
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def used_s(self) -> float:
        """Processor time that broker and workers have used."""
        return (cpu_ns(self.broker_pid) + (cpu_ns(self._worker.pid) if self._worker else 0)) / 1e9

    @property
    def broker_pid(self) -> int:
        """The broker's process. Raises `RuntimeError` if it has ended."""
        if self._broker is None:
            raise RuntimeError(f"{self.party.name} was not started")
        self._broker.check()
        return self._broker.pid

    def _start(self, stack: ExitStack, folder: Path, errors: int) -> None:
        party = self.party
        # Settings of whoever measures must not become the broker's, nor must a config.yaml that lies here.
        self._broker = stack.enter_context(
            Running(
                party.command(self._programs),
                folder=folder if party.is_voicebus else ROOT,
                unset=[name for name in os.environ if name.startswith("VOICEBUS_")],
                output=subprocess.PIPE,
                errors=errors,
            )
        )
        found = _ENDPOINTS.search(self._broker.line(party.ready, READY_S))
        if found is None:
            raise RuntimeError(f"{party.name} names no addresses")
        self.frontend, self.backend = found[1], found[2]
        self.connecting = ("--server-key", found[3]) if found[3] else ()
        worker = [
            *(str(self._programs.worker), "--connect", self.backend, "--dialect", party.worker_dialect),
            *("--workers", str(self._workers), "--slots", str(party.slots(self.credit))),
            *("--bytes", str(self._answer_bytes), "--service-us", str(self._service_us)),
            *(*self.connecting, "--parts", str(party.parts), *(("--bundle",) if party.bundles else ())),
        ]
        self._worker = stack.enter_context(Running(worker, output=subprocess.PIPE, errors=errors))
        self._worker.line("ready", READY_S)
