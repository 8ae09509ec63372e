"""The names of a durable batch's jobs, made so that they need not be written down one by one.

A job's id follows from a key, drawn once for the folder and kept in `jobs.json` before the first line is
sent, and from what is to be spoken. Whoever takes the folder up names the same lines alike and finds their
jobs again, wherever the one before was cut off. A line that failed gets a new name when it is tried again,
for the bus would repeat the failure under the old one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final, cast

from ..common.atomic import write_bytes
from ..common.errors import ConfigError
from ..common.wire import JOB_ID_BYTES

JOBS: Final = "jobs.json"
KEY_BYTES: Final = 16
MOST: Final = 2**31
"""Lines of a batch, and tries of a line."""


class JobNames:
    """The key of a folder, and how often each line was tried. Called by `Client.map` for each job."""

    def __init__(self, folder: Path, key: bytes, tries: dict[int, int]) -> None:
        self._folder = folder
        self._key = key
        self._tries = tries
        self.open: set[str] = set()
        "Ids that were given and whose ends are not known here."

    @classmethod
    def create(cls, folder: Path) -> JobNames:
        """Draw the key of a new batch and write it down."""
        names = cls(folder, os.urandom(KEY_BYTES), {})
        names._save()
        return names

    @classmethod
    def load(cls, folder: Path) -> JobNames | None:
        """The names of a batch that was begun; None if it was not durable. Raises `ConfigError`."""
        path = folder / JOBS
        try:
            document = cast("dict[str, Any]", json.loads(path.read_bytes()))
            tries = {int(line): int(times) for line, times in document["tries"].items()}
            key = bytes.fromhex(document["key"])
            if len(key) != KEY_BYTES or not all(
                0 <= number <= MOST for pair in tries.items() for number in pair
            ):
                raise ValueError
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            raise ConfigError(
                f"{path} cannot be read: remove it to have the lines that are missing spoken once more"
            ) from None
        return cls(folder, key, tries)

    def again(self, lines: Iterable[int]) -> None:
        """Give these lines' jobs new names, for good."""
        changed = False
        for line in lines:
            self._tries[line] = self._tries.get(line, 0) + 1
            changed = True
        if changed:
            self._save()

    def __call__(self, line: Any, piece: int, header: bytes, text: bytes) -> bytes:
        """The id for a piece of a line, which has its place in the batch as `index`."""
        place = (line.index, self._tries.get(line.index, 0), piece, len(header))
        name = blake2b(key=self._key, digest_size=JOB_ID_BYTES)
        for number in place:
            name.update(number.to_bytes(8))
        name.update(header)
        name.update(text)
        self.open.add(name.hexdigest())
        return name.digest()

    def _save(self) -> None:
        document = {"key": self._key.hex(), "tries": self._tries}
        write_bytes(self._folder / JOBS, json.dumps(document).encode() + b"\n")
