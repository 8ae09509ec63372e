"""The journal on a real disk: what was acknowledged is there after any end, and a full disk is survived."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voicebus.broker.entries import Audio, Dropped, Ended, Entered, Entry, Fetched, Lost, Page, Read, Rewound
from voicebus.broker.journal import DATABASE, Journal
from voicebus.broker.scribe import Scribe
from voicebus.common.errors import BusError, ConfigError, StorageError, UnknownJob


def job_id(number: int) -> bytes:
    return number.to_bytes(16, "big")


def entered(number: int, text: bytes = b"hello") -> Entered:
    return Entered(job_id(number), b"header", text, 60.0, 1000.0 + number)


def spoken(number: int, *pieces: bytes) -> list[Entry]:
    """A whole job with the given audio."""
    audio = [Audio(job_id(number), segment, 2, pcm) for segment, pcm in enumerate(pieces)]
    return [entered(number), *audio, Ended(job_id(number), "done", b"started", b"done", 2000.0)]


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "state")
    assert journal.open() == []
    yield journal
    journal.close()


def again(journal: Journal, folder: Path) -> Journal:
    journal.close()
    return Journal(folder / "state")


def test_jobs_and_their_results_come_back(journal: Journal, tmp_path: Path) -> None:
    entries = [
        *spoken(1, b"one!", b"two!"),
        entered(2),
        Lost(job_id(2), 2, 1, ("attempt 1 on w: died",)),
        entered(3),
        Ended(job_id(3), "failed", b"", b"why", 2001.0),
        entered(4),
        Dropped(job_id(4)),
        Fetched(job_id(1), 3000.0),
    ]
    assert journal.write(entries) == [None] * len(entries)
    journal = again(journal, tmp_path)
    done, queued, failed = journal.open()
    assert (done.state, done.chunks, done.audio_bytes, done.fetched_at) == ("done", 2, 8, 3000.0)
    assert (queued.state, queued.attempt, queued.losses) == ("queued", 2, 1)
    assert queued.history == ("attempt 1 on w: died",)
    assert (failed.state, failed.answer, failed.entered_at) == ("failed", b"why", 1003.0)
    assert journal.read(Read(job_id(1), b"", 1, 64)) == Page(b"started", [(1, 2, b"two!")], b"done")
    assert journal.read(Read(job_id(1), b"", 0, 1)) == Page(b"started", [(0, 2, b"one!")], None)
    with pytest.raises(UnknownJob):
        journal.read(Read(job_id(4), b"", 0, 1))
    journal.close()


def test_a_new_attempt_follows_on_from_whole_segments(journal: Journal) -> None:
    job = job_id(1)
    journal.write([entered(1), Audio(job, 0, 2, b"keep"), Audio(job, 1, 0, b"lose"), Rewound(job, 1)])
    journal.write([Audio(job, 1, 2, b"anew"), Ended(job, "done", b"s", b"d", 1.0)])
    assert [pcm for _, _, pcm in journal.read(Read(job, b"", 0, 9)).chunks] == [b"keep", b"anew"]


def test_texts_are_nobody_elses_even_in_a_folder_that_others_may_enter(tmp_path: Path) -> None:
    """Caught: in a folder that was there already, with the usual mode, anybody could read the database."""
    folder = tmp_path / "state"
    folder.mkdir(mode=0o755)
    before = os.umask(0o022)
    try:
        sqlite3.connect(folder / DATABASE).close()
        (folder / DATABASE).touch(mode=0o644)
        journal = Journal(folder)
        journal.open()
        journal.write(spoken(1, b"one!"))
        modes = {path.name: path.stat().st_mode & 0o777 for path in folder.glob(f"{DATABASE}*")}
        journal.close()
    finally:
        os.umask(before)
    assert modes.pop(DATABASE) == 0o600
    assert modes, "it has a log beside it"
    assert set(modes.values()) == {0o600}


def test_two_brokers_cannot_share_a_folder(journal: Journal, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="held by another broker"):
        Journal(tmp_path / "state").open()


def test_a_newer_journal_is_refused(journal: Journal, tmp_path: Path) -> None:
    journal.close()
    with sqlite3.connect(tmp_path / "state" / DATABASE) as db:
        db.execute("PRAGMA user_version=99")
    with pytest.raises(ConfigError, match="newer"):
        Journal(tmp_path / "state").open()


def test_a_result_whose_audio_is_cut_off_is_spoken_again(journal: Journal, tmp_path: Path) -> None:
    journal.write(spoken(1, b"0123456789"))
    journal.close()
    os.truncate(tmp_path / "state" / "spool" / f"{job_id(1).hex()}.pcm", 4)
    (tmp_path / "state" / "spool" / "stray.pcm").write_bytes(b"x")
    journal = Journal(tmp_path / "state")
    assert [job.state for job in journal.open()] == ["queued"]
    assert list((tmp_path / "state" / "spool").iterdir()) == []
    journal.close()


@pytest.mark.parametrize("cut", range(0, 30_000, 1973))
def test_a_torn_tail_costs_at_most_what_was_written_last(tmp_path: Path, cut: int) -> None:
    """A crash of the machine may cut the log anywhere: whole transactions before the cut must stand."""
    journal = Journal(tmp_path / "state")
    journal.open()
    sizes: list[int] = []
    wal = tmp_path / "state" / f"{DATABASE}-wal"
    for number in range(6):
        journal.write([entered(number, bytes(2000))])
        sizes.append(wal.stat().st_size)
    shutil.copytree(tmp_path / "state", tmp_path / "crashed" / "state")
    journal.close()
    torn = tmp_path / "crashed" / "state" / f"{DATABASE}-wal"
    os.truncate(torn, min(cut, torn.stat().st_size))
    journal = Journal(tmp_path / "crashed" / "state")
    found = [int.from_bytes(job.job) for job in journal.open()]
    whole = sum(size <= cut for size in sizes)
    assert found == list(range(whole)), "exactly the transactions before the cut"
    journal.close()


def test_a_damaged_database_is_moved_aside_and_what_can_be_read_goes_on(
    journal: Journal, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(200):
        journal.write([entered(number, bytes(500))])
    journal.close()
    path = tmp_path / "state" / DATABASE
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 8192] = os.urandom(8192)
    path.write_bytes(data)
    journal = Journal(tmp_path / "state")
    found = journal.open()
    assert 50 < len(found) < 200
    assert "damaged" in caplog.text
    assert (tmp_path / "state" / f"{DATABASE}.damaged-1").exists()
    assert journal.write([entered(999)]) == [None]
    journal.close()


def test_rubbish_instead_of_a_database_is_survived(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / DATABASE).write_bytes(os.urandom(50_000))
    journal = Journal(tmp_path / "state")
    assert journal.open() == []
    assert journal.write([entered(1)]) == [None]
    journal.close()


_WRITER = """
import sys
from voicebus.broker.entries import Entered
from voicebus.broker.journal import Journal
from pathlib import Path
from typing import Any
journal = Journal(Path(sys.argv[1]))
journal.open()
for number in range(100_000):
    assert journal.write([Entered(number.to_bytes(16, "big"), b"h", b"t", 60.0, 1.0)]) == [None]
    print(number, flush=True)
