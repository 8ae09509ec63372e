"""What a client writes down: one row an event, appended at once, true also of a process that was killed.

    TIME LIFE WHAT INDEX DETAIL ;

TIME is the monotonic clock, which all processes of a machine share; LIFE numbers the processes that follow
one another under a name. `begun`: the line is about to be handed to the bus. `submitted` and `accepted`, of
durable jobs: the id, before and after the broker's promise. `refused`: a code that says to try again, as
was done. `unpromised`: a predecessor's job that no broker knows and none had promised. Two answer the line:
`done` with the SHA-256 of the audio, and `failed` with a code. `finished`: how many lines there were.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

WHOLE: Final = ";"
ANSWERS: Final = frozenset({"done", "failed"})


@dataclass(frozen=True, slots=True)
class Row:
    """One event."""

    at: float
    life: int
    what: str
    index: int
    detail: str


class Diary:
    """Where one process writes. Threads may share it: a row is one write."""

    def __init__(self, path: Path, life: int) -> None:
        self._life = life
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        size = os.fstat(self._file).st_size
        if size and os.pread(self._file, 1, size - 1) != b"\n":
            os.write(self._file, b"\n")  # a row torn by a kill ends here, and is none

    def write(self, what: str, index: int, detail: str = "-") -> None:
        """Append a row."""
        os.write(
            self._file, f"{time.monotonic():.3f} {self._life} {what} {index} {detail} {WHOLE}\n".encode()
        )


def read(path: Path) -> list[Row]:
    """Every whole row of a diary."""
    try:
        text = path.read_text(encoding="ascii")
    except FileNotFoundError:
        return []
    rows: list[Row] = []
    for line in text.splitlines():
        parts = line.split()
        if len(parts) == 6 and parts[5] == WHOLE:
            at, life, what, index, detail, _ = parts
            rows.append(Row(float(at), int(life), what, int(index), detail))
    return rows
