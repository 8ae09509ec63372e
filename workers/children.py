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
