"""Files that people write or that come from elsewhere: configuration, voice records, batches, the journal."""

from __future__ import annotations

import logging
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path, PurePosixPath
from random import Random
from typing import Any, Final

import msgpack

from tests.fuzz import mutate
from tests.fuzz.samples import HEADERS, JOBS, PCM
from tests.fuzz.target import Target, check_error, refused, require
from voicebus.broker import admin
from voicebus.broker.core import BrokerCore
from voicebus.broker.entries import Audio, Ended, Entered, Lost, Read, Recovered
from voicebus.broker.journal import Journal
from voicebus.client.batch_input import read_lines
from voicebus.common import wire
from voicebus.common.config import Broker, Config, load_config
from voicebus.common.errors import BusError, ConfigError
from voicebus.common.manifest import ModelFile
from voicebus.common.messages import Accepted, Admin, AdminReply, Failed, decode, encode
from voicebus.common.voice_record import format_record, parse_record
from voicebus.common.wire import SEGMENT_END

mp: Any = msgpack
YAML_TOKENS: Final = (
    ": ", "- ", "\n", "  ", "'", '"', "[", "]", "{", "}", "&a ", "*a", "<<: *a", "!!int ", "!!float ",
    "!!bool x", "!!timestamp x", "!!binary x", "!!python/object:os.system ", "!!set ", "!!omap ", "? ", "|\n",
    ">\n", "2024-13-45", "2024-01-01", "0x", "1:60:60", ".nan", ".inf", "~", "null", "#", "%YAML 9.9\n",
    "---\n", "...\n", "\ufeff", "\u2028", "\x00", "\ud800", "é", "1" * 5000, "[[[[", "{a: {a: ",
)  # fmt: skip


MEMORY: Final = "/dev/shm"  # noqa: S108 - private folders are made in it
"""Where there is one: a journal flushes its files, and a disk would set the pace."""


@cache
def scratch() -> Path:
    """A folder that lasts as long as the process."""
    folder = tempfile.TemporaryDirectory(
        prefix="voicebus-fuzz-", dir=MEMORY if os.access(MEMORY, os.W_OK) else None
    )
    _kept.append(folder)
    return Path(folder.name)


_kept: list[tempfile.TemporaryDirectory[str]] = []


def run_config(data: bytes) -> None:
    """config.yaml, and a value of the environment."""
    file = scratch() / "config.yaml"
    file.write_bytes(data)
    with refused("config_error"):
        config = load_config(file, {})
        require(type(config) is Config, "a configuration is one, whole")
        require(Path(config.broker.journal or "/").is_absolute(), "folders are meant from the file's own")
    value = data[:200].decode("utf-8", "replace").replace("\0", "")
    with refused("config_error"):
        load_config(
            _plain_config(), {"VOICEBUS_BROKER__LIVENESS": value, "VOICEBUS_WORKERS__TONE__COUNT": value}
        )


@cache
def _plain_config() -> Path:
    file = scratch() / "plain.yaml"
    file.write_text("broker: {name: plain}\n", encoding="utf-8")
    return file


def run_voice(data: bytes) -> None:
    """voice.yaml."""
    with refused("config_error"):
        voice = parse_record("amber", data)
        require(0 < len(voice.name) <= 200 and 0 < len(voice.consent) <= 2000, "its words are bounded")
        again = parse_record("amber", format_record(voice))
        require(
            again == voice or voice.seconds != voice.seconds, "a record that is written again is the same"
        )


def run_manifest(data: bytes) -> None:
    """The path of a model's file, as an engine's author may write it."""
    path = data.decode("utf-8", "surrogateescape")
    try:
        file = ModelFile(path, "0" * 64, 1, "MIT", ())
    except ValueError:
        return
    parts = PurePosixPath("/models/x", file.path).parts
    require(parts[:3] == ("/", "models", "x") and ".." not in parts, "a model's file stays in its folder")
    require("\\" not in path, "nowhere is it a path of its own")


def run_batch(data: bytes) -> None:
    """The same bytes as each kind of a batch's input."""
    for suffix in (".txt", ".csv", ".jsonl"):
        file = scratch() / f"batch{suffix}"
        file.write_bytes(data)
        with refused("config_error"):
            lines = read_lines(file)
            require(
                [line.index for line in lines] == list(range(1, len(lines) + 1)), "lines are counted from 1"
            )
            said = sum(len(line.text) for line in lines)
            require(said <= len(data), "no line says more than the file does")
            for line in lines:
                require(line.speed is None or isinstance(line.speed, float), "a speed is a number")


COLUMNS: Final = 14


