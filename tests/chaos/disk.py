"""A broker's disk that can be filled: a small file system of its own, or a limit that acts like a full one.

A tmpfs is the honest way: writes fail half way through, files that exist can still be overwritten in place,
and what others free is there for the taking. It needs the run's own mount namespace. Elsewhere the broker's
limit on the size of files (RLIMIT_FSIZE) is set to 0 from outside, so that no write succeeds at all.
"""

from __future__ import annotations

import errno
import os
import resource
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final

from tests.chaos.sandbox import run

SIZE: Final = "32m"
BLOCK: Final = bytes(64 * 1024)
PAGE: Final = bytes(4096)
REFILL_S: Final = 0.05


class Tmpfs:
    """A file system mounted on `folder`."""

    how = f"tmpfs of {SIZE}"

    def __init__(self, folder: Path) -> None:
        self._filler = folder / "filler"
        self._freed = threading.Event()
        self._thread: threading.Thread | None = None
        folder.mkdir()
        run("mount", "-t", "tmpfs", "-o", f"size={SIZE}", "voicebus-chaos", str(folder))

    def fill(self, pid: int) -> None:
        """Take all room there is, and whatever becomes free until `free`."""
        self._freed.clear()
        descriptor = os.open(self._filler, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        _fill(descriptor)
        self._thread = threading.Thread(target=self._hold, args=(descriptor,), daemon=True)
        self._thread.start()

    def free(self, pid: int) -> None:
        """Give the room back."""
        self._freed.set()
        if self._thread is not None:
            self._thread.join()
        self._filler.unlink(missing_ok=True)

    def _hold(self, descriptor: int) -> None:
        while not self._freed.wait(REFILL_S):
            _fill(descriptor)
        os.close(descriptor)


class Limit:
    """No disk of its own: the process is kept from writing to files."""

    how = "RLIMIT_FSIZE=0, for want of a mount namespace"

    def __init__(self, folder: Path) -> None:
        folder.mkdir()

    def fill(self, pid: int) -> None:
        """Let no file be written."""
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, hard))

    def free(self, pid: int) -> None:
        """Let files be written again, if the process is still there."""
        with suppress(ProcessLookupError):
            _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))


Disk = Tmpfs | Limit


def _fill(descriptor: int) -> None:
    for block in (BLOCK, PAGE):
        try:
            while True:
                os.write(descriptor, block)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
