"""Jobs that outlive the request: many lines spoken in the background, into a folder.

It is the batch of `vc batch` (`client/batch.py`), a thread for each of a few at once: the folder takes what
is done, a durable batch goes on at the broker while this process is away, and at the next start every job
that had not ended is taken up again. A job is its folder: `job.json` says what was asked, the manifest what
is done.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import msgspec
from msgspec import Struct

from ..client.batch import Folder, Tally, Wishes, run
from ..client.batch_input import Line
from ..common.atomic import write_bytes
from ..common.errors import BrokerUnreachable, BusError, EngineError, Overloaded, StorageError, UnknownJob
from .news import Happening

if TYPE_CHECKING:
    from ..client import Client
    from .news import News

log = logging.getLogger(__name__)

State = Literal["running", "done", "failed", "cancelled"]
DOCUMENT: Final = "job.json"
AT_ONCE: Final = 4
"""Jobs whose lines are sent; the bus is filled by one, and several only share it."""
AGAIN_S: Final = 2.0
AGAIN_MOST_S: Final = 30.0


class Document(Struct, frozen=True):
    """What `job.json` has."""

    id: str
    tenant: str
    created: float
    durable: bool
    lines: list[Line]
    wishes: Wishes
    state: State = "running"
    code: str = ""
    message: str = ""


@dataclass(slots=True, eq=False)
class Work:
    """One job here."""

    document: Document
    folder: Path
    tally: Tally
    client: Client | None = None
    "While its lines are sent."
    stopped: threading.Event = field(default_factory=threading.Event)

    @property
    def id(self) -> str:
        """32 hex digits."""
        return self.document.id

    @property
    def state(self) -> State:
        """How it is."""
        return self.document.state


class Works:
    """All jobs of an edge, kept under `place`. Its methods may be called from any thread."""

    def __init__(
        self, place: Path, client_of: Callable[[str], Client], news: News, *, most: int, keep_s: float
    ) -> None:
        self._place = place
        self._client_of = client_of
        self._news = news
        self._most = most
        self._keep_s = keep_s
        self._all: dict[str, Work] = {}
        self._pool = ThreadPoolExecutor(AT_ONCE, "job")
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def begin(self, lines: Sequence[Line], wishes: Wishes, tenant: str, durable: bool) -> Work:
        """Start a job. Raises `Overloaded` where too many are kept, `StorageError` where the disk refuses."""
        id = secrets.token_hex(16)
        document = Document(id, tenant, time.time(), durable, list(lines), wishes)
        work = Work(document, self._place / id, Tally(len(document.lines)))
        with self._lock:
            self._drop_old()
            if len(self._all) >= self._most:
                raise Overloaded(
                    f"{self._most:,} jobs are kept, which is all this server takes", retry_after_s=30
                )
            self._all[id] = work
        try:
            work.folder.mkdir(parents=True)
            _write(work)
        except OSError as error:
            with self._lock:
                del self._all[id]
            shutil.rmtree(work.folder, ignore_errors=True)
            raise StorageError(f"the job cannot be kept: {error.strerror}") from None
        self._start(work)
        return work

    def take_up(self, loop: asyncio.AbstractEventLoop) -> None:
        """Go on with what had not ended when the last process did. Events are told on `loop`."""
        self._loop = loop
        if not self._place.exists():
            return
        for folder in sorted(self._place.iterdir()):
            work = _read(folder)
            if work is None:
                continue
            self._all[work.id] = work
            if work.state == "running":
                self._start(work)
        with self._lock:
            self._drop_old()

    def close(self) -> None:
        """Leave running jobs where they are: the next start takes them up."""
        for work in list(self._all.values()):
            if work.state == "running":
                self._stop(work)
        self._pool.shutdown(cancel_futures=True)

    def get(self, id: str) -> Work:
        """Raises `UnknownJob`."""
        work = self._all.get(id)
        if work is None:
            raise UnknownJob(f"there is no job {id[:40]!r}")
        return work

    def all(self, tenant: str) -> list[Work]:
        """A tenant's, the newest first."""
        mine = [work for work in list(self._all.values()) if work.document.tenant == tenant]
        return sorted(mine, key=lambda work: -work.document.created)

    def cancel(self, work: Work) -> None:
        """End a job, if it has not ended; what was spoken stays."""
        if work.state == "running":
            self._end(work, "cancelled")
            self._stop(work)

    def _start(self, work: Work) -> None:
        self._pool.submit(self._run, work)

    def _stop(self, work: Work) -> None:
        """Have its thread end soon: a client that is closed keeps nobody waiting."""
        work.stopped.set()
        client = work.client
        if client is not None:
            client.close()

    def _run(self, work: Work) -> None:
        try:
            self._speak(work)
        except Exception as error:
            log.exception("job %s failed", work.id)
            self._end(work, "failed", EngineError.code, f"something went wrong here: {type(error).__name__}")

    def _speak(self, work: Work) -> None:
        wait_s = AGAIN_S
        while not work.stopped.is_set():
            try:
                with Folder(work.folder) as folder:
                    self._fill(work, folder)
                    if work.state == "cancelled" and folder.job_names is not None:
                        self._withdraw(work, folder.job_names.open)
            except BrokerUnreachable as error:
                # No line's fault, and no reason to give a book up: the bus comes back.
                log.warning("job %s waits: %s", work.id, error)
                work.stopped.wait(wait_s)
                wait_s = min(2 * wait_s, AGAIN_MOST_S)
                continue
            except BusError as error:
                self._end(work, "failed", error.code, error.message)
            except OSError as error:
                self._end(work, "failed", StorageError.code, f"the job's folder cannot be written: {error}")
            return

    def _fill(self, work: Work, folder: Folder) -> None:
        """Speak what is not there yet, until all is or the job is stopped."""
        asked = work.document
        with self._client_of(asked.tenant) as client:
            work.client = client
            tallies = run(client, asked.lines, folder, asked.wishes, durable=asked.durable)
            with closing(tallies):
                for tally in tallies:
                    work.tally = tally
                    self._tell(work)
                    if work.stopped.is_set():
                        return
        codes = work.tally.codes
        spoken = work.tally.kept + work.tally.done
        if spoken:
            self._end(work, "done")
        else:
            self._end(
                work, "failed", max(codes, key=lambda code: codes[code]), "none of its lines was spoken"
            )

    def _withdraw(self, work: Work, jobs: set[str]) -> None:
        """A durable job goes on at the broker until it is told otherwise."""
        with self._client_of(work.document.tenant) as client:
            for job in jobs:
                with suppress(UnknownJob):  # it has ended meanwhile, or was never sent
                    client.cancel(job)

    def _end(self, work: Work, state: State, code: str = "", message: str = "") -> None:
        with self._lock:
            if work.state != "running":
                return
            work.document = msgspec.structs.replace(work.document, state=state, code=code, message=message)
        try:
            _write(work)
        except OSError as error:
            log.warning("the end of job %s cannot be written: %s", work.id, error)
        self._tell(work)

    def _tell(self, work: Work) -> None:
        tally = work.tally
        happening = Happening(
            "job",
            work.id,
            work.state,
            work.document.wishes.engine,
            work.document.wishes.voice,
            audio_s=round(tally.audio_s, 3),
            done=tally.kept + tally.done + tally.failed,
            total=tally.total,
            code=work.document.code,
        )
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._news.tell, work.document.tenant, happening)

    def _drop_old(self) -> None:
        now = time.time()
        for work in list(self._all.values()):
            if work.state != "running" and now - work.document.created > self._keep_s:
                shutil.rmtree(work.folder, ignore_errors=True)
                del self._all[work.id]


def _write(work: Work) -> None:
    write_bytes(work.folder / DOCUMENT, msgspec.json.encode(work.document))


def _read(folder: Path) -> Work | None:
    """A job's folder; None for one that is none, or whose document was never whole."""
    try:
        document = msgspec.json.decode((folder / DOCUMENT).read_bytes(), type=Document)
    except (OSError, msgspec.DecodeError) as error:
        log.warning("%s is no job: %s", folder, error)
        return None
    return Work(document, folder, _tally(folder, len(document.lines)))


def _tally(folder: Path, total: int) -> Tally:
    """How far a job had come, by its manifest."""
    from ..client.batch import MANIFEST, read_records

    tally = Tally(total)
    try:
        with open(folder / MANIFEST, "rb") as file:
            for record in read_records(file):
                if record.get("status") == "done":
                    tally.done += 1
                    tally.audio_s += float(record.get("seconds", 0))
                else:
                    code = str(record.get("code", ""))
                    tally.codes[code] = tally.codes.get(code, 0) + 1
    except FileNotFoundError:
        pass
    return tally
