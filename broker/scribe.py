"""The thread that writes: an fsync takes milliseconds, and the broker's loop has microseconds.

What piles up while one batch is being written becomes the next batch, so the slower the disk, the larger the
group that shares an fsync. Reads are served between the writes, in the order in which they were asked for.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

from ..common.errors import BusError, StorageError
from .entries import Audio, Entry, Page, Read
from .journal import Journal

log = logging.getLogger(__name__)
Outcome = tuple[Entry, BusError | Page | None]


class Scribe:
    """Writes entries to an open journal. `wake` is called from the thread when outcomes are there."""

    def __init__(self, journal: Journal, wake: Callable[[], None]) -> None:
        self.backlog_bytes = 0
        "Audio that was handed over and is not written yet."
        self._journal = journal
        self._wake = wake
        self._waiting: list[Entry] = []
        self._outcomes: deque[Outcome] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="voicebus-journal", daemon=True)
        self._thread.start()

    def put(self, entries: list[Entry]) -> None:
        """Have entries written, in this order."""
        size = sum(len(entry.pcm) for entry in entries if isinstance(entry, Audio))
        with self._changed:
            self._waiting += entries
            self.backlog_bytes += size
            self._changed.notify()

    def take(self) -> list[Outcome]:
        """What has become of entries since the last call, in order."""
        taken: list[Outcome] = []
        while self._outcomes:
            taken.append(self._outcomes.popleft())
        return taken

    def close(self, timeout_s: float) -> bool:
        """Write what is left and end; False when that took too long."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while batch := self._next():
                self._work(batch)
                self._wake()
        finally:
            self._journal.close()

    def _next(self) -> list[Entry]:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            batch, self._waiting = self._waiting, []
        return batch

    def _work(self, batch: list[Entry]) -> None:
        """Write the stretches between reads, each as one group."""
        start = 0
        for end in [*(n for n, entry in enumerate(batch) if isinstance(entry, Read)), len(batch)]:
            group = batch[start:end]
            if group:
                self._outcomes.extend(zip(group, self._write(group), strict=True))
            if end < len(batch):
                read = batch[end]
                if isinstance(read, Read):
                    self._outcomes.append((read, self._read(read)))
            start = end + 1

    def _write(self, group: list[Entry]) -> list[BusError | None]:
        try:
            return self._journal.write(group)
        except Exception as error:
            # A bug; whoever waits for these entries must hear of it all the same.
            log.exception("the journal failed")
            return [StorageError(f"the journal failed: {error!r}")] * len(group)
        finally:
            size = sum(len(entry.pcm) for entry in group if isinstance(entry, Audio))
            with self._changed:
                self.backlog_bytes -= size

    def _read(self, read: Read) -> BusError | Page:
        try:
            return self._journal.read(read)
        except BusError as error:
            return error
        except Exception as error:
            log.exception("the journal failed")
            return StorageError(f"the journal failed: {error!r}")
