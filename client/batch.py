"""A file of lines spoken into a folder, so that it can be cut off anywhere and taken up again.

The folder holds one audio file a line, each appearing whole or not at all, and `manifest.jsonl`, to which a
record is appended when a line's file stands. A record is therefore never ahead of its file; a kill between
the two only makes that line be spoken again, into the same name. Taking up first drops what a kill tore and
the records of lines that failed or were changed since, so in the end the manifest has every line once.

A durable batch goes on at the broker when it is cut off here. Its jobs have names that the next run finds
again (`batch_jobs.py`): what has ended meanwhile is fetched, what is under way is waited for.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, cast

from ..common.errors import BrokerUnreachable, Cancelled, Conflict

if TYPE_CHECKING:
    from .batch_input import Line
    from .batch_jobs import JobNames
    from .speech import Result
    from .sync import Client

MANIFEST: Final = "manifest.jsonl"
INDEX_DIGITS: Final = 5
Record = dict[str, Any]
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")


@dataclass(frozen=True, slots=True)
class Wishes:
    """What holds for lines that say nothing of their own, and the format of all files."""

    voice: str = ""
    engine: str = ""
    language: str = ""
    speed: float = 1.0
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    format: str = "wav"


@dataclass(slots=True)
class Tally:
    """How far a batch is. `kept` lines were done before; `codes` counts the failures of this run."""

    total: int
    kept: int = 0
    done: int = 0
    audio_s: float = 0.0
    codes: dict[str, int] = field(default_factory=dict[str, int])

    @property
    def failed(self) -> int:
        """Lines that failed in this run."""
        return sum(self.codes.values())


class Folder:
    """An output folder, held by one batch at a time. Use it in a `with` block.

    Raises `Conflict` where another batch is at work, `OSError` where the folder cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._manifest = self._lock = -1
        self.job_names: JobNames | None = None
        "The names of a durable batch, once they were asked for."

    def __enter__(self) -> Folder:
        self.path.mkdir(parents=True, exist_ok=True)
        # The folder itself is locked: its manifest may be replaced by another file.
        self._lock = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise Conflict(f"another vc batch is writing to {self.path}: wait for it or end it") from None
        try:
            self._open_manifest()
        except OSError:
            os.close(self._lock)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._manifest)
        os.close(self._lock)

    def _open_manifest(self) -> None:
        # Through no link: a folder that came from elsewhere must not have us write into another file.
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        self._manifest = os.open(self.path / MANIFEST, flags, 0o666)

    def names(self, *, durable: bool) -> JobNames | None:
        """The names of this batch's jobs: those of its first run, or new ones for a `durable` batch."""
        from .batch_jobs import JobNames

        self.job_names = JobNames.load(self.path) or (JobNames.create(self.path) if durable else None)
        return self.job_names

    def take_up(self, lines: Iterable[Line], wishes: Wishes, names: JobNames | None = None) -> set[int]:
        """Bring the manifest in order; return the indices of lines that are done as they are wished now."""
        from ..common.atomic import is_temporary

        for left_over in self.path.iterdir():
            if is_temporary(left_over) and not left_over.is_dir():
                left_over.unlink(missing_ok=True)
        with open(self.path / MANIFEST, "rb") as file:
            records = {record["index"]: record for record in read_records(file)}
        if names is not None:
            # First: a failure that is no longer in the manifest must not be fetched as the answer again.
            names.again(index for index, record in records.items() if record.get("status") == "failed")
        done: dict[int, Record] = {}
        for line in lines:
            record = records.get(line.index)
            if record is not None and self._stands(record, wished(line, wishes)):
                done[line.index] = record
        self._rewrite(done.values())
        return set(done)

    def keep(self, line: Line, wishes: Wishes, result: Result, *, durable: bool = False) -> Record:
        """Write a line's file and then its record, which is returned."""
        record: Record = {"index": line.index, "id": line.id, **wished(line, wishes)}
        if durable:
            record["jobs"] = list(result.jobs)
        speech = result.speech
        if speech is not None:
            name = file_name(line, wishes.format)
            speech.save(self.path / name)
            record |= {
                "status": "done",
                "file": name,
                "bytes": (self.path / name).stat().st_size,
                "seconds": round(speech.duration_s, 3),
                "sample_rate_hz": speech.sample_rate_hz,
                "spoken_by": speech.engine,
                "worker": speech.worker,
                "attempts": speech.attempts,
            }
        else:
            error = result.error
            code, message = (error.code, error.message) if error is not None else ("engine_error", "")
            record |= {"status": "failed", "code": code, "message": message}
        self._append(record)
        return record

    def _append(self, record: Record) -> None:
        # One write, so that a kill leaves the line whole or, at worst, torn at the file's end.
        row = _packed(record)
        if os.write(self._manifest, row) < len(row):
            # The disk took a part: nothing may follow on that line, or it would be lost with it.
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _rewrite(self, records: Iterable[Record]) -> None:
        from ..common.atomic import write_bytes

        data = b"".join(
            _packed(record) for record in sorted(records, key=lambda record: int(record["index"]))
        )
        manifest = self.path / MANIFEST
        if manifest.read_bytes() == data:
            return
        write_bytes(manifest, data)
        os.close(self._manifest)
        self._open_manifest()

    def _stands(self, record: Record, wish: Record) -> bool:
        """Whether a record is of a file that is there and is what is wished for."""
        if record.get("status") != "done" or any(record.get(key) != value for key, value in wish.items()):
            return False
        try:
            return (self.path / str(record["file"])).stat().st_size == record["bytes"]
        except (OSError, KeyError, ValueError):  # a name with a NUL in it is a ValueError
            return False


