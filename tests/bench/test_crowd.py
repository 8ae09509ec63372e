"""The connections of the scale benchmark: so many jobs were asked for, so many are passed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from bench import crowd
from bench.crowd import Clients
from voicebus.common import wire


class AtOnce:
    """A bus that has answered before anybody looks."""

    def __init__(self, *_: object) -> None:
        self.answers: list[list[bytes]] = []

    def connect(self, index: int) -> None:
        """There is nothing to connect to."""

    def close(self) -> None:
        """Nor to close."""

    def send(self, index: int, envelope: bytes, *frames: Any) -> None:
        if envelope[3] == wire.SUBMIT:
            self.answers.append([wire.pack_envelope(wire.DONE, envelope[4:20])])

    def received(self, index: int) -> Iterator[list[bytes]]:
        answers, self.answers = self.answers, []
        return iter(answers)

    def woken(self, timeout_s: float) -> list[int]:
        return [0]


def test_all_jobs_pass_however_fast_they_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flow ended with the first moment without an open job: a job seemed to cost 0.2 to 40 µs."""
    monkeypatch.setattr(crowd, "Peers", AtOnce)
    with Clients("", 1, lambda: None) as clients:
        clients.flow(100, 8)
        assert (clients.submitted, clients.open) == (100, 0)
