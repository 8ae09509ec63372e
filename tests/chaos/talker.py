"""A client process under fire: speaks lines over the bus and writes down what becomes of each.

    python -m tests.chaos.talker ROLE BROKERS DIARY NAME LIFE LEAST ENOUGH

It begins at least LEAST lines and goes on until the file ENOUGH exists. A successor of one that was killed
reads the diary first and takes up exactly what has no answer there. How it does that is its role: `plain`
speaks the lines anew; `fetch` submits durable jobs one by one and fetches by id what its predecessor had
submitted; `named` maps durable lines whose jobs' ids follow from their numbers.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.chaos.diary import ANSWERS, Diary, read
from voicebus.client import Client
from voicebus.client.speech import Speech
from voicebus.common.errors import BusError, Overloaded, StorageError, UnknownJob

WINDOW: Final = 32
THREADS: Final = 12
AGAIN_S: Final = 0.5
"""A client that was refused for want of disk asks again sooner than it was told, to see more of it."""
SLOWER_S: Final = 0.05
"""One that maps goes on to its next line this much later for each that was refused."""
ROLES: Final = ("plain", "fetch", "named")


@dataclass(frozen=True, slots=True)
class Line:
    """A line for `Client.map`."""

    text: str
    index: int


def text_of(name: str, index: int) -> str:
    """The line of this client with this number; long ones now and then."""
    sentence = f"{name} says line {index}, which is {index * 7919 % 10007} in a row."
    return " ".join([sentence] * (4 if index % 17 == 0 else 1))


class Talker:
    """One process."""

    def __init__(self, client: Client, name: str, diary: Path, life: int, least: int, enough: Path) -> None:
        self._client = client
        self._name = name
        self._least = least
        self._enough = enough
        rows = read(diary)
        answered = {row.index for row in rows if row.what in ANSWERS}
        begun = {row.index for row in rows if row.what == "begun"}
        self._left = sorted(begun - answered)
        self._next = max(begun, default=-1) + 1
        self._refusals = Counter(row.index for row in rows if row.what == "refused")
        self._jobs: dict[int, str] = {}
        "Jobs of the predecessors that may still be known, by line."
        self._promised = {row.detail for row in rows if row.what == "accepted"}
        for row in rows:
            if row.what == "submitted":
                self._jobs[row.index] = row.detail
            elif row.what in ("refused", "unpromised"):
                self._jobs.pop(row.index, None)
        self._diary = Diary(diary, life)
        self._drawing = threading.Lock()

    def run(self, role: str) -> None:
        """Speak everything."""
        {"plain": self._plain, "fetch": self._fetch, "named": self._named}[role]()
        self._diary.write("finished", self._next)

    def _indices(self) -> Iterator[int]:
        """What the predecessor left, then new ones."""
        yield from self._left
        while self._next < self._least or not self._enough.exists():
            self._next += 1
            yield self._next - 1

    def _done(self, index: int, speech: Speech) -> None:
        self._diary.write("done", index, hashlib.sha256(speech.samples.tobytes()).hexdigest())

    # ---- roles

    def _plain(self) -> None:
        for result in self._client.map(
            self._lines(self._indices()), voice="amber", engine="tone", window=WINDOW, in_order=False
        ):
            if result.speech is not None:
                self._done(result.item.index, result.speech)
            elif result.error is not None:
                self._diary.write("failed", result.item.index, result.error.code)

    def _lines(self, indices: Iterator[int]) -> Iterator[Line]:
        for index in indices:
            self._diary.write("begun", index)
            yield Line(text_of(self._name, index), index)

    def _named(self) -> None:
        lines = self._indices()
        while True:
            refused: list[int] = []
            for result in self._client.map(
                self._lines(lines),
                voice="amber", engine="tone", window=WINDOW, in_order=False, durable=True, naming=self._id_of,
            ):  # fmt: skip
                index = result.item.index
                if result.speech is not None:
                    self._done(index, result.speech)
                elif isinstance(result.error, StorageError | Overloaded):
                    self._diary.write("refused", index, result.error.code)
                    self._refusals[index] += 1
                    refused.append(index)
                    time.sleep(SLOWER_S)
                elif result.error is not None:
                    self._diary.write("failed", index, result.error.code)
            if not refused:
                return
            time.sleep(AGAIN_S)
            lines = iter(refused)

    def _id_of(self, line: Line, piece: int, header: bytes, text: bytes) -> bytes:
        """A new name after each refusal: under the old one the bus would repeat it."""
        name = f"{self._name} {line.index} {piece} {self._refusals[line.index]}"
        return hashlib.blake2b(name.encode(), digest_size=16).digest()

    def _fetch(self) -> None:
        indices = self._indices()
        failed: list[BaseException] = []

        def work() -> None:
            try:
                while True:
                    with self._drawing:
                        index = next(indices, None)
                        if index is not None:
                            self._diary.write("begun", index)
                    if index is None:
                        return
                    self._settle(index)
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=work) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failed:
            raise failed[0]

    def _settle(self, index: int) -> None:
        """Bring one line to its end, whatever it takes."""
        known = self._jobs.get(index)
        for _ in itertools.count():
            try:
                if known is not None:
                    speech = self._client.job(known).result()
                else:
                    job = self._client.submit(
                        text_of(self._name, index), voice="amber", engine="tone", durable=True
                    )
                    self._diary.write("submitted", index, job.id)
                    job.wait_accepted()
                    self._diary.write("accepted", index, job.id)
                    speech = job.result()
            except (StorageError, Overloaded) as error:
                self._diary.write("refused", index, error.code)
                known = None
                time.sleep(AGAIN_S)
            except UnknownJob as error:
                if known is None or known in self._promised:
                    self._diary.write("failed", index, error.code)
                    return
                self._diary.write("unpromised", index, known)
                known = None
            except BusError as error:
                self._diary.write("failed", index, error.code)
                return
            else:
                self._done(index, speech)
                return


def main() -> None:
    """Run one talker."""
    role, brokers, diary, name, life, least, enough = sys.argv[1:]
    with Client(brokers, tenant=name, connect_timeout_s=60.0, heartbeat_interval_s=0.25) as client:
        talker = Talker(client, name, Path(diary), int(life), int(least), Path(enough))
        print("talker ready", os.getpid(), flush=True)
        talker.run(role)


if __name__ == "__main__":
    main()
