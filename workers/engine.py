"""What an engine is: the one small class an author writes to put a new synthesiser on the bus.

The engine runs alone in a child process, so it may block, hold the GIL or crash. It is called from
one thread. Everything around it (sockets, heartbeats, retries, chunking, caching of voices) belongs to
the agent and the engine host. An engine is found through the entry point group `voicebus.engines`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]
Arrays = Mapping[str, NDArray[Any]]
StateT = TypeVar("StateT")


@dataclass(frozen=True, slots=True)
class Reference:
    """The recording a voice is cloned from: mono float32 in [-1, 1]."""

    voice: str
    samples: Samples
    sample_rate: int
    sha256: str
    language: str = "en"
    text: str | None = None
    "What is said in the recording, where the voice's owner gave it."


@dataclass(frozen=True, slots=True)
class Request:
    """One segment to speak."""

    text: str
    language: str
    speed: float = 1.0
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    "Engine-specific options; an engine refuses those it does not know with `BadRequest`."


class Engine(ABC, Generic[StateT]):
    """Base class of all engines; `StateT` is whatever the engine keeps of a voice."""

    name: ClassVar[str]
    version: ClassVar[str]
    "Changes whenever a cached voice state of an older version must not be used again."
    sample_rate: int
    "Hz of what `speak` yields; fixed once `load` has returned."
    needs_voice: ClassVar[bool] = True
    """False for an engine that can speak in a voice of its own: where no voice is asked for and the default
    one is not in the store, `voice` then gets a reference without samples whose hash is all zeros."""
    languages: tuple[str, ...]
    "Languages as BCP 47 tags in lower case: en-us, fr, zh-cn. A bare tag ('en') matches its variants."

    @abstractmethod
    def load(self, settings: Mapping[str, Any]) -> None:
        """Load the model. `settings` are the worker's `--set` values and its section of config.yaml.

        Besides an engine's own settings they may hold `device` ('auto', 'cpu', 'cuda:0', …) and `threads`
        (how many the host has allowed to numeric libraries): both are there only when somebody set them.
        Raises `ModelMissing` where files are absent and `ConfigError` for a setting that is unknown or
        out of range. Ends warmed up: the first job is as fast as the second.
        """

    @abstractmethod
    def voice(self, reference: Reference) -> StateT:
        """Learn a voice. Called once per voice and cached by the reference's SHA-256.

        Raises `BadRequest` for a reference this engine cannot use.
        """

    @abstractmethod
    def speak(self, request: Request, voice: StateT) -> Iterator[Samples]:
        """Yield float32 mono audio of one segment, in order, as early as each part is ready."""

    def max_chars(self, language: str) -> int:
        """Most characters of one segment in this language."""
        return 400

    def segments(self, text: str, language: str) -> list[str]:
        """Cut a job's text into the segments that are spoken one by one.

        Must depend on its arguments alone: another worker resumes a lost job at a segment's number. The
        host refuses with `TextTooLong` a segment above `max_chars`.
        """
        return [text]

    def pack(self, voice: StateT) -> Arrays | None:
        """Return the arrays `unpack` rebuilds a voice state from; None when it is not worth a file."""
        return None

    def unpack(self, arrays: Arrays) -> StateT:
        """Rebuild what `pack` took apart."""
        raise KeyError("this engine keeps no voice states on disk")

    def close(self) -> None:
        """Let go of the model. Called once, before the process ends in good order."""
