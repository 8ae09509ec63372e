"""An engine that does what a test tells it, a catalogue of voices, and a link that records."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, ClassVar

import numpy as np

from tests.workers.model import Message, read
from voicebus.common.errors import Cancelled, UnknownVoice
from voicebus.workers.attempt import Described
from voicebus.workers.engine import Engine, Reference, Request, Samples


class FakeEngine(Engine[str]):
    name: ClassVar[str] = "fake"
    version: ClassVar[str] = "1.0"
    speech: ClassVar[bool] = False

    def __init__(self) -> None:
        self.sample_rate = 16_000
        self.languages = ("en-us", "fr")
        self.learnt: list[str] = []
        self.spoken: list[Request] = []
        self.audio: Callable[[Request], Iterator[Samples]] = lambda request: iter([np.zeros(100, np.float32)])
        self.packs = True

    def load(self, settings: Mapping[str, Any]) -> None:
        pass

    def voice(self, reference: Reference) -> str:
        self.learnt.append(reference.voice)
        return f"state of {reference.voice} {reference.sha256[:4]}"

    def speak(self, request: Request, voice: str) -> Iterator[Samples]:
        self.spoken.append(request)
        return self.audio(request)

    def max_chars(self, language: str) -> int:
        return 20

    def segments(self, text: str, language: str) -> list[str]:
        return [part for part in text.split("|") if part.strip(" .")]

    def pack(self, voice: str) -> Mapping[str, np.ndarray[Any, Any]] | None:
        return {"state": np.frombuffer(voice.encode(), np.uint8)} if self.packs else None

    def unpack(self, arrays: Mapping[str, np.ndarray[Any, Any]]) -> str:
        return arrays["state"].tobytes().decode()


class FakeCatalogue:
    def __init__(self, **hashes: str) -> None:
        self.hashes = {voice: sha256 * 32 for voice, sha256 in hashes.items()}
        self.replaced: dict[str, str] = {}
        self.reads = 0

    def describe(self, voice: str) -> Described:
        if voice not in self.hashes:
            raise UnknownVoice(f"no voice {voice!r}")
        return Described(voice, self.hashes[voice], "en-us")

    def reference(self, voice: str) -> Reference:
        self.reads += 1
        self.hashes |= self.replaced
        return Reference(voice, np.zeros(10, np.float32), 16_000, self.hashes[voice])


class FakeLink:
    """Records what is sent; `cancel_after` so many messages, every check raises."""

    def __init__(self, cancel_after: int | None = None) -> None:
        self.frames: list[list[Any]] = []
        self.cancel_after = cancel_after
        self.looks = 0
        "How often it was asked who is to stop."

    def send(self, *messages: list[Any]) -> None:
        self.frames += messages

    def check(self, key: bytes) -> None:
        assert len(key) == 18
        if self.cancel_after is not None and len(self.frames) >= self.cancel_after:
            raise Cancelled("the job was cancelled")

    def stopped(self, keys: Collection[bytes]) -> set[bytes]:
        self.looks += 1
        found: set[bytes] = set()
        for key in keys:
            try:
                self.check(key)
            except Cancelled:
                found.add(key)
        return found

    @property
    def messages(self) -> list[Message]:
        return [read(frames) for frames in self.frames]
