"""Voice states: learnt once per recording, kept in memory while there is room, and on disk for good.

Learning a voice can take a minute, so its result is keyed by what it depends on: the recording's SHA-256,
the engine and the engine's version. The files are plain npz without pickles, written whole or not at all; one
that cannot be read is made again. A lock lets two processes that meet the same new voice learn it once.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Generic, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from ..common.atomic import replacing
from ..common.errors import BusError, UnknownVoice
from .attempt import Described
from .engine import Engine, Reference, StateT

log = logging.getLogger(__name__)

NO_VOICE: Final = "0" * 64
"""The hash of no recording: the engine's own voice."""
LOCK_POLL_S: Final = 0.05
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]+")


class _ReplacedError(UnknownVoice):
    """The recording is not the one that was looked up."""


class Catalogue(Protocol):
    """The voices that exist."""

    def describe(self, voice: str) -> Described:
        """Return a voice's hash and language; raise `UnknownVoice`."""
        ...

    def reference(self, voice: str) -> Reference:
        """Read a voice's recording."""
        ...


class VoiceCache(Generic[StateT]):
    """The states of one engine. `folder` None keeps nothing on disk.

    `learning` is called before a voice is learnt or waited for, `changed` when one has come to memory.
    """

    def __init__(
        self,
        engine: Engine[StateT],
        catalogue: Catalogue,
        default_voice: str,
        folder: Path | None,
        *,
        max_voices: int = 32,
        learning: Callable[[], None] = lambda: None,
        changed: Callable[[list[str]], None] = lambda _: None,
    ) -> None:
        self._engine = engine
        self._catalogue = catalogue
        self._default_voice = default_voice
        self._folder = None if folder is None else folder / "voice-states" / _safe(engine.name)
        self._max_voices = max_voices
        self._learning = learning
        self._changed = changed
        self._states: OrderedDict[str, tuple[str, StateT]] = OrderedDict()

    @property
    def warm_voices(self) -> list[str]:
        """The voices in memory, the most recently used last."""
        return [voice for voice, _ in self._states.values() if voice]

    def describe(self, voice: str) -> Described:
        """Look a voice up; "" means the default one, or the engine's own where that is enough."""
        if voice or self._engine.needs_voice:
            return self._catalogue.describe(voice or self._default_voice)
        try:
            return self._catalogue.describe(self._default_voice)
        except UnknownVoice:
            return Described("", NO_VOICE, self._engine.languages[0])

    def state(self, described: Described, check: Callable[[], None]) -> StateT:
        """Return the state from memory, from disk, or learn it; `check` is called while another learns it."""
        known = self._states.get(described.sha256)
        if known is not None:
            self._states.move_to_end(described.sha256)
            return known[1]
        try:
            state = self._from_disk_or_learnt(described, check)
        except _ReplacedError:
            # Its owner put another recording in its place between the two looks; the new one is meant.
            described = self._catalogue.describe(described.voice)
            state = self._from_disk_or_learnt(described, check)
        self._states[described.sha256] = (described.voice, state)
        while len(self._states) > self._max_voices:
            self._states.popitem(last=False)
        self._changed(self.warm_voices)
        return state

    def _from_disk_or_learnt(self, described: Described, check: Callable[[], None]) -> StateT:
        path = self._path(described.sha256)
        state = None if path is None else self._read(path)
        if state is not None:
            return state
        self._learning()
        if path is None:
            return self._learn(described)
        with _locked(path.with_suffix(".lock"), check):
            state = self._read(path)  # whoever held the lock may have written it
            if state is None:
                state = self._learn(described)
                self._write(path, state)
        return state

    def _learn(self, described: Described) -> StateT:
        if described.sha256 == NO_VOICE:
            silence = np.zeros(0, np.float32)
            return self._engine.voice(Reference("", silence, self._engine.sample_rate, NO_VOICE))
        reference = self._catalogue.reference(described.voice)
        if reference.sha256 != described.sha256:
            raise _ReplacedError(f"voice {described.voice!r} was replaced while it was read: try again")
        began = time.monotonic()
        state = self._engine.voice(reference)
        log.info("learnt voice %s in %.1f s", described.voice, time.monotonic() - began)
        return state

    def _path(self, sha256: str) -> Path | None:
        if self._folder is None or sha256 == NO_VOICE:
            return None
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            log.warning("voice states are not kept: %s", error)
            self._folder = None
            return None
        return self._folder / f"{_safe(sha256)}-{_safe(self._engine.version)}.npz"

    def _read(self, path: Path) -> StateT | None:
        if not path.is_file():
            return None
        try:
            with np.load(path, allow_pickle=False) as file:
                # We pack nothing: what is larger inside than outside is not ours, and may be without end.
                if sum(member.file_size for member in file.zip.infolist()) > path.stat().st_size:
                    raise ValueError("its members are packed")
                arrays = {name: cast("NDArray[Any]", file[name]) for name in file.files}
            return self._engine.unpack(arrays)
        except BusError:
            raise
        except Exception as error:  # a damaged file can fail anywhere in numpy, zipfile or the engine
            log.warning("the voice state %s is made again: %s: %s", path.name, type(error).__name__, error)
            with suppress(OSError):
                path.unlink()
            return None

    def _write(self, path: Path, state: StateT) -> None:
        arrays = self._engine.pack(state)
        if arrays is None:
            return
        try:
            with replacing(path) as file:
                np.savez(file, allow_pickle=False, **dict(arrays))
        except OSError as error:
            log.warning("the voice state %s is not kept: %s", path.name, error)


@contextmanager
def _locked(path: Path, check: Callable[[], None]) -> Generator[None]:
    """Hold a lock that dies with its process; go on without one where the file system has none."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                check()
                time.sleep(LOCK_POLL_S)
            except OSError as error:
                log.warning("voice states are not locked: %s", error)
                break
        yield
    finally:
        os.close(descriptor)


def _safe(name: str) -> str:
    return _UNSAFE.sub("_", name)
