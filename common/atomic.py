"""Files that appear whole or not at all.

Models, voices and speech are read by other processes while they are being written, and a machine may
lose power in between. Every file of ours is therefore written under a temporary name in the same folder,
flushed to the disk and renamed: a reader sees the old file, the new one, or none, and never a part.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

TEMPORARY_SUFFIX = ".tmp"


@contextmanager
def replacing(path: str | os.PathLike[str], *, mode: int = 0o666) -> Generator[BinaryIO]:
    """Open a seekable file that takes the place of `path` when the block ends, and vanishes if it raises.

    `mode` is what the user's umask is applied to. The folder must exist. Raises `OSError` as `open` does;
    whatever stood at `path` is then untouched.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(6)}{TEMPORARY_SUFFIX}")
    try:
        # "x" and not mkstemp: the file gets the permissions that the user's umask asks for.
        with open(temporary, "x+b", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    sync_folder(target.parent)


def write_bytes(path: str | os.PathLike[str], data: bytes, *, mode: int = 0o666) -> None:
    """Write `data` to `path`, whole or not at all."""
    with replacing(path, mode=mode) as file:
        file.write(data)


def private_folder(folder: Path) -> None:
    """Make a folder, and what is missing above it, for this user alone; what is there stays as it is.

    Raises `OSError`.
    """
    for missing in reversed([place for place in (folder, *folder.parents) if not place.exists()]):
        missing.mkdir(mode=0o700, exist_ok=True)  # with `parents`, mkdir gives those the umask's mode


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` last through a power cut; file systems that cannot are left as they are."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def is_temporary(path: Path) -> bool:
    """Tell whether a file was left behind by a write that was cut off."""
    return path.name.startswith(".") and path.name.endswith(TEMPORARY_SUFFIX)
