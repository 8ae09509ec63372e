"""What the host of an engine can be told, whichever engine it is: the keys it takes out of the settings.

They come the same way as an engine's own, by `--set key=value` or `workers.NAME.settings`, and are taken out
before the engine sees the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from ..common.errors import ConfigError
from .verify import VerifySettings


class HostSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """One engine process's host."""

    self_check: bool = True
    "Look at each segment's sound, and speak a faulty one again where nobody has heard it."
    batch_wait_s: Annotated[float, Meta(ge=0, le=1)] = 0.01
    "How long a batch waits for jobs that are on their way."
    max_voices: Annotated[int, Meta(ge=1, le=100_000)] = 32
    "Voices kept in the memory of each engine."
    memory_limit_mb: Annotated[int, Meta(ge=64)] | None = None
    "MiB of memory of its own that an engine process may have: past it, it runs out of memory."
    idle_unload_s: Annotated[float, Meta(gt=0, le=31_536_000)] | None = None
    "How long an engine with nothing to do stays loaded; None keeps it."
    verify: dict[str, Any] = {}
    "The settings of the check by transcription, as they were given."

    def raw(self) -> dict[str, Any]:
        """What `read` takes, to be sent to the engine process."""
        own = {name: getattr(self, name) for name in self.__struct_fields__ if name != "verify"}
        return own | self.verify

    @classmethod
    def read(cls, settings: Mapping[str, Any]) -> tuple[HostSettings, dict[str, Any]]:
        """Take the host's keys out of raw settings; return them, and the rest for the engine.

        Raises `ConfigError` for a value out of range.
        """
        _, rest = VerifySettings.read(settings)
        verify = {name: value for name, value in settings.items() if name not in rest}
        known = {name: rest.pop(name) for name in cls.__struct_fields__ if name in rest}
        try:
            return msgspec.convert({**known, "verify": verify}, cls), rest
        except msgspec.ValidationError as error:
            raise ConfigError(f"--set {str(error).replace(' - at `$.', ': `')}") from None
