"""The journal of durable jobs: SQLite in WAL mode, one transaction and one fsync for each batch of entries.

A job is promised to its client only after its row was committed, so a crash at any point leaves either no
promise or a job that is found again. SQLite's own checksums cut off a torn end of the log; a damaged database
is moved aside and whatever rows can still be read are taken over. An entry that cannot be written, because
the disk is full for instance, fails alone: the others of its batch stand, and the journal works again when
there is room.
The folder belongs to one broker at a time.
"""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from ..common.errors import BusError, ConfigError, StorageError, UnknownJob
from ..common.wire import JOB_ID_BYTES, MAX_PAYLOAD_BYTES
from .entries import Audio, Dropped, Ended, Entered, Entry, Fetched, Lost, Page, Read, Recovered, Rewound
from .spool import Index, Spool

log = logging.getLogger(__name__)
SCHEMA: Final = 1
DATABASE: Final = "journal.db"
_TABLE: Final = """
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY,
    job BLOB NOT NULL UNIQUE,
    header BLOB NOT NULL,
    text BLOB NOT NULL,
    budget_s REAL NOT NULL,
    entered_at REAL NOT NULL,
    state TEXT NOT NULL DEFAULT 'queued',
    attempt INTEGER NOT NULL DEFAULT 0,
    losses INTEGER NOT NULL DEFAULT 0,
    history BLOB NOT NULL DEFAULT x'90',
    started BLOB NOT NULL DEFAULT x'',
    answer BLOB NOT NULL DEFAULT x'',
    ended_at REAL NOT NULL DEFAULT 0,
    fetched_at REAL NOT NULL DEFAULT 0,
    chunks BLOB NOT NULL DEFAULT x'90'
)
"""
_COLUMNS: Final = (
    "job, header, text, budget_s, entered_at, state, attempt, losses, history, started, answer, ended_at,"
    " fetched_at, chunks"
)
_Id = Annotated[bytes, Meta(min_length=JOB_ID_BYTES, max_length=JOB_ID_BYTES)]
_Seconds = Annotated[float, Meta(ge=0, le=1e11)]
_Short = Annotated[int, Meta(ge=0, le=2**16 - 1)]
_Long = Annotated[int, Meta(ge=0, le=2**32 - 1)]
_Size = Annotated[int, Meta(ge=0, le=MAX_PAYLOAD_BYTES)]


class _Row(msgspec.Struct, array_like=True, frozen=True):
    """A row as it must be. SQLite itself keeps anything in any column, and no checksum of a page."""

    job: _Id
    header: bytes
    text: bytes
    budget_s: _Seconds
    entered_at: _Seconds
    state: Literal["queued", "done", "failed", "cancelled"]
    attempt: _Short
    losses: _Short
    history: bytes
    started: bytes
    answer: bytes
    ended_at: _Seconds
    fetched_at: _Seconds
    chunks: bytes


_pack = msgspec.msgpack.Encoder().encode
_unpack_index = msgspec.msgpack.Decoder(list[tuple[_Long, _Short, _Size]]).decode
_unpack_history = msgspec.msgpack.Decoder(list[str]).decode