def _open_journal(folder: Path) -> list[Any]:
    journal = Journal(folder)
    try:
        found = journal.open()
        for job in found:
            require(len(job.job) == 16 and type(job.header) is bytes, "a job has an id and a header")
            require(type(job.text) is bytes, "a job has a text")
            require(job.state in ("queued", "done", "failed", "cancelled"), "a job is in some state")
            require(job.audio_bytes >= 0 and job.chunks >= 0, "audio is counted upwards")
            require(0 <= job.attempt < 1 << 16 and job.losses >= 0, "an attempt's number fits an envelope")
            if job.state == "done":
                with refused("storage_error", "unknown_job"):
                    page = journal.read(Read(job.job, b"peer", 0, 64))
                    size = sum(len(pcm) for _, _, pcm in page.chunks)
                    require(size <= job.audio_bytes, "a page is no more than was counted")
        _take_up(found)
        return found
    finally:
        journal.close()


def _take_up(found: list[Recovered]) -> None:
    """A broker starts with what was found, and says what became of each job."""
    core = BrokerCore(Broker(journal="state"), Random(1).randrange, 0.0)
    core.durables.wall_offset = 2000.0
    core.recover(found, 0.0)
    core.check_invariants()
    for job in found:
        core.fetch(b"peer", wire.pack_envelope(wire.FETCH, job.job), 0.1)
    admin.answer(core, b"peer", wire.pack_envelope(wire.ADMIN), encode(Admin("jobs")), 0.2)
    for now in (1.0, 1e5, 1e6):
        core.tick(now)
        core.check_invariants()
    for peer, envelope, *rest in core.to_clients:
        require(peer == b"peer", "only who asks is answered")
        kind = envelope[3]
        require(
            kind in (wire.ACCEPTED, wire.FAILED, wire.ADMIN), "a job of the journal is known, or has failed"
        )
        decode(rest[0], {wire.ACCEPTED: Accepted, wire.FAILED: Failed, wire.ADMIN: AdminReply}[kind])
        if kind == wire.ADMIN:
            require(decode(rest[0], AdminReply).ok, "one damaged job does not hide the others")


def _good_journal(folder: Path) -> None:
    journal = Journal(folder)
    journal.open()
    done, header = encode(HEADERS[5]), encode(HEADERS[2])
    for number, job in enumerate(JOBS[:3]):
        journal.write([Entered(job, header, b"A few words.", 60.0, 1000.0 + number)])
        journal.write([Audio(job, 0, SEGMENT_END, PCM)])
    journal.write([
        Ended(JOBS[0], "done", encode(HEADERS[4]), done, 1010.0),
        Lost(JOBS[1], 2, 1, ("attempt 1 on w: lost",)),
        Ended(JOBS[2], "failed", b"", encode(HEADERS[7]), 1011.0),
    ])  # fmt: skip
    journal.close()


@cache
def _journal_template() -> tuple[bytes, list[tuple[Any, ...]], list[str]]:
    folder = scratch() / "template"
    _good_journal(folder)
    db = sqlite3.connect(folder / "journal.db")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.execute("PRAGMA journal_mode=DELETE")
    rows = db.execute("SELECT * FROM jobs ORDER BY number").fetchall()
    names = [row[1] for row in db.execute("PRAGMA table_info(jobs)").fetchall()]
    db.close()
    return (folder / "journal.db").read_bytes(), rows, names


def run_journal_rows(data: bytes) -> None:
    """A sound database whose cells say anything: another version's, or somebody's who mended it by hand."""
    try:
        found: Any = mp.unpackb(data, strict_map_key=False, unicode_errors="surrogateescape")
    except mutate.UNREADABLE:
        return
    if not isinstance(found, list):
        return
    whole, _, names = _journal_template()
    folder = _fresh("rows")
    (folder / "journal.db").write_bytes(whole)
    db = sqlite3.connect(folder / "journal.db", isolation_level=None)
    rows: list[Any] = found  # pyright: ignore[reportUnknownVariableType]
    for change in rows[:8]:
        match change:
            case [int(row), int(column), value]:
                name = names[1 + column % (len(names) - 1)]
                try:
                    db.execute(f"UPDATE jobs SET {name}=? WHERE number=?", (value, 1 + row % 3))  # noqa: S608 - a column of ours
                except (sqlite3.Error, OverflowError, UnicodeEncodeError):
                    continue  # SQLite itself takes no such thing
            case _:
                continue
    db.close()
    with refused("storage_error", "config_error"):
        found_jobs = _open_journal(folder)
        require(len(found_jobs) <= 3, "no job comes out of nothing")
    with refused("storage_error", "config_error"):
        _open_journal(folder)  # and once more, after what the first start has mended


