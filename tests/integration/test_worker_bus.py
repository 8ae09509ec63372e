"""Worker, broker and client together, all real: what one loses, the others make good."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from voicebus.client import Client
from voicebus.common.errors import PoisonJob, UnknownVoice

PATIENCE_S = 30.0
Start = Callable[..., subprocess.Popen[str]]


class Bus:
    """A broker process, its addresses, and workers to be started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[subprocess.Popen[str]] = []
        self.environment = os.environ | {
            "VOICEBUS_LOGGING__FILE": "null",
            "VOICEBUS_LOGGING__LEVEL": "WARNING",
            "VOICEBUS_VOICES__CACHE_DIR": str(folder / "cache"),
            "VOICEBUS_BROKER__HEARTBEAT_INTERVAL_S": "0.2",
            "VOICEBUS_BROKER__NO_WORKER_GRACE_S": "60",
            "VOICEBUS_WORKERS__TONE__HEARTBEAT_INTERVAL_S": "0.2",
        }
        ready = self.start("broker", "--frontend", "tcp://127.0.0.1:*", "--backend", "tcp://127.0.0.1:*")
        match = re.search(r"frontend=(\S+) backend=(\S+)", ready)
        assert match, ready
        self.frontend, self.backend = match.groups()

    def start(self, part: str, *arguments: str) -> str:
        """Start a process and return its ready line."""
        process = subprocess.Popen(
            [sys.executable, "-m", f"voicebus.{part}.cli", *arguments],
            cwd=self.folder, env=self.environment, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.processes.append(process)
        assert process.stdout is not None
        return process.stdout.readline()

    def worker(self, name: str, *settings: str) -> subprocess.Popen[str]:
        ready = self.start("workers", "tone", "--broker", self.backend, "--id", name, *settings)
        assert ready == f"vc-worker ready engine=tone id={name}\n"
        return self.processes[-1]

    def close(self) -> None:
        for process in reversed(self.processes):
            process.send_signal(signal.SIGTERM)
        for process in reversed(self.processes):
            try:
                process.wait(PATIENCE_S)
            finally:
                process.kill()
            assert process.stdout is not None
            process.stdout.close()


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[Bus]:
    bus = Bus(tmp_path)
    yield bus
    bus.close()


def test_the_same_words_sound_the_same_whoever_speaks_them(bus: Bus) -> None:
    bus.worker("a")
    bus.worker("b", "--slots", "2")
    with Client(bus.frontend) as client:
        lines = [f"Line {number}." for number in range(30)]
        spoken = [result.speech for result in client.map(lines + lines, engine="tone", voice="amber")]
        whole = [speech.samples for speech in spoken if speech is not None]
        assert len(whole) == 60
        for first, second in zip(whole[:30], whole[30:], strict=True):
            assert np.array_equal(first, second)
        other = client.say("Line 0.", engine="tone", voice="basil")
        assert not np.array_equal(other.samples, whole[0])
        with pytest.raises(UnknownVoice, match="nobody"):
            client.say("Hello.", engine="tone", voice="nobody")


def test_a_killed_worker_loses_no_line_and_doubles_none(bus: Bus) -> None:
    settings = ("--set", "realtime_factor=0.1")
    bus.worker("a", *settings)
    victim = bus.worker("b", *settings)
    with Client(bus.frontend) as client:
        indices: list[int] = []
        for result in client.map([f"Line number {number}." for number in range(60)], engine="tone"):
            assert result.error is None
            indices.append(result.index)
            if len(indices) == 15:
                victim.kill()
                bus.worker("b", *settings)
        assert indices == list(range(60))


def test_a_poisonous_text_is_given_up_and_the_workers_live_on(bus: Bus) -> None:
    bus.worker("a", "--set", "crash_on=poison")
    bus.worker("b", "--set", "crash_on=poison")
    with Client(bus.frontend) as client:
        with pytest.raises(PoisonJob, match="exit code 86"):
            client.say("poison", engine="tone")
        assert client.say("water", engine="tone").samples.any()


def test_a_worker_follows_its_broker_through_a_restart(bus: Bus) -> None:
    bus.worker("a")
    broker = bus.processes[0]
    broker.send_signal(signal.SIGKILL)
    broker.wait(PATIENCE_S)
    bus.start("broker", "--frontend", bus.frontend, "--backend", bus.backend)
    with Client(bus.frontend) as client:
        assert client.say("Hello again.", engine="tone").worker == "a"
