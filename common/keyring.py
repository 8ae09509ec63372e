"""The bus's keys: who may connect to a broker, and as what.

A keyring is a folder that nobody else may look into. `server.key` is the broker's own pair of CURVE keys;
each further `NAME.key` is one peer's: its pair, its role, and the server's public key, so that this one file
is all a peer needs on its machine. What the broker goes by is `allowed.json`, the list of public keys and
their roles; a key that is taken from it is let in nowhere. Several brokers share one keyring.

A role is bound to its key: a `client` submits, a `worker` registers and speaks, an `admin` may drain as well.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
import struct
import threading
import time
from collections import Counter
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from .atomic import sync_folder, write_bytes
from .errors import BadRequest, BusError, ConfigError
from .messages import END, Name

ALLOWED: Final = "allowed.json"
SERVER: Final = "server"
SUFFIX: Final = ".key"
MAX_FILE_BYTES: Final = 4 * 1024 * 1024
MAX_KEYS: Final = 10_000
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO

Z85: Final = r"^[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}" + END
"""A CURVE key of 32 bytes in the letters of ZeroMQ's RFC 32."""
CurveKey = Annotated[str, Meta(pattern=Z85)]


class Role(StrEnum):
    """What the holder of a key may be."""

    CLIENT = "client"
    WORKER = "worker"
    ADMIN = "admin"


class KeyFile(Struct, frozen=True, forbid_unknown_fields=True):
    """One pair of keys as it lies in its file. `server` is the broker's public key."""

    name: Name
    role: Annotated[str, Meta(pattern="^(client|worker|admin|server)" + END)]
    public: CurveKey
    secret: CurveKey
    server: CurveKey

    def __repr__(self) -> str:
        return f"<KeyFile {self.name} {self.role} {self.public}>"


