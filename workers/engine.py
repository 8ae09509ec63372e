"""What an engine is: the one small class an author writes to put a new synthesiser on the bus.

The engine runs alone in a child process, so it may block, hold the GIL or crash. It is called from
one thread. Everything around it (sockets, heartbeats, retries, chunking, caching of voices) belongs to
the agent and the engine host. An engine is found through the entry point group `voicebus.engines`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..common.errors import ConfigError
from ..common.text import split

Samples = NDArray[np.float32]
Arrays = Mapping[str, NDArray[Any]]
StateT = TypeVar("StateT")
Part = tuple[int, Samples | None]
"""A row's place and more of its audio, which may be empty; None when the row has ended."""


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
    streamed: bool = False
    "Somebody listens while it is made: early parts are worth some work. Else only the whole matters."
    take: int = 0
    """Counts from 0. A second take follows one that the host found faulty: an engine that draws random
    numbers draws others, one that does not says the same again."""


@dataclass(slots=True, eq=False)
class Row(Generic[StateT]):
    """One of the segments that are spoken together."""

    request: Request
    voice: StateT
    stopped: bool = False
    "Set by the host meanwhile: nobody wants the rest, and the engine may let go of it at once."


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
    learns: ClassVar[bool] = True
    "Whether `voice` takes time, so that a job had better go where its voice is known."
    languages: tuple[str, ...]
    "Languages as BCP 47 tags in lower case: en-us, fr, zh-cn. A bare tag ('en') matches its variants."
    batch: int = 1
    "Most segments, of as many jobs, that `speak_batch` takes at once; fixed once `load` has returned."
    speech: ClassVar[bool] = True
    "Whether what it yields is speech, which the host can check: its length, silence, clipping, repetition."

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

    def speak_batch(self, rows: Sequence[Row[StateT]]) -> Iterator[Part]:
        """Speak several segments together; called instead of `speak` where `batch` is above 1.

        Yields the parts of all rows as they come, each row's in order, and (place, None) where one ends; an
        empty part says that time passes, so that the host may look who still wants what. Running out
        of memory is raised as it comes: the host goes on with half as many rows.
        """
        raise NotImplementedError("an engine with batch > 1 speaks batches")

    def check(self, request: Request) -> None:
        """Raise `BadRequest` for options or a speed this engine does not take, before anything is spoken."""

    def stock_voice(self, name: str = "") -> StateT:
        """A voice of the engine's own, "" for its usual one, for engines that speak through this one.

        Raises `ConfigError` where there is none of this name.
        """
        raise ConfigError(f"engine {self.name} has no voices of its own")

    def figures(self) -> Mapping[str, int | float]:
        """Counters and gauges for `vc status`, summed over a worker's engines: memory on a device, say."""
        return {}

    def max_chars(self, language: str) -> int:
        """Most characters of one segment in this language."""
        return 400

    def segments(self, text: str, language: str) -> list[str]:
        """Cut a job's text into the segments that are spoken one by one; here: sentences within `max_chars`.

        Must depend on its arguments alone: another worker resumes a lost job at a segment's number. The
        host refuses with `TextTooLong` a segment above `max_chars`.
        """
        pieces = split(text, language=language, max_chars=self.max_chars(language))
        return [piece.spoken for piece in pieces if any(map(str.isalnum, piece.spoken))]

    def pack(self, voice: StateT) -> Arrays | None:
        """Return the arrays `unpack` rebuilds a voice state from; None when it is not worth a file."""
        return None

    def unpack(self, arrays: Arrays) -> StateT:
        """Rebuild what `pack` took apart."""
        raise KeyError("this engine keeps no voice states on disk")

    def close(self) -> None:
        """Let go of the model. Called once, before the process ends in good order."""


_NO_MEMORY: Final = ("allocate memory", "out of memory", "STATUS_ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an engine ran out of memory: Python's, or PyTorch's, which on a CPU and inside CUDA's libraries
    is a bare `RuntimeError`."""
    names: set[Any] = {cls.__name__ for cls in type(error).__mro__}  # torch is not imported here
    return not names.isdisjoint(("MemoryError", "OutOfMemoryError")) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)
    )
