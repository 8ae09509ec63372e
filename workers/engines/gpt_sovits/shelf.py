"""Where references stand so that the server can read them.

api_v2 takes a reference as a path on its own disk. Either that is a folder that this machine writes to, or
the file is uploaded. A file's name is its content's hash, so placing it twice does no harm, and two workers
that place the same one agree.
"""

from __future__ import annotations

from pathlib import Path

from ....common.atomic import write_bytes
from ....common.errors import ConfigError, EngineError
from .reference import Voice
from .server import Server
from .settings import Settings


class Shelf:
    """The references of one server. `placed` counts files written or uploaded."""

    def __init__(self, settings: Settings, server: Server) -> None:
        self._folder = settings.reference_dir
        self._there = settings.server_reference_dir
        self._server = server
        self._uploaded: set[str] = set()
        self.placed = 0

    def open(self) -> None:
        """Make the folder. Raises `ConfigError` where that cannot be."""
        if self._folder is None:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"gpt-sovits: reference_dir {self._folder} cannot be made: {error.strerror or error}"
            ) from error

    def path(self, voice: Voice) -> str:
        """The voice's file as the server sees it."""
        cut = "\\" if "\\" in self._there and "/" not in self._there else "/"
        return f"{self._there.rstrip('/' + chr(92))}{cut}{voice.file_name}"

    def place_here(self, voice: Voice, *, again: bool = False) -> None:
        """Write the file if it belongs into a folder of this machine and is not there.

        Raises `EngineError` where the disk refuses.
        """
        if self._folder is None:
            return
        file = self._folder / voice.file_name
        if not again and _is_there(file, len(voice.wav)):
            return
        try:
            write_bytes(file, voice.wav)
        except OSError as error:
            raise EngineError(
                f"the reference cannot be written into {self._folder}: {error.strerror or error}"
            ) from error
        self.placed += 1

    async def place(self, voice: Voice, *, again: bool = False) -> None:
        """See that the file is where it belongs, a folder or beyond the upload.

        Raises `EngineError`, and `ServerAwayError` where the upload is answered by nobody.
        """
        self.place_here(voice, again=again)
        if self._folder is None and (again or voice.file_name not in self._uploaded):
            await self._server.upload(voice.file_name, voice.wav)
            self._uploaded.add(voice.file_name)
            self.placed += 1


def _is_there(file: Path, size: int) -> bool:
    try:
        return file.stat().st_size == size
    except OSError:
        return False
