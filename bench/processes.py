"""What every benchmark needs of processes: start them, end them, and see what they used.

Processor time is read from the kernel's scheduler accounts, in nanoseconds and summed over the threads: the
ticks of `/proc/PID/stat` are 10 ms long, which is a thousand requests. A process is always ended by its own
handle, with every wait bounded, so that a benchmark that breaks leaves nothing running.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

ROOT: Final = Path(__file__).resolve().parents[1]
CACHE: Final = ROOT / ".cache" / "bench"
"""Where benchmarks keep what they built or fetched."""
END_S: Final = 3.0
_POLL_S: Final = 0.005


class NoSchedulerAccountsError(RuntimeError):
    """This kernel does not tell a process's exact processor time."""


def cpu_ns(pid: int) -> int:
    """Processor time, user and system, of all living threads of a process, in nanoseconds."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            total += int((task / "schedstat").read_text().split()[0])
        except ProcessLookupError:
            continue  # a thread that ended just now
        except FileNotFoundError:
            if task.exists():
                raise NoSchedulerAccountsError("this kernel has no /proc/PID/task/*/schedstat") from None
    return total


def rss_bytes(pid: int) -> int:
    """Resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def load_average() -> float:
    """Runnable threads in the last minute: what else the machine was doing."""
    return os.getloadavg()[0]


def machine_busy_s() -> float:
    """Processor time that all processes of this machine have used since it started, in ticks of 10 ms."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _idle, _iowait, irq, soft = map(int, fields[:7])
    return (user + nice + system + irq + soft) / os.sysconf("SC_CLK_TCK")


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of the values that at least `share` of them do not exceed. Raises on no values."""
    if not values:
        raise ValueError("no values, no percentile")
    ordered = sorted(values)
    rank = -(-len(ordered) * share // 1)  # rounded up
    return ordered[min(len(ordered), max(1, int(rank))) - 1]


def free_port() -> int:
    """A port of loopback that nobody listened on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_listening(port: int, timeout_s: float, host: str = "127.0.0.1") -> float:
    """Wait until a connection to a port is taken; the seconds that took. Raises `TimeoutError`."""
    begun = time.monotonic()
    while True:
        with suppress(OSError), socket.create_connection((host, port), timeout=1):
            return time.monotonic() - begun
        if time.monotonic() - begun > timeout_s:
            raise TimeoutError(f"nobody listened on port {port} within {timeout_s:g} s")
        time.sleep(_POLL_S)


def until(condition: Callable[[], object], timeout_s: float, what: str) -> float:
    """Wait until something holds; the seconds that took. Raises `TimeoutError`."""
    begun = time.monotonic()
    while not condition():
        if time.monotonic() - begun > timeout_s:
            raise TimeoutError(f"{what} did not come within {timeout_s:g} s")
        time.sleep(_POLL_S)
    return time.monotonic() - begun


class Running:
    """A child process for as long as the `with` block runs: then SIGTERM, and SIGKILL if that is not heard.

    `output`: where stdout goes; `subprocess.PIPE` makes it readable as `.stdout`, text. stderr goes the same
    way unless `errors` says otherwise. The child has a process group of its own, so that Ctrl-C reaches only
    the benchmark, which then ends its children in order; `group` also signals what the child itself started.
    `environ` adds to this process's environment, `unset` names what of it the child is not to see.
    """

    def __init__(
        self,
        command: Sequence[str | os.PathLike[str]],
        *,
        environ: Mapping[str, str] | None = None,
        unset: Iterable[str] = (),
        folder: Path | None = None,
        output: int | IO[str] | None = subprocess.DEVNULL,
        errors: int | IO[str] | None = subprocess.STDOUT,
        group: bool = False,
        end_s: float = END_S,
    ) -> None:
        self.command = [os.fspath(part) for part in command]
        self._environ = {**os.environ, **(environ or {})}
        for name in unset:
            self._environ.pop(name, None)
        self._folder, self._output, self._errors = folder, output, errors
        self._group, self._end_s = group, end_s
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self.command, cwd=self._folder, env=self._environ, text=True, process_group=0,
            stdin=subprocess.DEVNULL, stdout=self._output, stderr=self._errors,
        )  # fmt: skip
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    @property
    def process(self) -> subprocess.Popen[str]:
        """The process. Raises `RuntimeError` outside the `with` block."""
        if self._process is None:
            raise RuntimeError(f"{self.command[0]} was not started")
        return self._process

    @property
    def pid(self) -> int:
        """Its id."""
        return self.process.pid

    @property
    def stdout(self) -> IO[str]:
        """What it prints. Raises `RuntimeError` unless it was started with `output=subprocess.PIPE`."""
        if self.process.stdout is None:
            raise RuntimeError(f"the output of {self.command[0]} is not read")
        return self.process.stdout

    def line(self, begins: str, timeout_s: float) -> str:
        """Wait for the first line of its output that begins so. Raises `TimeoutError`, `RuntimeError`.

        Lines before it are dropped, and so may be what came right behind it.
        """
        descriptor, came = self.stdout.fileno(), b""
        until_s = time.monotonic() + timeout_s
        while True:
            *lines, came = came.split(b"\n")
            for line in lines:
                if line.startswith(begins.encode()):
                    return line.decode()
            left_s = until_s - time.monotonic()
            if left_s <= 0 or not select.select([descriptor], [], [], left_s)[0]:
                raise TimeoutError(f"{self.command[0]} did not say {begins!r} within {timeout_s:g} s")
            more = os.read(descriptor, 65_536)
            if not more:
                self.process.wait(self._end_s)
                self.check()
                raise RuntimeError(f"{self.command[0]} closed its output before it said {begins!r}")
            came += more

    def check(self) -> None:
        """Raise `RuntimeError` if it has ended."""
        code = self.process.poll()
        if code is not None:
            raise RuntimeError(f"{' '.join(self.command)} ended with {code}")

    def wait(self, timeout_s: float) -> int:
        """Wait for its own end; its exit code. Raises `subprocess.TimeoutExpired`."""
        return self.process.wait(timeout_s)

    def send(self, number: signal.Signals) -> None:
        """Send a signal; not an error if it is gone."""
        with suppress(ProcessLookupError):
            if self._group:
                # The group lives on while a grandchild does, also when the child was waited for.
                os.killpg(self.process.pid, number)
            else:
                self.process.send_signal(number)

    def end(self) -> int:
        """End it, and return its exit code."""
        process = self.process
        if process.poll() is None or self._group:
            self.send(signal.SIGTERM)
        try:
            process.wait(self._end_s)
        except subprocess.TimeoutExpired:
            self.send(signal.SIGKILL)
            process.wait(self._end_s)
        if self._group:
            self.send(signal.SIGKILL)
        if process.stdout is not None:
            process.stdout.close()
        return process.returncode


def python_command(module: str, *arguments: str) -> list[str]:
    """The command line of one of our modules in this interpreter."""
    return [sys.executable, "-m", module, *arguments]