class Journal:
    """A folder with a database and a spool. Not thread-safe: one thread uses it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._spool = Spool(folder / "spool")
        self._lock = -1
        self._db: sqlite3.Connection | None = None
        self._failed: set[bytes] = set()
        "Jobs a chunk of whose audio could not be written: their results must not be kept."

    @property
    def exists(self) -> bool:
        """Whether an earlier start has left a journal."""
        return (self._folder / DATABASE).exists()

    def open(self) -> list[Recovered]:
        """Take the folder and read what is there. Raises `ConfigError` and `StorageError`."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._take()
            self._keep_private()
            self._db = self._connect()
            self._keep_private()  # it may be another file, to which a damaged one was saved
            return self._recover()
        except (OSError, sqlite3.Error, UnicodeDecodeError) as error:  # SQLite quotes what is damaged
            self.close()
            raise StorageError(f"the journal in {self._folder} cannot be opened: {error}") from None

    def close(self) -> None:
        """Close everything. Idempotent."""
        self._spool.close()
        if self._db is not None:
            self._db.close()
            self._db = None
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    # ---- opening

    def _keep_private(self) -> None:
        """Texts are nobody else's, in a folder that others may enter too. SQLite's log has the same mode."""
        os.close(os.open(self._folder / DATABASE, os.O_RDWR | os.O_CREAT, 0o600))
        for path in self._folder.glob(f"{DATABASE}*"):
            path.chmod(0o600)

    def _take(self) -> None:
        path = self._folder / "lock"
        self._lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"{path} is held by another broker: give each its own folder with `broker.journal`"
            ) from None

    def _connect(self) -> sqlite3.Connection:
        path = self._folder / DATABASE
        db = _database(path)
        try:
            version: int = db.execute("PRAGMA user_version").fetchone()[0]
            sound: str = db.execute("PRAGMA quick_check").fetchone()[0]
            if version > SCHEMA:
                db.close()
                raise ConfigError(
                    f"{path} was written by a newer voicebus (schema {version}): update this one"
                )
            if sound == "ok":
                _prepare(db)
                return db
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            if isinstance(error, sqlite3.OperationalError) and "malformed" not in str(error):
                raise
            sound = str(error)
        return self._salvage(db, path, sound)

    def _salvage(self, db: sqlite3.Connection, path: Path, what: str) -> sqlite3.Connection:
        """Take over what can be read of a damaged database into a new one."""
        rows = _readable(db)
        db.close()
        number = 1
        while (aside := path.with_name(f"{DATABASE}.damaged-{number}")).exists():
            number += 1
        for suffix in ("", "-wal", "-shm"):
            part = Path(f"{path}{suffix}")
            if part.exists():
                part.rename(f"{aside}{suffix}")
        fresh = _database(path)
        _prepare(fresh)
        marks = ", ".join("?" * len(_COLUMNS.split(", ")))
        with fresh:
            fresh.executemany(f"INSERT OR IGNORE INTO jobs ({_COLUMNS}) VALUES ({marks})", rows)  # noqa: S608 - constants
        log.error(
            "the journal is damaged (%s): %d jobs could be taken over, the file is kept as %s",
            what, len(rows), aside.name,
        )  # fmt: skip
        return fresh

    def _recover(self) -> list[Recovered]:
        db = self._open_db()
        found: list[Recovered] = []
        for row in db.execute(f"SELECT {_COLUMNS} FROM jobs ORDER BY number").fetchall():  # noqa: S608 - constants
            try:
                found.append(self._recovered(row))
            except (msgspec.DecodeError, TypeError, ValueError) as error:
                log.error("a job in the journal cannot be read and is left out: %s", error)  # noqa: TRY400
        again = [job.job for job in found if job.state == "queued"]
        with db:
            db.executemany(
                "UPDATE jobs SET state='queued', chunks=x'90' WHERE job=?", [(job,) for job in again]
            )
        self._spool.open(job.job for job in found if job.state == "done")
        return found

    def _recovered(self, cells: Sequence[Any]) -> Recovered:
        row = msgspec.convert(cells, _Row)
        history = tuple(_unpack_history(row.history))
        index = _unpack_index(row.chunks)
        size_bytes = sum(size for _, _, size in index)
        state: str = row.state
        if state == "done":
            path = self._spool.path(row.job)
            if not path.is_file() or path.stat().st_size < size_bytes:
                log.warning("job=%s its audio is not whole: it will be spoken again", row.job.hex())
                state = "queued"
        whole = Recovered(
            row.job,
            row.header,
            row.text,
            row.budget_s,
            row.entered_at,
            state,
            row.attempt,
            row.losses,
            history,
        )
        if state == "queued":
            return whole
        return replace(
            whole, started=row.started, answer=row.answer, ended_at=row.ended_at, fetched_at=row.fetched_at,
            chunks=len(index), audio_bytes=size_bytes,
        )  # fmt: skip

    def _open_db(self) -> sqlite3.Connection:
        if self._db is None:
            raise StorageError("the journal is not open")
        return self._db

    # ---- writing

    def write(self, entries: Sequence[Entry]) -> list[BusError | None]:
        """Write a batch as one transaction; the outcome of each entry, in order. Never raises."""
        outcomes: list[BusError | None] = [None] * len(entries)
        removed: list[bytes] = []
        tried = 0
        try:
            db = self._open_db()
            db.execute("BEGIN IMMEDIATE")
            for entry in entries:
                outcomes[tried] = self._entry(db, entry, removed)
                tried += 1
            db.execute("COMMIT")
        except (sqlite3.Error, OSError, StorageError) as error:
            self._rollback()
            if len(entries) > 1:
                # One that is too much for the disk must not take the others with it. Audio whose turn had
                # come is in its file already or has failed; it must not be written twice.
                return [
                    outcome
                    if number < tried and isinstance(entry, Audio | Rewound)
                    else self.write([entry])[0]
                    for number, (entry, outcome) in enumerate(zip(entries, outcomes, strict=True))
                ]
            for entry in entries:
                if isinstance(entry, Audio | Rewound | Ended):
                    self._forget_audio(entry.job)
                if isinstance(entry, Audio | Rewound):
                    self._failed.add(entry.job)
            return [_full(error) for _ in entries]
        for job in removed:
            self._forget_audio(job)
        for entry, outcome in zip(entries, outcomes, strict=True):
            if isinstance(entry, Ended) and entry.state == "done" and outcome is None:
                self._spool.let_go(entry.job)
        return outcomes

    def _entry(self, db: sqlite3.Connection, entry: Entry, removed: list[bytes]) -> BusError | None:
        try:
            if isinstance(entry, Audio):
                if entry.job in self._failed:
                    raise StorageError("earlier audio of this job could not be written")
                self._spool.append(entry.job, entry.segment, entry.flags, entry.pcm)
            elif isinstance(entry, Rewound):
                self._spool.rewind(entry.job, entry.chunks)
            elif isinstance(entry, Ended) and entry.state == "done":
                if entry.job in self._failed:
                    raise StorageError("the audio of this job could not be written")
                self._ended(db, entry, self._spool.finish(entry.job))
            elif isinstance(entry, Ended):
                self._ended(db, entry, [])
                removed.append(entry.job)
            else:
                self._row(db, entry, removed)
        except (OSError, StorageError) as error:
            if isinstance(entry, Audio | Rewound | Ended):
                self._forget_audio(entry.job)
                self._failed.add(entry.job)
            return _full(error)
        return None

    def _row(self, db: sqlite3.Connection, entry: Entry, removed: list[bytes]) -> None:
        if isinstance(entry, Entered):
            db.execute(
                "INSERT OR REPLACE INTO jobs (job, header, text, budget_s, entered_at)"
                " VALUES (?, ?, ?, ?, ?)",
                (entry.job, entry.header, entry.text, entry.budget_s, entry.at),
            )
        elif isinstance(entry, Lost):
            db.execute(
                "UPDATE jobs SET attempt=?, losses=?, history=? WHERE job=?",
                (entry.attempt, entry.losses, _pack(entry.history), entry.job),
            )
        elif isinstance(entry, Fetched):
            db.execute("UPDATE jobs SET fetched_at=? WHERE job=?", (entry.at, entry.job))
        elif isinstance(entry, Dropped):
            db.execute("DELETE FROM jobs WHERE job=?", (entry.job,))
            removed.append(entry.job)

    def _ended(self, db: sqlite3.Connection, entry: Ended, index: Index) -> None:
        db.execute(
            "UPDATE jobs SET state=?, started=?, answer=?, ended_at=?, chunks=? WHERE job=?",
            (entry.state, entry.started, entry.answer, entry.at, _pack(index), entry.job),
        )

    def _rollback(self) -> None:
        if self._db is not None and self._db.in_transaction:
            try:
                self._db.execute("ROLLBACK")
            except sqlite3.Error as error:
                log.warning("the journal could not roll back: %s", error)

    def _forget_audio(self, job: bytes) -> None:
        self._failed.discard(job)
        try:
            self._spool.remove(job)
        except OSError as error:
            log.warning("job=%s its audio could not be removed: %s", job.hex(), error)

    # ---- reading

    def read(self, read: Read) -> Page:
        """A page of a finished job. Raises `UnknownJob` and `StorageError`."""
        try:
            row = (
                self._open_db()
                .execute("SELECT started, answer, chunks FROM jobs WHERE job=? AND state='done'", (read.job,))
                .fetchone()
            )
            if row is None:
                raise UnknownJob("the result of this job is kept no longer")
            started, answer, packed = row
            index = _unpack_index(packed)
            chunks = self._spool.read(read.job, index, read.first, read.count)
        except (sqlite3.Error, OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise StorageError(f"the result cannot be read: {error}") from None
        return Page(started, chunks, answer if read.first + len(chunks) >= len(index) else None)


def _database(path: Path) -> sqlite3.Connection:
    # Used by the scribe's thread, opened before it starts: never by two at once.
    db = sqlite3.connect(path, timeout=5.0, isolation_level=None, check_same_thread=False)
    db.text_factory = _text
    return db


def _text(data: bytes) -> str:
    """Damaged text is read as such: its row is left out, and not the whole journal."""
    return data.decode("utf-8", "replace")


def _prepare(db: sqlite3.Connection) -> None:
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    db.execute(_TABLE)
    db.execute(f"PRAGMA user_version={SCHEMA}")


def _readable(db: sqlite3.Connection) -> list[tuple[Any, ...]]:
    """Rows from the front until something is in the way, then from the back until the same."""
    rows: dict[bytes, tuple[Any, ...]] = {}
    for order in ("ASC", "DESC"):
        try:
            for row in db.execute(f"SELECT {_COLUMNS} FROM jobs ORDER BY number {order}"):  # noqa: S608 - constants
                if row[0] in rows and order == "DESC":
                    break
                rows[row[0]] = row
        except (sqlite3.Error, UnicodeDecodeError) as error:
            log.debug("reading the damaged journal stopped: %s", error)
    return list(rows.values())


def _full(error: Exception) -> StorageError:
    if isinstance(error, StorageError):
        return error
    return StorageError(f"the journal cannot be written: {error}", retry_after_s=5.0)