"""


@pytest.mark.parametrize("after", [1, 17, 60])
def test_what_was_acknowledged_survives_a_kill(tmp_path: Path, after: int) -> None:
    folder = tmp_path / "state"
    writer = subprocess.Popen([sys.executable, "-c", _WRITER, str(folder)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    acknowledged = [int(writer.stdout.readline()) for _ in range(after)]
    writer.send_signal(signal.SIGKILL)
    acknowledged += [int(line) for line in writer.stdout if line.endswith("\n")]
    writer.wait(10)
    journal = Journal(folder)
    found = {int.from_bytes(job.job) for job in journal.open()}
    assert set(acknowledged) <= found
    journal.close()


_FULL = """
import resource, signal, sys
from pathlib import Path
from typing import Any
from voicebus.broker.entries import *
from voicebus.broker.journal import Journal
from voicebus.common.errors import StorageError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
journal = Journal(Path(sys.argv[1]))
journal.open()
one, two = bytes(15) + b"1", bytes(15) + b"2"
assert journal.write([Entered(one, b"h", b"t", 60.0, 1.0), Audio(one, 0, 0, bytes(50_000))]) == [None, None]
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
outcomes = journal.write([Audio(one, 1, 0, bytes(200_000)), Entered(two, b"h", b"t", 60.0, 1.0)])
assert isinstance(outcomes[0], StorageError), outcomes
assert outcomes[1] is None, "its neighbour stands"
assert isinstance(journal.write([Ended(one, "done", b"", b"", 1.0)])[0], StorageError), "no half result"
big = journal.write([Entered(bytes(15) + b"3", b"h", bytes(400_000), 60.0, 1.0)])
assert isinstance(big[0], StorageError), big
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert journal.write([Entered(bytes(15) + b"4", b"h", bytes(400_000), 60.0, 1.0)]) == [None], "room again"
journal.close()
print([job.job[-1:] for job in Journal(Path(sys.argv[1])).open()])
"""


def test_a_full_disk_fails_what_does_not_fit_and_nothing_else(tmp_path: Path) -> None:
    """A file size limit is a full disk that needs no root: writes fail half way through."""
    assert resource.RLIMIT_FSIZE
    done = subprocess.run(
        [sys.executable, "-c", _FULL, str(tmp_path / "state")], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[b'1', b'2', b'4']"


class Failing:
    """A database in which one statement fails once, as on a disk that is full for a moment."""

    def __init__(self, journal: Journal, statement: str) -> None:
        assert journal._db is not None
        self.db = journal._db
        self.statement = statement
        journal._db = self  # type: ignore[assignment]

    @property
    def in_transaction(self) -> bool:
        return self.db.in_transaction

    def execute(self, statement: str, *arguments: Any) -> sqlite3.Cursor:
        if statement.startswith(self.statement):
            self.statement = "never again"
            raise sqlite3.OperationalError("database or disk is full")
        return self.db.execute(statement, *arguments)

    def close(self) -> None:
        self.db.close()


@pytest.mark.parametrize("statement", ["BEGIN", "INSERT", "UPDATE", "COMMIT"])
def test_a_batch_that_fails_as_a_whole_loses_no_audio(
    journal: Journal, tmp_path: Path, statement: str
) -> None:
    """Found by chaos: a result was kept as done with no audio, because its file was closed at the first try.

    And where the batch failed at its beginning, audio that was never written was taken for written.
    """
    entries = [*spoken(1, b"one!", b"two!"), entered(2), Audio(job_id(2), 0, 2, b"more")]
    Failing(journal, statement)
    assert journal.write(entries) == [None] * len(entries)
    assert journal.write([Ended(job_id(2), "done", b"s", b"d", 1.0)]) == [None]
    for _ in range(2):
        assert journal.read(Read(job_id(1), b"", 0, 9)).chunks == [(0, 2, b"one!"), (1, 2, b"two!")]
        assert journal.read(Read(job_id(2), b"", 0, 9)).chunks == [(0, 2, b"more")]
        journal = again(journal, tmp_path)
        assert [job.state for job in journal.open()] == ["done", "done"]
    journal.close()


def test_a_result_of_which_a_chunk_could_not_be_written_is_none(journal: Journal) -> None:
    journal.write([entered(1), Audio(job_id(1), 0, 2, b"one!")])
    Failing(journal, "BEGIN")
    assert isinstance(journal.write([Audio(job_id(1), 1, 2, b"two!")])[0], StorageError)
    assert isinstance(journal.write([Audio(job_id(1), 2, 2, b"three")])[0], StorageError)
    assert isinstance(journal.write([Ended(job_id(1), "done", b"s", b"d", 1.0)])[0], StorageError)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["enter", "audio", "rewind", "done", "fail", "drop", "crash"]), st.integers(0, 4)
    ),
    max_size=40,
)


@settings(max_examples=40, deadline=None)
@given(steps=STEPS)
def test_it_agrees_with_a_plain_model(
    steps: list[tuple[str, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("journal") / "state"
    journal = Journal(folder)
    journal.open()
    states: dict[int, str] = {}
    audio: dict[int, list[bytes]] = {}
    for step, number in steps:
        job = job_id(number)
        if step == "crash":
            journal.close()
            journal = Journal(folder)
            assert {int.from_bytes(found.job): found.state for found in journal.open()} == states
            audio = {n: pieces if states[n] == "done" else [] for n, pieces in audio.items()}
        elif step == "enter" and number not in states:
            states[number], audio[number] = "queued", []
            journal.write([entered(number)])
        elif step == "drop" and number in states:
            del states[number], audio[number]
            journal.write([Dropped(job)])
        elif states.get(number) == "queued":
            pieces = audio[number]
            if step == "audio":
                pieces.append(os.urandom(len(pieces) + 1))
                journal.write([Audio(job, 0, 0, pieces[-1])])
            elif step == "rewind":
                del pieces[len(pieces) // 2 :]
                journal.write([Rewound(job, len(pieces))])
            elif step in ("done", "fail"):
                states[number] = "done" if step == "done" else "failed"
                journal.write([Ended(job, states[number], b"s", b"a", 1.0)])
    for number, state in states.items():
        if state == "done":
            page = journal.read(Read(job_id(number), b"", 0, 1000))
            assert [pcm for _, _, pcm in page.chunks] == audio[number]
    journal.close()


def test_the_scribe_answers_for_everything_in_order(journal: Journal) -> None:
    woken = threading.Event()
    scribe = Scribe(journal, woken.set)
    entries = [*spoken(1, b"abc"), Read(job_id(1), b"p", 0, 64), entered(2)]
    scribe.put(list(entries))
    outcomes: list[tuple[Entry, BusError | Page | None]] = []
    while len(outcomes) < len(entries):
        assert woken.wait(10)
        woken.clear()
        outcomes += scribe.take()
    assert [entry for entry, _ in outcomes] == entries
    assert [outcome for _, outcome in outcomes if outcome] == [Page(b"started", [(0, 2, b"abc")], b"done")]
    assert scribe.backlog_bytes == 0
    assert scribe.close(10)


def test_a_bug_in_the_journal_is_an_answer_and_no_silence(journal: Journal) -> None:
    woken = threading.Event()
    scribe = Scribe(journal, woken.set)
    journal.write = lambda entries: 1 / 0  # type: ignore[assignment, return-value]
    scribe.put([entered(1)])
    assert woken.wait(10)
    assert isinstance(scribe.take()[0][1], StorageError)
    assert scribe.close(10)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("job", "words"), ("job", b"short"), ("header", 1), ("text", "words"), ("state", "asleep"),
        ("attempt", -1), ("attempt", "two"), ("losses", 2**40), ("entered_at", float("inf")),
        ("budget_s", "long"), ("history", b"\xc1"),
        ("chunks", b"\x91\x93\x00\x00\xff"), ("chunks", b"\x91\x93\x00\xce\xff\xff\xff\xff\x01"),
    ],
)  # fmt: skip
def test_a_row_that_says_nonsense_is_left_out_alone(
    journal: Journal, tmp_path: Path, column: str, value: object
) -> None:
    """SQLite keeps anything in any column: such a row brought the broker's start down, or was believed."""
    assert journal.write([*spoken(1, b"one!"), *spoken(2, b"two!")]) == [None] * 6
    journal.close()
    db = sqlite3.connect(tmp_path / "state" / DATABASE)
    with db:
        db.execute(f"UPDATE jobs SET {column}=? WHERE job=?", (value, job_id(2)))  # noqa: S608 - a column of ours
    db.close()
    journal = again(journal, tmp_path)
    assert [found.job for found in journal.open()] == [job_id(1)]
    journal.close()


def test_damage_that_sqlite_quotes_is_no_crash(journal: Journal, tmp_path: Path) -> None:
    """Its words on a damaged schema hold the damaged bytes, which Python could not decode."""
    assert journal.write(spoken(1, b"one!")) == [None] * 3
    journal.close()
    db = sqlite3.connect(tmp_path / "state" / DATABASE)
    with db:
        db.execute("PRAGMA writable_schema=1")
        db.execute(
            "UPDATE sqlite_schema SET name=CAST(x'ffd4' AS TEXT), sql='CREATE TABLE jobs(' WHERE type='table'"
        )
    db.close()
    journal = again(journal, tmp_path)
    with suppress(StorageError):
        journal.open()
    journal.close()
