"""The audio of durable jobs, one file of raw PCM a job, beside the journal's database.

A database would copy every chunk twice; a file is appended to as the chunks come and read back by offset.
What counts is what the journal's row says of it: a file that is longer holds the rest of an unfinished
attempt, one that is shorter was cut off by a crash, one without a row belongs to nobody. Only a finished
job's file is made to last, just before its row says so.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

MAX_OPEN_FILES: Final = 64
Index = list[tuple[int, int, int]]
"""(segment, flags, size in bytes) of each chunk, in order."""


class Spool:
    """The folder of audio files. Every method may raise `OSError`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: OrderedDict[bytes, int] = OrderedDict()
        self._indices: dict[bytes, Index] = {}

    def open(self, known: Iterable[bytes]) -> None:
        """Make the folder, and remove the files of jobs that are not known."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        names = {self.path(job).name for job in known}
        for file in self.folder.iterdir():
            if file.name not in names:
                file.unlink()

    def path(self, job: bytes) -> Path:
        """Where a job's audio is."""
        return self.folder / f"{job.hex()}.pcm"

    def append(self, job: bytes, segment: int, flags: int, pcm: Any) -> None:
        """Append one chunk: whole, or not at all."""
        descriptor = self._open(job)
        index = self._indices.setdefault(job, [])
        view = memoryview(getattr(pcm, "buffer", pcm))
        start = os.fstat(descriptor).st_size
        try:
            left = view
            while len(left):
                left = left[os.write(descriptor, left) :]
        except OSError:
            with suppress(OSError):
                os.ftruncate(descriptor, start)
            raise
        index.append((segment, flags, len(view)))

    def rewind(self, job: bytes, chunks: int) -> None:
        """Keep the first chunks only."""
        index = self._indices.setdefault(job, [])
        del index[chunks:]
        os.ftruncate(self._open(job), sum(size for _, _, size in index))

    def finish(self, job: bytes) -> Index:
        """Make a job's audio last, and return the index its row must hold.

        `let_go` follows when the row stands: until then this may have to be done once more.
        """
        index = self._indices.setdefault(job, [])
        descriptor = self._open(job)
        os.fsync(descriptor)
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return index

    def let_go(self, job: bytes) -> None:
        """A finished job's row stands: nothing is appended any more."""
        self._close(job)

    def read(self, job: bytes, index: Index, first: int, count: int) -> list[tuple[int, int, bytes]]:
        """Some chunks of a finished job."""
        chunks: list[tuple[int, int, bytes]] = []
        with open(self.path(job), "rb") as file:
            file.seek(sum(size for _, _, size in index[:first]))
            for segment, flags, size in index[first : first + count]:
                pcm = file.read(size)
                if len(pcm) != size:
                    raise OSError(f"{file.name} is shorter than it was")
                chunks.append((segment, flags, pcm))
        return chunks

    def remove(self, job: bytes) -> None:
        """Forget a job's audio, whether there is any or not."""
        self._close(job)
        self.path(job).unlink(missing_ok=True)

    def close(self) -> None:
        """Close all files."""
        for job in list(self._files):
            self._close(job)

    def _open(self, job: bytes) -> int:
        descriptor = self._files.get(job)
        if descriptor is None:
            if len(self._files) >= MAX_OPEN_FILES:
                os.close(self._files.popitem(last=False)[1])
            mode = os.O_RDWR | os.O_CREAT | os.O_APPEND | (0 if job in self._indices else os.O_TRUNC)
            descriptor = os.open(self.path(job), mode, 0o600)
            self._files[job] = descriptor
        else:
            self._files.move_to_end(job)
        return descriptor

    def _close(self, job: bytes) -> None:
        self._indices.pop(job, None)
        descriptor = self._files.pop(job, None)
        if descriptor is not None:
            os.close(descriptor)
