"""What a system under comparison is to the runner: a name, what it needs, and how it is started.

`start` begins everything but the client on an `ExitStack`, which ends it again, and says what the client is
to be told. Nothing is shared between two starts: every repetition has fresh processes.
"""

from __future__ import annotations

import select
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ..processes import ROOT, Running
from .install import Place

READY: Final = "ready"
"""The line by which one of our ends says that it listens."""
START_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Started:
    """A system that waits for its client: the client's command line but for the assignment, and the rest.

    `middle` are the processes between client and worker: none where they talk directly.
    """

    client: Sequence[str]
    address: str
    middle: Sequence[int] = ()
    worker: Sequence[int] = ()
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    environ: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class System:
    """One row of the table."""

    name: str
    what: str
    start: Callable[[ExitStack, Place], Started]
    debian: tuple[str, ...] = ()
    "Debian packages whose servers it runs."
    python: tuple[str, ...] = ()
    "Packages that its ends need, of those in requirements-peers.txt."
    quick: bool = False
    large: bool = True
    "Whether it can be asked for large answers."


def end_command(python: str, module: str, *arguments: str) -> list[str]:
    """The command line of an end: one of this package's modules."""
    return [python, "-m", f"{__package__}.{module}", *arguments]


def own_end(module: str, *arguments: str) -> list[str]:
    """An end that needs nothing but what voicebus itself needs."""
    return end_command(sys.executable, module, *arguments)


def scratch(stack: ExitStack) -> Path:
    """A folder for one start."""
    return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-peers-")))


def run(
    stack: ExitStack,
    command: Sequence[str],
    *,
    environ: Mapping[str, str] | None = None,
    group: bool = False,
) -> Running:
    """Start a server, to be ended with the stack; `group`: with all that it starts itself."""
    return stack.enter_context(Running(command, environ=environ, folder=ROOT, group=group))


def run_end(stack: ExitStack, command: Sequence[str], *, environ: Mapping[str, str] | None = None) -> Running:
    """Start one of our own ends and wait until it says that it is ready. Raises what it says otherwise."""
    log = scratch(stack) / "said"
    errors = stack.enter_context(log.open("w"))
    end = stack.enter_context(
        Running(command, environ=environ, folder=ROOT, output=subprocess.PIPE, errors=errors)
    )
    if select.select([end.stdout], [], [], START_S)[0] and end.stdout.readline().strip() == READY:
        return end
    said = log.read_text().strip().splitlines()
    raise RuntimeError(f"{' '.join(command[2:])} was not ready: {said[-1] if said else 'it said nothing'}")


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [pid]
    for parent in found:
        found += parents.get(parent, [])
    return found
