"""The files behind a voice store: a local folder, or anything fsspec reaches.

A folder is the common case and gets what only a file system can give: atomic renames, a lock between
processes, and a refusal of links that lead out of the store and of whatever else is no file. An object store
has none of these, but writes each object whole; there the voice's record, written last, is what makes a voice
exist. Both are asked in terms of voice ids and two file names, never of paths.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Protocol, cast

from .atomic import sync_folder, write_bytes
from .errors import BadRequest, ConfigError
from .voice_record import ID

RECORD: Final = "voice.yaml"
REFERENCE: Final = "reference.wav"


class VoiceFiles(Protocol):
    """What a store needs of the place where its files lie. All raise `OSError` where the place fails."""

    is_remote: bool

    def ids(self) -> dict[str, str]:
        """Every id that has a record, readable or not, with a token that changes when the record does."""
        ...

    def token(self, id: str) -> str | None:
        """The token of one record, None where there is none."""
        ...

    def read(self, id: str, file: str, max_bytes: int) -> bytes:
        """Up to `max_bytes` + 1 bytes of a file."""
        ...

    def write(self, id: str, file: str, data: bytes) -> None:
        """Write a file, whole or not at all."""
        ...

    def remove(self, id: str) -> None:
        """Remove the voice; its record goes first."""
        ...

    def locked(self) -> Any:
        """A context in which no other process changes the store, as far as the place can promise it."""
        ...


def open_files(url: str | os.PathLike[str]) -> VoiceFiles:
    """Return the files at a folder's path or an fsspec URL such as `memory://voices` or `s3://bucket/voices`.

    Raises `ConfigError` for a URL whose kind is unknown or whose package is not installed.
    """
    place = os.fspath(url)
    if "://" not in place:
        return LocalFiles(Path(place).expanduser())
    if place.startswith("file://"):
        return LocalFiles(Path(place.removeprefix("file://")))
    import fsspec

    try:
        filesystem, root = cast(Any, fsspec).url_to_fs(place)  # the package's own types are incomplete
    except (ImportError, ValueError) as error:
        raise ConfigError(f"the voice store {place!r} cannot be opened: {error}") from None
    return RemoteFiles(filesystem, str(root).rstrip("/"))


class LocalFiles:
    """A folder with one folder a voice."""

    is_remote = False

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()

    @property
    def root(self) -> Path:
        """The store's folder, which may not exist yet."""
        return self._root

    def ids(self) -> dict[str, str]:
        """See `VoiceFiles`."""
        try:
            names = [entry.name for entry in os.scandir(self._root) if ID.match(entry.name)]
        except FileNotFoundError:
            return {}
        tokens = {name: self.token(name) for name in names}
        return {name: token for name, token in tokens.items() if token is not None}

    def token(self, id: str) -> str | None:
        """See `VoiceFiles`."""
        try:
            found = os.stat(self._root / id / RECORD)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            # A link to itself, or a folder of somebody else: a voice that cannot be read, and no reason to
            # read no other. `read` says which.
            return f"error {error.errno}"
        return f"{found.st_mtime_ns}-{found.st_size}-{found.st_ino}"

    def read(self, id: str, file: str, max_bytes: int) -> bytes:
        """See `VoiceFiles`. Raises `BadRequest` for a link out of the store and for what is no file."""
        try:
            with open(self._opened(id, file), "rb") as stream:
                return stream.read(max_bytes + 1)
        except FileNotFoundError:
            raise
        except (OSError, RuntimeError) as error:  # Python 3.11 and 3.12 call a circle of links a RuntimeError
            reason = error.strerror if isinstance(error, OSError) else "it is a link to itself"
            raise BadRequest(
                f"{file} of voice {id!r} cannot be read ({reason or error}): mend or remove the voice"
            ) from None

    def _opened(self, id: str, file: str) -> int:
        """A descriptor of a file, which is none but a regular one inside the store, whoever moves it now.

        Raises `BadRequest`, and `OSError` and `RuntimeError` as the system does.
        """
        root = self._root.resolve()
        path = (self._root / id / file).resolve(strict=True)
        outside = BadRequest(
            f"{file} of voice {id!r} is a link out of the voice store: put the file itself there"
        )
        if not path.is_relative_to(root):
            raise outside
        *folders, name = path.relative_to(root).parts
        opened = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            # Step by step and through no link: one that has been put in the way since is not followed.
            for folder in folders:
                inner = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=opened)
                os.close(opened)
                opened = inner
            # Without waiting: opening a pipe takes until somebody writes to it.
            found = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=opened)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise outside from None
            raise
        finally:
            os.close(opened)
        if not stat.S_ISREG(os.fstat(found).st_mode):
            os.close(found)
            raise BadRequest(f"{file} of voice {id!r} is no file but something else: put a file there")
        return found

    def write(self, id: str, file: str, data: bytes) -> None:
        """See `VoiceFiles`."""
        folder = self._root / id
        if folder.is_symlink():
            raise BadRequest(f"voice {id!r} is a link: remove it or choose another id")
        folder.mkdir(exist_ok=True)
        write_bytes(folder / file, data)

    def remove(self, id: str) -> None:
        """See `VoiceFiles`."""
        folder = self._root / id
        if folder.is_symlink():
            folder.unlink()
            return
        with suppress(FileNotFoundError, IsADirectoryError):
            (folder / RECORD).unlink()
        # Cached states of the voice lie beside it and go with it.
        shutil.rmtree(folder, ignore_errors=True)
        sync_folder(self._root)

    @contextmanager
    def locked(self) -> Generator[None]:
        """See `VoiceFiles`. The kernel frees the lock when its holder dies."""
        self._root.mkdir(parents=True, exist_ok=True)
        # Through no link: it would make a file wherever that leads.
        descriptor = os.open(self._root / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


class RemoteFiles:
    """Objects below one prefix of an fsspec file system."""

    is_remote = True

    def __init__(self, filesystem: Any, root: str) -> None:
        self._fs = filesystem
        self._root = root
        self._lock = threading.Lock()

    def ids(self) -> dict[str, str]:
        """See `VoiceFiles`."""
        self._fs.invalidate_cache()
        try:
            found = self._fs.glob(f"{self._root}/*/{RECORD}", detail=True)
        except FileNotFoundError:
            return {}
        named = {str(path).rsplit("/", 2)[-2]: _token(info) for path, info in found.items()}
        return {name: token for name, token in named.items() if ID.match(name)}

    def token(self, id: str) -> str | None:
        """See `VoiceFiles`."""
        self._fs.invalidate_cache()
        try:
            return _token(self._fs.info(self._path(id, RECORD)))
        except FileNotFoundError:
            return None

    def read(self, id: str, file: str, max_bytes: int) -> bytes:
        """See `VoiceFiles`."""
        return bytes(self._fs.cat_file(self._path(id, file), start=0, end=max_bytes + 1))

    def write(self, id: str, file: str, data: bytes) -> None:
        """See `VoiceFiles`."""
        self._fs.makedirs(f"{self._root}/{id}", exist_ok=True)
        self._fs.pipe_file(self._path(id, file), data)

    def remove(self, id: str) -> None:
        """See `VoiceFiles`."""
        with suppress(FileNotFoundError):
            self._fs.rm_file(self._path(id, RECORD))
        with suppress(FileNotFoundError):
            self._fs.rm(f"{self._root}/{id}", recursive=True)

    @contextmanager
    def locked(self) -> Generator[None]:
        """See `VoiceFiles`. Between machines nothing is locked; the store reads back what it wrote."""
        with self._lock:
            yield

    def _path(self, id: str, file: str) -> str:
        return f"{self._root}/{id}/{file}"


def _token(info: dict[str, Any]) -> str:
    """Whatever the store says of an object's contents: an ETag, a time, a size."""
    keys = (
        "ETag",
        "etag",
        "md5Hash",
        "LastModified",
        "last_modified",
        "mtime",
        "modified",
        "created",
        "size",
    )
    return "-".join(str(info[key]) for key in keys if info.get(key) is not None)
