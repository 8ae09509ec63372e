"""The voice store as an engine process sees it: what a voice is, and its recording as engines want it."""

from __future__ import annotations

from ..common.voices import VoiceStore
from .attempt import Described
from .engine import Reference


class StoreCatalogue:
    """The voices of a store. Every method raises `UnknownVoice` for one that is not there."""

    def __init__(self, store: VoiceStore) -> None:
        self._store = store

    def describe(self, voice: str) -> Described:
        """Return a voice's hash and language, as they are now."""
        found = self._store.get(voice)
        return Described(voice, found.sha256, found.language)

    def reference(self, voice: str) -> Reference:
        """Read a voice's recording. Raises `ConfigError` for one that does not match its record."""
        found = self._store.get(voice)
        recording = self._store.reference(voice)
        return Reference(
            voice, recording.samples, recording.rate_hz, recording.sha256, found.language, found.text
        )