def has_manifest(path: str | os.PathLike[str]) -> bool:
    """Whether a batch was begun in this folder."""
    from .batch_jobs import JOBS

    manifest = Path(path, MANIFEST)
    return (manifest.exists() and manifest.stat().st_size > 0) or Path(path, JOBS).exists()


def run(
    client: Client, lines: list[Line], folder: Folder, wishes: Wishes, *, durable: bool = False, **manner: Any
) -> Generator[Tally]:
    """Speak the lines that are not done and yield the tally after each of them.

    `manner` goes to `Client.map`. Lines that fail are recorded and counted. Raises `BrokerUnreachable` when
    the bus goes away, which is no line's fault. A batch that was begun as a durable one stays one.
    """
    names = folder.names(durable=durable)
    done = folder.take_up(lines, wishes, names)
    tally = Tally(len(lines), kept=len(done))
    yield tally
    results = client.map(
        (line for line in lines if line.index not in done),
        voice=wishes.voice,
        engine=wishes.engine,
        language=wishes.language,
        speed=wishes.speed,
        options=wishes.options,
        in_order=False,
        durable=names is not None,
        naming=names,
        **manner,
    )
    for result in results:
        if names is not None and not isinstance(result.error, Cancelled):
            names.open.difference_update(result.jobs)
        if isinstance(result.error, BrokerUnreachable):
            raise result.error
        record = folder.keep(cast("Line", result.item), wishes, result, durable=names is not None)
        if record["status"] == "done":
            tally.done += 1
            tally.audio_s += record["seconds"]
        else:
            tally.codes[record["code"]] = tally.codes.get(record["code"], 0) + 1
        yield tally


def wished(line: Line, wishes: Wishes) -> Record:
    """What a record must say for its line not to be spoken again."""
    return {
        "text_sha256": hashlib.sha256(line.text.encode(errors="surrogatepass")).hexdigest(),
        "voice": wishes.voice if line.voice is None else line.voice,
        "engine": wishes.engine if line.engine is None else line.engine,
        "language": wishes.language if line.language is None else line.language,
        "speed": wishes.speed if line.speed is None else line.speed,
        "options": {**wishes.options, **(line.options or {})},
        "format": wishes.format,
    }


def file_name(line: Line, format: str) -> str:
    """The index, and the line's id where it has one, made safe for any file system."""
    safe = _UNSAFE.sub("-", line.id)[:80].strip("-.")
    return f"{line.index:0{INDEX_DIGITS}d}{'-' + safe if safe else ''}.{format}"


def read_records(file: Iterable[bytes]) -> Iterator[Record]:
    """The records of a manifest; what is torn or foreign is left out."""
    for row in file:
        if not row.endswith(b"\n"):
            return
        try:
            record: object = json.loads(row)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict):
            found = cast("Record", record)
            if isinstance(found.get("index"), int):
                yield found


def _packed(record: Record) -> bytes:
    return json.dumps(record, ensure_ascii=False).encode(errors="backslashreplace") + b"\n"
