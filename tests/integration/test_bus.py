"""The whole bus on real processes over TCP, with things killed: every line is spoken once, as itself."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pytest

from voicebus.client import Client, Speech
from voicebus.client.launch import Bus
from voicebus.common.audio import to_s16
from voicebus.common.voices import VoiceStore
from voicebus.workers.engine import Reference, Request
from voicebus.workers.engines.tone import ToneEngine

if TYPE_CHECKING:
    from voicebus.common.audio import Pcm

PACE = {"seconds_per_char": 0.01, "realtime_factor": 0.2}
LINES = [f"Line {number} of {number * 7919 % 1000}." for number in range(200)]


@pytest.fixture(scope="module")
def spoken() -> Callable[[str], Pcm]:
    """What the engine itself makes of a line: the yardstick for what came over the bus."""
    engine = ToneEngine()
    engine.load(PACE | {"realtime_factor": 0})
    recording = VoiceStore().reference("amber")
    voice = engine.voice(Reference("amber", recording.samples, recording.rate_hz, recording.sha256))

    def speak(text: str) -> Pcm:
        return np.concatenate([to_s16(part) for part in engine.speak(Request(text, "en"), voice)])

    return speak


def same(speech: Speech | None, engine: Pcm) -> bool:
    return speech is not None and np.array_equal(speech.samples, engine)


def test_two_hundred_lines_and_a_worker_killed_in_the_middle(spoken: Callable[[str], Pcm]) -> None:
    with Bus(engines={"tone": 2}, settings=PACE) as bus, Client(bus.frontend) as client:
        seen: list[int] = []
        for result in client.map(LINES, voice="amber", engine="tone"):
            assert result.error is None
            seen.append(result.index)
            if result.index == 60:
                bus.kill_worker(0)
            if result.index == 90:
                bus.start_worker("tone", name="tone-0", wait=False)
            if result.index % 20 == 0:
                assert same(result.speech, spoken(LINES[result.index]))
        status = client.status()
    assert seen == list(range(200))
    assert status["totals"]["done"] == 200
    assert status["totals"]["retried"] >= 1, "the test must hit a running job, or it shows nothing"
    assert status["totals"]["failed"] == 0


def test_a_broker_killed_and_started_again_costs_no_line(spoken: Callable[[str], Pcm]) -> None:
    """Workers register again by themselves; the client submits again what was never answered."""
    lines = LINES[:60]
    with Bus(engines={"tone": 2}, settings=PACE) as bus, Client(bus.frontend) as client:
        texts: list[int] = []
        restarter: threading.Thread | None = None
        for result in client.map(lines, voice="amber", engine="tone", deadline_s=60):
            assert result.error is None, result.error
            texts.append(result.index)
            assert same(result.speech, spoken(lines[result.index]))
            if result.index == 10:
                bus.kill_broker()
                restarter = threading.Thread(target=bus.start_broker)
                restarter.start()
        assert restarter is not None
        restarter.join()
    assert texts == list(range(60))


@pytest.mark.parametrize("strategy", ["lru", "round_robin", "least_load", "random"])
def test_every_strategy_uses_every_worker(strategy: str) -> None:
    config = {"broker": {"strategy": strategy}}
    with Bus(engines={"tone": 3}, config=config) as bus, Client(bus.frontend) as client:
        results = list(client.map([f"line {number}" for number in range(120)], engine="tone", voice="basil"))
        status = client.status()
    assert [result.error for result in results] == [None] * 120
    assert status["strategy"] == strategy
    assert {worker["id"] for worker in status["workers"] if worker["jobs_done"]} == {
        "tone-0",
        "tone-1",
        "tone-2",
    }


def test_a_poison_job_is_answered_and_the_others_live() -> None:
    settings = {"seconds_per_char": 0.002, "crash_on": "POISON"}
    lines = ["one", "two POISON", "three", "four"]
    with Bus(engines={"tone": 2}, settings=settings) as bus, Client(bus.frontend) as client:
        results = list(client.map(lines, engine="tone", voice="amber", deadline_s=60))
        codes = [result.error.code if result.error else "done" for result in results]
        assert codes == ["done", "poison_job", "done", "done"]
        assert "exit code 86" in str(results[1].error), "the history says how each engine died"
        amber, basil = (client.say("still here", engine="tone", voice=voice) for voice in ("amber", "basil"))
        assert not np.array_equal(amber.samples, basil.samples)
        assert {worker["state"] for worker in client.status()["workers"]} == {"ready"}


def test_a_wedged_engine_loses_its_job_to_another() -> None:
    config = {"broker": {"progress_lease_s": 2.0}}
    with (
        Bus(engines={"tone": 1}, config=config, settings={"hang_on": "HANG"}) as bus,
        Client(bus.frontend) as client,
    ):
        job = client.submit("HANG on", engine="tone", voice="amber", deadline_s=60)
        bus.start_worker("tone", name="sound", settings={"hang_on": ""})
        speech = job.result(timeout_s=30)
        bus.kill_worker(0)
    assert (speech.worker, speech.attempts) == ("sound", 2)


SCRIPT = """
import time
from voicebus.client.launch import Bus
with Bus() as bus:
    print(bus.broker.pid, *(worker.pid for worker in bus.workers), flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children that their parent has died")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_bus_does_not_outlive_a_script_that_is_killed(number: signal.Signals) -> None:
    """It did: a benchmark that was ended left a broker and workers that took the cores of the next one."""
    script = subprocess.Popen([sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, text=True)
    assert script.stdout is not None
    pids = [int(pid) for pid in script.stdout.readline().split()]
    assert len(pids) == 2
    ends = [os.pidfd_open(pid) for pid in pids]
    script.send_signal(number)
    script.wait(10)
    script.stdout.close()
    try:
        for end in ends:
            assert select.select([end], [], [], 20)[0], "a process of the bus lives on"
    finally:
        for end in ends:
            os.close(end)
