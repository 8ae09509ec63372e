"""Speech to files: whole or not at all, in the format the suffix names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..common.errors import BadRequest

if TYPE_CHECKING:
    from .speech import Speech


def format_of(path: str | os.PathLike[str]) -> str:
    """The audio format a file name asks for. Raises `BadRequest` where there is none of that name."""
    from ..common.audio import FORMATS

    suffix = Path(path).suffix.lower().lstrip(".")
    if suffix not in FORMATS:
        known = ", ".join(sorted(f".{name}" for name in FORMATS))
        raise BadRequest(f"{os.fspath(path)!r} does not end in an audio format: use one of {known}")
    return suffix


def save(speech: Speech, path: str | os.PathLike[str]) -> None:
    """Encode and write. Raises `BadRequest` for a format or folder that will not do."""
    from ..common.atomic import write_bytes
    from ..common.audio import encode

    data = encode(speech.samples, speech.sample_rate_hz, format_of(path))
    try:
        write_bytes(path, data)
    except OSError as error:
        raise BadRequest(f"{os.fspath(path)!r} cannot be written: {error.strerror or error}") from None
