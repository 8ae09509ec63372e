"""Jobs that outlive the request: many lines spoken in the background, into a folder.

It is the batch of `vc batch` (`client/batch.py`), a thread for each: the folder takes what is done, a durable
batch goes on at the broker while this process is away, and at the next start every job that had not ended is
taken up again. A job is its folder: `job.json` says what was asked, the manifest what is done, `end.json` how
it ended.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import shutil
import threading
import time
from collections import Counter
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
from ..common.atomic import private_folder, write_bytes
from ..common.errors import BrokerUnreachable, BusError, EngineError, Overloaded, StorageError, UnknownJob
from .news import Happening

if TYPE_CHECKING:
    from ..client import Client
    from .news import News

log = logging.getLogger(__name__)

State = Literal["running", "done", "failed", "cancelled"]
ASKED: Final = "job.json"
ENDED: Final = "end.json"
AT_ONCE: Final = 64
"""Jobs whose lines are sent; the bus shares itself out among them. Others wait here."""
OF_A_TENANT: Final = 16
AGAIN_S: Final = 2.0
AGAIN_MOST_S: Final = 30.0


class Asked(Struct, frozen=True):
    """What was asked, and never changes."""

    id: str
    tenant: str
    created: float
    durable: bool
    lines: list[Line]
    wishes: Wishes


class End(Struct, frozen=True):
    """How it ended. `open` are jobs of the bus that are still to be withdrawn."""

    state: State
    code: str = ""
    message: str = ""
    at: float = 0.0
    open: list[str] = []


@dataclass(slots=True, eq=False)
class Work:
    """One job here."""

    asked: Asked
    "Without its lines once it has ended: a book is large, and its folder has it."
    folder: Path
    tally: Tally
    end: End | None = None
    open: set[str] = field(default_factory=set[str])
    "Jobs of the bus that go on at the broker by themselves."
    client: Client | None = None
    "While its lines are sent."
    stopped: threading.Event = field(default_factory=threading.Event)

    @property
    def id(self) -> str:
        """32 hex digits."""
        return self.asked.id

    @property
    def state(self) -> State:
        """How it is."""
        return "running" if self.end is None else self.end.state


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
        self._waiting: list[Work] = []
        self._busy: Counter[str] = Counter()
        "Jobs under way, by tenant."
        self._pool = ThreadPoolExecutor(AT_ONCE, "job")
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def begin(self, lines: Sequence[Line], wishes: Wishes, tenant: str, durable: bool) -> Work:
        """Start a job. Raises `Overloaded` where too many run, `StorageError` where the disk refuses."""
        id = secrets.token_hex(16)
        asked = Asked(id, tenant, time.time(), durable, list(lines), wishes)
        work = Work(asked, self._place / id, Tally(len(asked.lines)))
        with self._lock:
            self._make_room()
            self._refuse_greed(tenant)
            self._all[id] = work
        try:
            private_folder(work.folder)
            write_bytes(work.folder / ASKED, msgspec.json.encode(asked))
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
            elif work.open:
                self._pool.submit(self._withdraw, work)
        with self._lock:
            self._drop_old()

    def close(self) -> None:
        """Leave running jobs where they are: the next start takes them up."""
        self._closing.set()
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
        mine = [work for work in list(self._all.values()) if work.asked.tenant == tenant]
        return sorted(mine, key=lambda work: -work.asked.created)

    def cancel(self, work: Work) -> None:
        """End a job that runs, what was spoken stays; forget one that has ended, with its sound."""
        if work.state == "running":
            self._end(work, "cancelled")
            self._stop(work)
            return
        with self._lock:
            self._drop(work)

    def _start(self, work: Work) -> None:
        with self._lock:
            self._waiting.append(work)
        self._advance()

    def _advance(self) -> None:
        """Begin what may begin: the oldest first, but no tenant has all threads."""
        with self._lock:
            for work in tuple(self._waiting):
                tenant = work.asked.tenant
                if self._closing.is_set() or self._busy.total() >= AT_ONCE:
                    return
                if self._busy[tenant] < OF_A_TENANT:
                    self._waiting.remove(work)
                    self._busy[tenant] += 1
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
        with self._lock:
            self._busy[work.asked.tenant] -= 1
        self._advance()
        if work.end is not None and work.open:
            self._withdraw(work)

    def _speak(self, work: Work) -> None:
        wait_s = AGAIN_S
        while not work.stopped.is_set():
            try:
                with Folder(work.folder) as folder:
                    try:
                        self._fill(work, folder)
                    finally:
                        if folder.job_names is not None:
                            work.open = folder.job_names.open
            except BrokerUnreachable as error:
                # No line's fault, and no reason to give a book up: the bus comes back.
                log.warning("job %s waits: %s", work.id, error)
                work.stopped.wait(wait_s)
                wait_s = min(2 * wait_s, AGAIN_MOST_S)
                continue
            except BusError as error:
                # A client that we have closed raises too: the job has ended, or the next start takes it up.
                if not work.stopped.is_set():
                    self._end(work, "failed", *told(error))
            except OSError as error:
                self._end(work, "failed", StorageError.code, f"the job cannot be kept: {error.strerror}")
            return

    def _fill(self, work: Work, folder: Folder) -> None:
        """Speak what is not there yet, until all is or the job is stopped."""
        asked = work.asked
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
        if work.tally.kept + work.tally.done:
            self._end(work, "done")
        else:
            worst = max(codes, key=lambda code: codes[code])
            self._end(work, "failed", worst, "none of its lines was spoken")

    def _withdraw(self, work: Work) -> None:
        """A durable job goes on at the broker until it is told otherwise, however long that takes."""
        self._write_end(work)
        wait_s = AGAIN_S
        while work.open and not self._closing.is_set():
            try:
                with self._client_of(work.asked.tenant) as client:
                    for job in tuple(work.open):
                        with suppress(UnknownJob):  # it has ended meanwhile, or was never sent
                            client.cancel(job)
                        work.open.discard(job)
            except BusError as error:
                log.warning("job %s cannot be withdrawn yet: %s", work.id, error)
                self._closing.wait(wait_s)
                wait_s = min(2 * wait_s, AGAIN_MOST_S)
        self._write_end(work)

    def _end(self, work: Work, state: State, code: str = "", message: str = "") -> None:
        with self._lock:
            if work.end is not None:
                return
            work.end = End(state, code, message, time.time())
        self._write_end(work)
        self._tell(work)
        work.asked = msgspec.structs.replace(work.asked, lines=[])

    def _write_end(self, work: Work) -> None:
        if work.end is None or work.id not in self._all:
            return
        work.end = msgspec.structs.replace(work.end, open=sorted(work.open))
        try:
            write_bytes(work.folder / ENDED, msgspec.json.encode(work.end))
        except OSError as error:
            log.warning("the end of job %s cannot be written: %s", work.id, error)

    def _tell(self, work: Work) -> None:
        tally = work.tally
        happening = Happening(
            "job",
            work.id,
            work.state,
            work.asked.wishes.engine,
            work.asked.wishes.voice,
            audio_s=round(tally.audio_s, 3),
            done=tally.kept + tally.done + tally.failed,
            total=tally.total,
            code="" if work.end is None else work.end.code,
        )
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._news.tell, work.asked.tenant, happening)

    def _make_room(self) -> None:
        """Forget what is old, and what had its time where somebody keeps most. Raises `Overloaded`."""
        self._drop_old()
        while len(self._all) >= self._most:
            ended = sorted(
                (work for work in self._all.values() if work.end is not None),
                key=lambda work: _ended_at(work),
            )
            if not ended:
                raise Overloaded(
                    f"{self._most:,} jobs are under way, which is all this server takes", retry_after_s=30
                )
            kept = Counter(work.asked.tenant for work in ended)
            most = max(kept, key=lambda tenant: kept[tenant])
            self._drop(next(work for work in ended if work.asked.tenant == most))

    def _refuse_greed(self, tenant: str) -> None:
        """No tenant may keep all others from handing over jobs. Raises `Overloaded`."""
        under_way = sum(work.end is None and work.asked.tenant == tenant for work in self._all.values())
        if tenant and under_way >= max(1, self._most // 2):
            raise Overloaded(
                f"{under_way:,} of your jobs are under way, which is half of what this server takes",
                retry_after_s=30,
            )

    def _drop_old(self) -> None:
        now = time.time()
        for work in list(self._all.values()):
            if work.end is not None and now - work.end.at > self._keep_s:
                self._drop(work)

    def _drop(self, work: Work) -> None:
        if self._all.pop(work.id, None) is not None:
            shutil.rmtree(work.folder, ignore_errors=True)


def _ended_at(work: Work) -> float:
    return 0.0 if work.end is None else work.end.at


def told(error: BusError) -> tuple[str, str]:
    """The code and the sentence for an error that ends a job. A disk's refusal names no path of ours."""
    cause = error.__context__
    if isinstance(cause, OSError):
        return StorageError.code, f"the job's sound cannot be kept: {cause.strerror}"
    return error.code, error.message


def _read(folder: Path) -> Work | None:
    """A job's folder; None for one that is none, or whose document was never whole."""
    try:
        asked = msgspec.json.decode((folder / ASKED).read_bytes(), type=Asked)
    except (OSError, msgspec.DecodeError) as error:
        log.warning("%s is no job: %s", folder, error)
        return None
    work = Work(asked, folder, _tally(folder, len(asked.lines)))
    with suppress(FileNotFoundError, msgspec.DecodeError):
        work.end = msgspec.json.decode((folder / ENDED).read_bytes(), type=End)
        work.open = set(work.end.open)
        work.asked = msgspec.structs.replace(asked, lines=[])
    return work


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
