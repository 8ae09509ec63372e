"""Who added or removed a voice or a key, when, and with what consent: a file that only grows.

An act is written down before it is done (`begun`) and again when it has ended (`done` or `failed`), both on
the disk before anything goes on. So a voice is never there without a trace: where the file cannot be written,
the act is refused; where the machine stops in between, `begun` alone says what may have been done.

One JSON object a line. What strangers chose cannot end a line nor hide a part of it, since all that does not
show is escaped. A file that has grown large is put aside under the moment's name, and nothing is ever
removed: keeping and forgetting are the operator's.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import secrets
import socket
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

from .atomic import private_folder, sync_folder
from .errors import BusError, StorageError
from .printable import printable

log = logging.getLogger(__name__)

MAX_FILE_BYTES: Final = 64 * 1024 * 1024
MAX_WORDS: Final = 2000
"""Of one value: what is longer was refused or is about to be."""
PRIVATE: Final = 0o600

Deed = Literal["voice.add", "voice.remove", "key.new", "key.revoke"]
Step = Literal["begun", "done", "failed"]


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts, and through which door: the edge for a key's holder, `vc` for a user of the system."""

    door: Literal["edge", "vc"]
    key: str = ""
    "The id of the API key; empty where none is asked for."
    name: str = ""
    "The key's name, or the user's."
    tenant: str = ""
    address: str = ""
    "The client's, or the machine's name."
    uid: int | None = None


class Act:
    """An act under way, to which its outcome is added."""

    def __init__(self) -> None:
        self.outcome: dict[str, Any] = {}

    def add(self, **outcome: Any) -> None:
        """What is known only now, such as the hash of what was kept."""
        self.outcome.update(outcome)


class Audit:
    """The file at `path`; with None nothing is written, which is the operator's choice.

    Safe to share between threads, and several processes may write the same file.
    """

    def __init__(self, path: str | os.PathLike[str] | None, *, max_bytes: int = MAX_FILE_BYTES) -> None:
        self._path = None if path is None else Path(path)
        self._max_bytes = max_bytes

    @contextmanager
    def act(self, deed: Deed, actor: Actor, **details: Any) -> Generator[Act]:
        """Write down that this is about to be done, and how it ended when the block does.

        Raises `StorageError` before the block where that cannot be written. An end that cannot be written
        changes nothing of what was done: it is logged, and `begun` stands in the file.
        """
        act = Act()
        if self._path is None:
            yield act
            return
        known = {"deed": deed, "act": secrets.token_hex(8), **_told(actor), **details}
        try:
            self._append("begun", known)
        except OSError as error:
            raise StorageError(
                f"nothing was done: it cannot be written down in the audit file ({error.strerror}); "
                "see security.audit"
            ) from error
        try:
            yield act
        except BaseException as error:
            code = error.code if isinstance(error, BusError) else type(error).__name__
            self._end("failed", {**known, **act.outcome, "code": code})
            raise
        self._end("done", {**known, **act.outcome})

    def _end(self, step: Step, known: Mapping[str, Any]) -> None:
        try:
            self._append(step, known)
        except OSError:
            log.exception(
                "the audit file %s does not take the end of act %s, which is: %s",
                self._path,
                known["act"],
                step,
            )

    def _append(self, step: Step, known: Mapping[str, Any]) -> None:
        now = datetime.now(UTC)
        at = now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = printable(json.dumps({"at": at, "step": step, **_cut(known)}, ensure_ascii=False)) + "\n"
        path = self._path
        if path is None:
            return
        private_folder(path.parent)
        with _locked(path) as descriptor:
            is_full = os.fstat(descriptor).st_size >= self._max_bytes
            if is_full:
                aside = f"{path.stem}-{now.strftime('%Y%m%dT%H%M%S')}-{secrets.token_hex(2)}{path.suffix}"
                os.rename(path, path.with_name(aside))
            else:
                _write(descriptor, line.encode())
        if is_full:
            with _locked(path) as descriptor:
                _write(descriptor, line.encode())
        sync_folder(path.parent)


def user() -> Actor:
    """Whoever runs this process."""
    import pwd

    uid = os.getuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:  # a container's number has no name
        name = str(uid)
    return Actor("vc", name=name, address=socket.gethostname(), uid=uid)


def _told(actor: Actor) -> dict[str, Any]:
    return {name: value for name, value in asdict(actor).items() if value not in ("", None)}


def _cut(known: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value[:MAX_WORDS] if isinstance(value, str) else value
        for name, value in known.items()
        if value is not None
    }


@contextmanager
def _locked(path: Path) -> Generator[int]:
    """The file, alone with it: another process may put it aside between its opening and its locking."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    while True:
        descriptor = os.open(path, flags, PRIVATE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _is_at(descriptor, path):
                yield descriptor
                return
        finally:
            os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _write(descriptor: int, line: bytes) -> None:
    """The whole line, on the disk; or, where that is full, nothing of it."""
    size = os.fstat(descriptor).st_size
    if size and os.pread(descriptor, 1, size - 1) != b"\n":
        line = b"\n" + line  # the machine stopped in the middle of the last one
    try:
        rest = memoryview(line)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    except OSError:
        os.ftruncate(descriptor, size)
        raise
