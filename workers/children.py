"""Starting, hearing and ending engine processes.

The link is a ZeroMQ PAIR over ipc:// in a private folder (0700). A socketpair would need framing, a queue and
a writer of our own on both sides; PAIR has all three, sends without blocking the engine, and hands received
audio on as frames that the agent passes to the broker unopened. Two things it lacks come as pipes: the
child's standard input, whose end tells the child that the agent is gone, and a sentinel whose end tells the
agent that the child is gone. The folder is removed as soon as the child has connected, so that nothing is
left behind even by an agent that is killed.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import zmq

from ..common.wire import MAX_FRAME_BYTES

MAX_PATH_BYTES: Final = 100
"""A socket's path may have 107 bytes on Linux and 103 on macOS."""
WAIT_POLICY: Final = "OMP_WAIT_POLICY"
TUNABLES: Final = "GLIBC_TUNABLES"
HUGE_PAGES: Final = "glibc.malloc.hugetlb"
"""1: by madvise(2), as far as the kernel has them at hand. Before glibc 2.35 nobody knows it, nor minds."""
THREAD_VARIABLES: Final = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
"""What numeric libraries read once, when they are loaded: too early for a message to tell them."""


class Child:
    """One engine process and this end of its link. Raises `OSError` if it cannot be started."""

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], engine: str, environment: Mapping[str, str]
    ) -> None:
        self._folder: str | None = _private_folder()
        self.socket = context.socket(zmq.PAIR)
        self.socket.linger = 0
        self.socket.maxmsgsize = MAX_FRAME_BYTES
        self.died_at: float | None = None
        self.sentinel, childs_end = os.pipe()
        address = f"ipc://{self._folder}/link"
        command = [sys.executable, "-m", "voicebus.workers.engine_host"]
        command += [engine, address, str(os.getpid()), str(childs_end)]
        try:
            self.socket.bind(address)
            self.process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                command,
                stdin=subprocess.PIPE,
                stdout=2,  # standard output is the agent's, and one line long
                pass_fds=(childs_end,),
                env={**os.environ, **environment},
                process_group=0,  # Ctrl-C is for the agent, which then ends its children in order
            )
        except (OSError, zmq.ZMQError) as error:
            self.socket.close()
            os.close(self.sentinel)
            self.forget_folder()
            raise OSError(str(error)) from error
        finally:
            os.close(childs_end)

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    def forget_folder(self) -> None:
        """Remove the folder: the child has connected, or never will."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def kill(self) -> None:
        """End the process by force."""
        self.process.kill()

    def outcome(self) -> str | None:
        """How the process ended, in words; None while it runs."""
        code = self.process.poll()
        if code is None:
            return None
        if code >= 0:
            return f"exit code {code}"
        with suppress(ValueError):
            return f"signal {-code}, {signal.Signals(-code).name}"
        return f"signal {-code}"

    def rss_bytes(self) -> int:
        """Memory the process holds; 0 where the system does not say."""
        return rss_bytes(self.process.pid)

    def close(self) -> None:
        """Let go of everything but the process, which is gone."""
        self.socket.close()
        os.close(self.sentinel)
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.forget_folder()


def engine_environment(threads: int | None) -> dict[str, str]:
    """What an engine process finds in its environment, beside what the agent found in its own.

    So many threads for numeric libraries. Threads that sleep while they wait: OpenMP's spin, which is
    quickest on cores of their own, but where others want the cores converting a second of speech took 14 to
    18 s instead of 1.7. And huge pages for what glibc allocates, weights above all (`bench/README.md`,
    "Engines"). Whoever has set one of the latter two for the agent knows why, and keeps it.
    """
    chosen: dict[str, str] = {}
    if threads is not None:
        chosen |= dict.fromkeys(THREAD_VARIABLES, str(threads))
    if WAIT_POLICY not in os.environ:
        chosen[WAIT_POLICY] = "passive"
    others = os.environ.get(TUNABLES, "")
    if sys.platform == "linux" and HUGE_PAGES not in others:
        chosen[TUNABLES] = f"{others}:{HUGE_PAGES}=1" if others else f"{HUGE_PAGES}=1"
    return chosen


def rss_bytes(pid: int) -> int:
    """Resident memory of a process, from Linux's /proc; 0 elsewhere."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _private_folder() -> str:
    folder = tempfile.mkdtemp(prefix="voicebus-")
    if len(os.fsencode(folder)) > MAX_PATH_BYTES - len("/link"):
        os.rmdir(folder)
        folder = tempfile.mkdtemp(prefix="voicebus-", dir="/tmp")
    return folder
