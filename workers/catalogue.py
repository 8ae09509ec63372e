"""The voice store as an engine sees it: what a voice is, looked up often, and its recording, read once."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from ..common.voices import VoiceStore
from .engine import Reference
from .speaking import Described

FRESH_S: Final = 2.0
"""How long a look-up holds: a voice that is replaced is heard of this much later, at most."""
MAX_LOOKUPS: Final = 1024


class StoreCatalogue:
    """Voices of a store at a folder or fsspec URL. Raises `UnknownVoice` for those it lacks."""

    def __init__(self, path: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = VoiceStore(path)
        self._clock = clock
        self._lookups: dict[str, tuple[float, Described]] = {}

    def describe(self, voice: str) -> Described:
        """Return a voice's hash and language."""
        now = self._clock()
        known = self._lookups.get(voice)
        if known is not None and now < known[0]:
            return known[1]
        found = self._store.get(voice)
        described = Described(voice, found.sha256, found.language)
        if len(self._lookups) >= MAX_LOOKUPS:
            self._lookups.clear()
        self._lookups[voice] = (now + FRESH_S, described)
        return described

    def reference(self, voice: str) -> Reference:
        """Read a voice's recording."""
        raise NotImplementedError
