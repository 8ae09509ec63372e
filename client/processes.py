"""A child process that is watched line by line: what it prints, when it is ready, how it ended.

Children run in a process group of their own, so that Ctrl-C in a terminal reaches only the parent, which
then ends them in the right order. Every wait is bounded and waits for an event: a line, the end, never a
guess. Only processes started here are ever signalled, by their handle.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from ..common.errors import BusError, ConfigError, EngineError, error_from_code

KEPT_LINES: Final = 200
LAST_WORDS_S: Final = 1.0
_CODED = re.compile(r"^vc-[a-z]+: (?P<code>[a-z_]+): (?P<message>.+)$")
_USAGE = re.compile(r"^Error: (?P<message>.+)$")

_BOUND: Final = (
    "import ctypes, os, sys\n"
    "PR_SET_PDEATHSIG, SIGTERM = 1, 15\n"
    "ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, SIGTERM)\n"
    "os.getppid() == int(sys.argv[1]) or sys.exit(1)\n"
    "os.execv(sys.argv[2], sys.argv[2:])\n"
)
"""Linux: asks the kernel for SIGTERM at the parent's death, then becomes the command. The kernel means the
thread that started the child, so only a thread that lives as long as the process may use it."""

LineHandler = Callable[["Child", str], None]


class Child:
    """One child. `ready_line` holds the line that began with `ready`, once it has come.

    `bound`: it also ends when this process is killed, where the system can do that.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        ready: str,
        *,
        environ: Mapping[str, str] | None = None,
        on_line: LineHandler | None = None,
        on_change: Callable[[], None] | None = None,
        bound: bool = False,
    ) -> None:
        self.name = name
        self.command = list(command)
        self.ready_line: str | None = None
        self.lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._ready = ready
        self._on_line = on_line
        self._on_change = on_change
        self._changed = threading.Condition()
        self._ended = False
        self._process = subprocess.Popen(  # noqa: S603 - our own programs, with arguments checked by them
            [*_binding(), *self.command] if bound else self.command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            env=None if environ is None else {**os.environ, **environ},
            process_group=0,
        )
        self._reader = threading.Thread(target=self._read, name=f"output of {name}", daemon=True)
        self._reader.start()
        threading.Thread(target=self._watch, name=f"end of {name}", daemon=True).start()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether it has ended and its last lines are here."""
        return self._ended

    @property
    def exit_code(self) -> int | None:
        """How it ended; None while it runs. Negative: the signal that ended it."""
        return self._process.poll()

    def wait_ready(self, timeout_s: float) -> str:
        """Wait for the ready line. Raises the child's own coded error if it ends instead."""
        with self._changed:
            self._changed.wait_for(lambda: self.ready_line is not None or self._ended, timeout_s)
        if self.ready_line is not None:
            return self.ready_line
        if self._ended:
            raise self.error()
        raise EngineError(
            f"{self.name} was not ready within {timeout_s:g} s: see its lines above or in the log"
        )

    def error(self) -> BusError:
        """What a child that ended said of the reason, as the error it is."""
        code = self.wait(5)
        for line in reversed(self.lines):
            coded = _CODED.match(line)
            if coded is not None:
                return error_from_code(coded["code"], coded["message"])
            usage = _USAGE.match(line)
            if usage is not None:
                return ConfigError(f"{self.name}: {usage['message']}")
        if code is not None and code < 0:
            return EngineError(f"{self.name} was ended by {signal.Signals(-code).name}")
        last = f": {self.lines[-1]}" if self.lines else ""
        return EngineError(f"{self.name} ended with exit code {code}{last}")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if self._process.poll() is None:
            self._process.send_signal(number)

    def wait(self, timeout_s: float) -> int | None:
        """Wait for the end; None if it did not come in time."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def end(self, patience_s: float) -> int:
        """SIGTERM, and SIGKILL when it has not ended after `patience_s`."""
        self.signal(signal.SIGTERM)
        code = self.wait(patience_s)
        return self.kill() if code is None else code

    def kill(self) -> int:
        """SIGKILL, at once. Returns when it is gone."""
        self.signal(signal.SIGKILL)
        return self._process.wait()

    def _read(self) -> None:
        stream = self._process.stdout
        for line in stream or ():
            text = line.rstrip("\n")
            self.lines.append(text)
            if self.ready_line is None and text.startswith(self._ready):
                self._note(text)
            if self._on_line is not None:
                self._on_line(self, text)

    def _watch(self) -> None:
        self._process.wait()
        # Its last words explain its end. A grandchild may hold the pipe open longer: that is not waited for.
        self._reader.join(LAST_WORDS_S)
        self._note(None)

    def _note(self, ready_line: str | None) -> None:
        with self._changed:
            if ready_line is None:
                self._ended = True
            else:
                self.ready_line = ready_line
            self._changed.notify_all()
        if self._on_change is not None:
            self._on_change()


def _binding() -> list[str]:
    if sys.platform != "linux":
        return []
    return [sys.executable, "-I", "-S", "-c", _BOUND, str(os.getpid())]