def run_journal_file(data: bytes) -> None:
    """A damaged database."""
    folder = _fresh("file")
    (folder / "journal.db").write_bytes(data)
    with refused("storage_error", "config_error"):
        _open_journal(folder)
        _open_journal(folder)


def _fresh(name: str) -> Path:
    folder = scratch() / name
    if folder.exists():
        for file in sorted(folder.rglob("*"), reverse=True):
            file.unlink() if not file.is_dir() else file.rmdir()
    folder.mkdir(exist_ok=True)
    return folder


def _row_seeds() -> Iterable[bytes]:
    _, rows, names = _journal_template()
    for row, cells in enumerate(rows):
        for column in range(1, len(names)):
            yield mp.packb([[row, column - 1, cells[column]]])


def _change_row(data: bytes, dice: Random) -> bytes:
    """One cell, changed as the MessagePack that it may be, or replaced."""
    try:
        found: Any = mp.unpackb(data, strict_map_key=False, unicode_errors="surrogateescape")
        row, column, value = found[0]
        if isinstance(value, bytes) and value:
            value = mutate.tree(value, dice)
        else:
            value = dice.choice(
                (
                    *mutate.NUMBERS,
                    *mutate.WORDS,
                    *mutate.INTERESTING,
                    "é".encode("latin-1"),
                    b"",
                    b"\x90",
                    b"x" * 17,
                )
            )
        more = [[dice.randrange(3), dice.randrange(COLUMNS), value]] if dice.random() < 0.3 else []
        return mutate.pack_tree([[row, column, value], *more])
    except (*mutate.UNREADABLE, IndexError, KeyError):
        return mutate.flip(data, dice)


def _config_seeds() -> Iterable[bytes]:
    root = Path(__file__).parents[2]
    yield (root / "config.yaml").read_bytes()[:8000]
    yield b"broker: {name: b, liveness: 3}\nworkers:\n  tone: {count: 1, settings: {a: [1, 2.5, null]}}\n"
    yield b"edge: {aliases: {alloy: amber}, trusted_proxies: ['10.0.0.0/8']}\nlogging: {level: INFO}\n"


def _voice_seeds() -> Iterable[bytes]:
    voices = Path(__file__).parents[2] / "voices"
    yield from (file.read_bytes() for file in sorted(voices.glob("*/voice.yaml")))


def _batch_seeds() -> Iterable[bytes]:
    yield "One line.\r\nAnother, with é.\n\n".encode()
    yield b'id,text,voice,speed\n1,"Hello, you",amber,1.25\n2,Good day,,\n'
    yield b'{"text": "Hello.", "id": "a", "speed": 1, "options": {"seed": 1}}\n"Only words"\n'


BATCH_TOKENS: Final = (
    ",", '"', '""', "\n", "\r", "text", "{", "}", "[", "]", '{"text": "a"}\n', '"speed": 1e400', "NaN",
    '"options": {}', ":", "\\ud800", "\\u0000", "\x00", "\u2028", "1" * 5000, "[" * 3000, '{"a":' * 3000, "é",
)  # fmt: skip


def _slow(run: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """The same without the lines that a damaged journal rightly writes into the log."""

    def quiet(data: bytes) -> None:
        log = logging.getLogger("voicebus.broker")
        level = log.level
        log.setLevel(logging.CRITICAL)
        try:
            run(data)
        except sqlite3.Error as error:
            check_error(ConfigError("unreachable"))
            raise AssertionError(f"SQLite's own error got out: {error!r}") from error
        except BusError as error:
            check_error(error)
        finally:
            log.setLevel(level)

    return quiet


TARGETS: Final = (
    Target(
        "config", "a configuration is whole, or refused as config_error",
        run_config, _config_seeds, mutate.words(YAML_TOKENS),
    ),
    Target(
        "voice", "a voice's record is refused as config_error, or written again as the same",
        run_voice, _voice_seeds, mutate.words(YAML_TOKENS),
    ),
    Target(
        "manifest", "no path of a model's file leads out of its folder",
        run_manifest, lambda: [b"a/b.onnx", b"../x", b"/etc/passwd", b"a/./b", b"c:\\x"], max_bytes=512,
    ),
    Target(
        "batch", "a batch's input is read line for line, or refused as config_error",
        run_batch, _batch_seeds, mutate.words(BATCH_TOKENS),
    ),
    Target(
        "journal-rows", "whatever a row says, the journal opens with what can be read",
        _slow(run_journal_rows), _row_seeds, _change_row, 4096, 3.0,
    ),
    Target(
        "journal-file", "a damaged database is set aside, and what can be read is taken over",
        _slow(run_journal_file), lambda: [_journal_template()[0]], max_bytes=40_000, most_cpu_s=3.0,
    ),
)  # fmt: skip