class Listed(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A key that is let in. `tenant`: the only one it may speak for; None: any."""

    name: Name
    role: Role
    public: CurveKey
    created: str
    tenant: Name | None = None


def read_key(path: str | os.PathLike[str]) -> KeyFile:
    """Read a key file. Raises `ConfigError` where it cannot be read, is none, or others may read it."""
    file = Path(path)
    try:
        with open(file, "rb") as stream:
            _check_private(file, os.fstat(stream.fileno()), f"chmod 600 {file}")
            data = stream.read(MAX_FILE_BYTES)
        key = msgspec.json.decode(data, type=KeyFile)
    except OSError as error:
        raise ConfigError(f"the key {file} cannot be read: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is no key of `vc keys`: {error}") from None
    if not all(map(_is_curve_key, (key.public, key.secret, key.server))):
        raise ConfigError(f"{file} is no key of `vc keys`: it is damaged")
    return key


def key_for(folder: str | None, file: str | None, *roles: Role) -> KeyFile | None:
    """The key that a process uses: `file`, else the folder's first one that is named as one of `roles`.

    None where neither is configured. Raises `ConfigError`, also for a key that has another role.
    """
    if file is not None:
        key = read_key(file)
        if key.role not in roles:
            wanted = " or ".join(roles)
            raise ConfigError(f"{file} is a key for the role {key.role}, and {wanted} is needed here")
        return key
    if folder is None:
        return None
    places = [Path(folder, role + SUFFIX) for role in roles]
    return read_key(next((place for place in places if place.exists()), places[0]))


class Allowed:
    """The list of keys that are let in. Read again when its file changes; safe to share between threads.

    A list that cannot be read is left as it last was, and `problem` says why: a mistake made while the broker
    runs should neither let anybody in nor throw everybody out. Raises `ConfigError` for the first reading.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._path = Path(folder, ALLOWED)
        self._lock = threading.Lock()
        self._stamp: object = None
        self._listed: Mapping[str, Listed] = {}
        self.problem = ""
        self._refresh()
        if self.problem:
            raise ConfigError(self.problem)

    def find(self, public: str) -> Listed | None:
        """Who holds this key, as the list says now."""
        return self.now().get(public)

    def now(self) -> Mapping[str, Listed]:
        """Public key → who holds it. The same object as long as nothing changes."""
        with self._lock:
            self._refresh()
            return self._listed

    def _refresh(self) -> None:
        try:
            found = self._path.stat()
            # Of a list that was refused for its owner or mode nothing else changes when that is put right.
            stamp = (found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino)
        except OSError as error:
            stamp = error.errno
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._listed = {key.public: key for key in read_allowed(self._path)}
            self.problem = ""
        except ConfigError as error:
            self.problem = error.message
            if isinstance(error.__cause__, OSError):
                self._stamp = None  # it may have been the moment: no file could be opened, say


def read_allowed(path: Path) -> list[Listed]:
    """Read a list of keys. Raises `ConfigError`."""
    try:
        with open(path, "rb") as stream:
            _check_private(path, os.fstat(stream.fileno()), f"chmod 600 {path}")
            data = stream.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise ConfigError(f"{path}: larger than {MAX_FILE_BYTES:,} bytes, this is no list of keys")
        keys = msgspec.json.decode(data, type=list[Listed])
    except OSError as error:
        remedy = ": make one with `vc keys init`" if isinstance(error, FileNotFoundError) else ""
        raise ConfigError(f"the list of keys {path} cannot be read ({error.strerror}){remedy}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no list of keys: {error}") from None
    for values in ([key.name for key in keys], [key.public for key in keys]):
        twice = next((value for value, times in Counter(values).items() if times > 1), None)
        if twice is not None:
            # Two of one name, or two names of one key: the other would be let in after one was revoked.
            raise ConfigError(f"{path} is no list of keys: {twice} stands in it twice")
    return keys


class Keyring:
    """The folder, for whoever manages it."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)

    @property
    def exists(self) -> bool:
        """Whether keys were made here."""
        return (self.folder / ALLOWED).exists()

    def init(self) -> list[Listed]:
        """Make the folder, the server's key and one key for each role. Raises `BadRequest` where one is."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"{self.folder} cannot be made: {error.strerror}") from None
        with self._locked():
            if self.exists:
                raise BadRequest(f"{self.folder} has keys already: `vc keys list` shows them")
            if self.file(SERVER).exists():
                raise BadRequest(
                    f"{self.folder} has a {SERVER}{SUFFIX} and no {ALLOWED}: the making was cut off, or the "
                    "list has been lost. Put the list back, or remove the folder and begin anew"
                )
            server = _drawn(SERVER, SERVER)
            self._write_key(server)
            made: list[Listed] = []
            for role in Role:
                key = _drawn(role, role, server.public)
                self._write_key(key)
                made.append(_listed(key, None))
            # Last, so that a keyring which was cut off in the making lets nobody in.
            self._write_allowed(made)
        return made

    def new(self, name: str, role: Role, *, tenant: str | None = None) -> tuple[Listed, Path]:
        """Make one more key and list it. Returns what is known of it, and its file.

        Raises `BadRequest` for a name that is taken or none, `ConfigError` where there is no keyring.
        """
        if not _NAME.fullmatch(name) or name == SERVER:
            raise BadRequest(
                f"{name[:80]!r} is no name of a key: at most 64 of a-z, 0-9, -, _ and ., and not `server`"
            )
        with self._locked():
            known = self.list()
            if len(known) >= MAX_KEYS:
                raise BadRequest(f"there are {MAX_KEYS:,} keys already: revoke some")
            if any(key.name == name for key in known):
                raise BadRequest(f"there is a key {name!r} already: revoke it first, or choose another name")
            if self.file(name).exists():
                raise BadRequest(
                    f"there is a file {self.file(name)} already, of a key that is not listed: remove it "
                    "first, or choose another name"
                )
            key = _drawn(name, role, self.server().public)
            try:
                made = msgspec.convert(msgspec.to_builtins(_listed(key, tenant)), Listed)
            except msgspec.ValidationError as error:
                raise BadRequest(f"the key cannot be made: {error}") from None
            self._write_key(key)
            try:
                self._write_allowed([*known, made])
            except BusError:
                self.file(name).unlink(missing_ok=True)
                raise
        return made, self.file(name)

    def list(self) -> list[Listed]:
        """The keys that are let in, the oldest first. Raises `ConfigError`."""
        self._check_folder()
        return read_allowed(self.folder / ALLOWED)

    def revoke(self, name: str) -> Listed:
        """Take a key from the list, and its file away. Raises `BadRequest` for a name that is not listed."""
        with self._locked():
            known = self.list()
            gone = next((key for key in known if key.name == name), None)
            if gone is None:
                raise BadRequest(f"no key is named {name[:80]!r}: `vc keys list` shows them")
            self._write_allowed([key for key in known if key is not gone])
            if _NAME.fullmatch(name) and name != SERVER:
                self.file(name).unlink(missing_ok=True)
                sync_folder(self.folder)
        return gone

    def copy(self, name: str, folder: str | os.PathLike[str]) -> Path:
        """Give a key to another folder of keys, made if need be, as the one that its role uses there.

        Raises `ConfigError` where it cannot be read or written.
        """
        key = read_key(self.file(name))
        if key.role == SERVER:
            raise BadRequest("the server's key stays where it is: copy the whole folder for another broker")
        target = Path(folder)
        try:
            target.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"{target} cannot be made: {error.strerror}") from None
        _check_private(target, target.stat(), f"chmod 700 {target}")
        place = target / (key.role + SUFFIX)
        _write_private(place, _formatted(key))
        return place

    def server(self) -> KeyFile:
        """The broker's own key. Raises `ConfigError`."""
        self._check_folder()
        return read_key(self.file(SERVER))

    def file(self, name: str) -> Path:
        """Where a key lies."""
        return self.folder / (name + SUFFIX)

    def _check_folder(self) -> None:
        try:
            found = self.folder.stat()
        except OSError as error:
            raise ConfigError(
                f"the keys {self.folder} cannot be read ({error.strerror}): make them with `vc keys init`"
            ) from None
        _check_private(self.folder, found, f"chmod 700 {self.folder}")

    def _write_key(self, key: KeyFile) -> None:
        _write_private(self.file(key.name), _formatted(key))

    def _write_allowed(self, keys: list[Listed]) -> None:
        data = msgspec.json.format(msgspec.json.encode(keys), indent=2) + b"\n"
        if len(data) > MAX_FILE_BYTES:
            raise BadRequest(f"the list of keys would be larger than {MAX_FILE_BYTES:,} bytes: revoke some")
        _write_private(self.folder / ALLOWED, data)

    @contextmanager
    def _locked(self) -> Generator[None]:
        """Alone with the folder: of two who add, neither loses the other's key."""
        self._check_folder()
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _is_curve_key(letters: str) -> bool:
    """Whether the letters stand for 32 bytes: each five of them for a number that fits in four."""
    from zmq.utils import z85

    try:
        return len(z85.decode(letters)) == 32
    except struct.error:
        return False


def _drawn(name: str, role: str, server: str = "") -> KeyFile:
    import zmq

    public, secret = (half.decode() for half in zmq.curve_keypair())
    return KeyFile(name, role, public, secret, server or public)


def _listed(key: KeyFile, tenant: str | None) -> Listed:
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return Listed(key.name, Role(key.role), key.public, created, tenant)


def _formatted(key: KeyFile) -> bytes:
    return msgspec.json.format(msgspec.json.encode(key), indent=2) + b"\n"


def _write_private(path: Path, data: bytes) -> None:
    try:
        write_bytes(path, data, mode=0o600)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from None


def _check_private(path: Path, found: Any, remedy: str) -> None:
    """Raise `ConfigError` unless only we, or root, can have put something here and nobody else may look."""
    if found.st_uid not in (os.geteuid(), 0):
        raise ConfigError(f"{path} belongs to another user: keys must be this user's own")
    if found.st_mode & _OTHERS:
        raise ConfigError(f"{path} can be read or changed by other users: {remedy}")
