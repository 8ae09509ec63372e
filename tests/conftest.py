"""Settings for all property tests: how long an example takes says nothing on a machine with other work."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("voicebus", deadline=None)
settings.load_profile("voicebus")
