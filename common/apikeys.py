"""API keys of the edge: drawn here, kept as hashes in one file, looked up without telling by the time taken.

A key is `vb_`, eight hex digits that name it, and 256 random bits. So much chance needs no slow hash: SHA-256
of the whole key is what is kept, and whoever reads the file can use none of them. The file is read again when
it changes, so that a key which is revoked stops working at the next request.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final, Literal, get_args

import msgspec
from msgspec import Meta, Struct

from .atomic import private_folder, write_bytes
from .errors import BadRequest, ConfigError
from .printable import refuse_unprintable

MAX_FILE_BYTES: Final = 8 * 1024 * 1024
MAX_KEYS: Final = 10_000
_KEY: Final = re.compile(r"vb_(?P<id>[0-9a-f]{8})_[A-Za-z0-9_-]{43}")
Tenant = Annotated[str, Meta(max_length=128)]

Scope = Literal["speak", "voices", "operate"]
"""What a key may do: speak and hand over jobs; add and remove voices; see how the bus is doing.

Without any of them a key can list engines and voices.
"""
SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)
LEAST: Final[tuple[Scope, ...]] = ("speak",)
"""Of a key that is made without a word: what most keys are for, and nothing that changes what others hear."""


class ApiKey(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is known of a key. None as a quota means that only what bounds everybody bounds it."""

    id: Annotated[str, Meta(pattern=r"^[0-9a-f]{8}$")]
    name: Annotated[str, Meta(min_length=1, max_length=128)]
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
    created: str
    tenant: Tenant = ""
    rpm: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    "Requests a minute."
    chars_per_day: Annotated[int, Meta(ge=1, le=1_000_000_000)] | None = None
    scopes: tuple[Scope, ...] = LEAST
    expires: Annotated[datetime, Meta(tz=True)] | None = None
    "From when on it is refused; None: never."


class ApiKeys:
    """The keys in a file. Safe to share between threads; other processes may write the file.

    Raises `ConfigError` where the file cannot be read or is no list of keys.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._stamp: tuple[int, int, int] | None = None
        self._keys: dict[str, ApiKey] = {}

    def all(self) -> tuple[ApiKey, ...]:
        """Every key, the oldest first."""
        self._read()
        return tuple(self._keys.values())

    def find(self, key: str) -> ApiKey | None:
        """The key that this is, expired or not; or None."""
        self._read()
        matched = _KEY.fullmatch(key)
        known = self._keys.get(matched["id"]) if matched else None
        # Compared either way, so that an id which exists answers no later than one which does not.
        same = hmac.compare_digest(_hashed(key), known.sha256 if known else _hashed(""))
        return known if same and known else None

    def get(self, id: str) -> ApiKey | None:
        """The key of this id, for whoever has proved before that they hold it."""
        self._read()
        return self._keys.get(id)

    def new(
        self,
        name: str,
        *,
        tenant: str = "",
        rpm: int | None = None,
        chars_per_day: int | None = None,
        scopes: Sequence[str] = LEAST,
        expires: datetime | None = None,
    ) -> tuple[ApiKey, str]:
        """Draw a key and keep its hash. Returns what is known of it, and the key, which is nowhere else.

        Without a tenant it is one of its own, by its name: two keys share their jobs only where that is said.
        Raises `BadRequest` for a name, tenant, quota, scope or end that will not do.
        """
        wanted = {
            "id": "00000000",
            "name": name,
            "sha256": "0" * 64,
            "created": _stamp(datetime.now(UTC)),
            "tenant": tenant or name,
            "rpm": rpm,
            "chars_per_day": chars_per_day,
            "scopes": [scope for scope in SCOPES if scope in scopes] if {*scopes} <= {*SCOPES} else scopes,
            "expires": None if expires is None else expires.astimezone(UTC),
        }
        try:
            made = msgspec.convert(wanted, ApiKey)
        except msgspec.ValidationError as error:
            raise BadRequest(f"the key cannot be made: {error}") from None
        refuse_unprintable("the key's name", made.name)
        refuse_unprintable("the key's tenant", made.tenant)
        if has_expired(made):
            raise BadRequest("the key would have expired already: give an --expires that is still to come")
        with self._locked():
            self._read()
            if len(self._keys) >= MAX_KEYS:
                raise BadRequest(f"there are {MAX_KEYS:,} keys already: revoke some")
            id = secrets.token_hex(4)
            while id in self._keys:
                id = secrets.token_hex(4)
            key = f"vb_{id}_{secrets.token_urlsafe(32)}"
            made = msgspec.structs.replace(made, id=id, sha256=_hashed(key))
            self._write([*self._keys.values(), made])
        return made, key

    def revoke(self, id: str) -> ApiKey:
        """Forget a key. Raises `BadRequest` for an id that is not there."""
        with self._locked():
            self._read()
            gone = self._keys.get(id)
            if gone is None:
                raise BadRequest(f"no key has the id {id[:40]!r}: `vc keys api list` shows them")
            self._write([key for key in self._keys.values() if key.id != id])
        return gone

    def _read(self) -> None:
        try:
            stat = self._path.stat()
            stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if stamp == self._stamp:
                return
            if stat.st_size > MAX_FILE_BYTES:
                raise ConfigError(
                    f"{self._path}: larger than {MAX_FILE_BYTES:,} bytes, this is no file of keys"
                )
            keys = msgspec.json.decode(self._path.read_bytes(), type=list[ApiKey])
        except FileNotFoundError:
            self._stamp, self._keys = None, {}
            return
        except OSError as error:
            raise ConfigError(f"{self._path}: cannot be read: {error.strerror}") from None
        except msgspec.DecodeError as error:
            raise ConfigError(f"{self._path}: is no file of keys: {error}") from None
        self._keys = {key.id: key for key in keys}
        self._stamp = stamp

    def _write(self, keys: list[ApiKey]) -> None:
        data = msgspec.json.format(msgspec.json.encode(keys), indent=2) + b"\n"
        try:
            write_bytes(self._path, data)
        except OSError as error:
            raise ConfigError(f"{self._path}: cannot be written: {error.strerror}") from None
        self._stamp = None

    @contextmanager
    def _locked(self) -> Generator[None]:
        """Alone with the file: it is replaced as a whole, and two who add would lose one of the two."""
        try:
            private_folder(self._path.parent)
            descriptor = os.open(self._path.parent, os.O_RDONLY)
        except OSError as error:
            raise ConfigError(f"{self._path.parent}: cannot be used: {error.strerror}") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def has_expired(key: ApiKey) -> bool:
    """Whether it is refused by now."""
    return key.expires is not None and datetime.now(UTC) >= key.expires


def _stamp(at: datetime) -> str:
    return at.isoformat(timespec="seconds").replace("+00:00", "Z")


def _hashed(key: str) -> str:
    return hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()
