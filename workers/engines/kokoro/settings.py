"""The settings of the kokoro engine, checked before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ....common.errors import ConfigError
from ..threads import default_threads

MAX_THREADS = 64


@dataclass(frozen=True, slots=True)
class Settings:
    """`threads` of the network; `model_dir` in place of the folder that `vc models pull kokoro` fills."""

    threads: int
    model_dir: Path | None

    @classmethod
    def read(cls, settings: Mapping[str, Any]) -> Settings:
        """Check raw settings. Raises `ConfigError` for one that is unknown or out of range."""
        unknown = sorted(set(settings) - {"threads", "model_dir", "device"})
        if unknown:
            raise ConfigError(f"kokoro has no setting {unknown[0]!r}; it knows threads, model_dir and device")
        device = str(settings.get("device", "cpu"))
        if device != "cpu":
            raise ConfigError(f"kokoro runs on the CPU alone; set device to cpu, not {device!r}")
        raw = settings.get("threads")
        try:
            threads = default_threads() if raw in (None, "", "auto") else int(str(raw))
        except ValueError:
            threads = 0
        if not 1 <= threads <= MAX_THREADS:
            raise ConfigError(f"kokoro: threads must be a number from 1 to {MAX_THREADS}, not {raw!r}")
        folder = settings.get("model_dir")
        return cls(threads, Path(str(folder)).expanduser() if folder else None)
