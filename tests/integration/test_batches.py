"""Engines that speak jobs together, fill their memory, know many voices, and sleep: on real processes."""

from __future__ import annotations

import io
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile as sf

from voicebus.client import Client
from voicebus.client.launch import Bus
from voicebus.common.audio import to_s16
from voicebus.common.voices import VoiceStore
from voicebus.workers.children import rss_bytes
from voicebus.workers.engine import Reference, Request
from voicebus.workers.engines.tone import ToneEngine

if TYPE_CHECKING:
    from voicebus.common.audio import Pcm

PATIENCE_S = 30.0
SPEECH = {"seconds_per_char": 0.01, "realtime_factor": 0.5}


def stats(client: Client, name: str = "tone-0") -> dict[str, Any]:
    worker = next(worker for worker in client.status()["workers"] if worker["id"] == name)
    return worker["stats"]


def until(client: Client, true: Callable[[dict[str, Any]], bool], worker: str = "tone-0") -> dict[str, Any]:
    """The worker's figures as soon as they are so; they come with its beats."""
    deadline = time.monotonic() + PATIENCE_S
    while not true(figures := stats(client, worker)):
        assert time.monotonic() < deadline, figures
        time.sleep(0.05)
    return figures


def engines_of(worker_pid: int) -> list[int]:
    """The processes of the worker's engines."""
    return [int(pid) for pid in Path(f"/proc/{worker_pid}/task/{worker_pid}/children").read_text().split()]


def hum(chance: np.random.Generator) -> bytes:
    """Four seconds of a buzz that comes and goes, as a WAV: voiced enough for the store."""
    times = np.arange(24_000 * 4) / 24_000
    pitch_hz = chance.uniform(90, 250)
    buzz = sum(np.sin(2 * np.pi * pitch_hz * order * times) / order for order in range(1, 12))
    file = io.BytesIO()
    sf.write(file, buzz * (0.1 + 0.09 * np.sin(2 * np.pi * 4 * times)), 24_000, format="WAV")
    return file.getvalue()


def alone(text: str, voice: str = "amber") -> Pcm:
    """What the engine says when it is asked for this text by itself."""
    engine = ToneEngine()
    engine.load({"seconds_per_char": SPEECH["seconds_per_char"]})
    recording = VoiceStore().reference(voice)
    state = engine.voice(Reference(voice, recording.samples, recording.rate_hz, recording.sha256))
    return np.concatenate(
        [
            to_s16(part)
            for segment in engine.segments(text, "en")
            for part in engine.speak(Request(segment, "en"), state)
        ]
    )


def test_eight_jobs_take_fewer_calls_than_jobs_and_sound_as_if_each_were_alone() -> None:
    lines = [f"This is line {number}. It has a second sentence, of its own." for number in range(8)]
    with Bus(settings=SPEECH | {"batch": 4}) as bus, Client(bus.frontend) as client:
        results = list(client.map(lines, engine="tone", voice="amber", window=8))
        figures = until(client, lambda figures: figures.get("batch_rows") == 16)
        assert client.status()["workers"][0]["slots"] == 4
    for line, result in zip(lines, results, strict=True):
        assert result.speech is not None
        assert np.array_equal(result.speech.samples, alone(line))
    assert figures["batch_calls"] < 8
    assert figures["jobs_done"] == 8


def test_an_engine_killed_in_mid_batch_costs_no_job() -> None:
    lines = [f"Line {number}, which takes a moment to be spoken." for number in range(12)]
    with Bus(settings=SPEECH | {"batch": 4}) as bus, Client(bus.frontend) as client:
        pid = bus.workers[0].pid
        seen = 0
        for result in client.map(lines, engine="tone", voice="amber", window=12):
            assert result.error is None
            assert result.speech is not None
            assert np.array_equal(result.speech.samples, alone(lines[result.index]))
            if result.index == 2:
                os.kill(engines_of(pid)[0], signal.SIGKILL)
            seen += 1
        status = client.status()
    assert seen == 12
    assert status["totals"]["retried"] >= 1, "the kill must hit a running job, or it shows nothing"


def test_a_poison_job_in_a_batch_is_the_only_one_that_fails() -> None:
    """All that were with it died with it, and after three times were called poison too."""
    lines = [f"Line {number}" + (" POISON" if number == 1 else "") for number in range(6)]
    with Bus(settings=SPEECH | {"batch": 6, "crash_on": "POISON"}) as bus, Client(bus.frontend) as client:
        results = list(client.map(lines, engine="tone", voice="amber", window=6, deadline_s=60))
    codes = [result.error.code if result.error else "done" for result in results]
    assert codes == ["done", "poison_job", "done", "done", "done", "done"]


@pytest.mark.parametrize("batch", [1, 3])
def test_a_job_that_fills_the_memory_fails_and_the_others_are_spoken(batch: int) -> None:
    settings = SPEECH | {"batch": batch, "gorge_on": "GORGE", "memory_limit_mb": 700}
    lines = ["one", "two", "GORGE", "three", "four", "five"]
    with Bus(settings=settings) as bus, Client(bus.frontend) as client:
        results = list(client.map(lines, engine="tone", voice="amber", window=6, deadline_s=60))
        figures = until(client, lambda figures: figures.get("jobs_done") == 5)
    codes = [result.error.code if result.error else "done" for result in results]
    assert codes == ["done", "done", "poison_job", "done", "done", "done"]
    assert "memory" in str(results[2].error)
    assert figures["restarts"] == 0, "it ran into its limit, and lives on"


def test_two_hundred_voices_pass_through_a_cache_of_thirty_two(tmp_path: Path) -> None:
    store = VoiceStore(tmp_path / "voices", cache_dir=tmp_path / "cache")
    chance = np.random.default_rng(5)
    names = [f"voice-{number}" for number in range(200)]
    for name in names:
        store.add(name, hum(chance), consent="Made for a test.", licence="CC0-1.0")
    voices = {"path": str(tmp_path / "voices"), "cache_dir": str(tmp_path / "cache")}
    settings = SPEECH | {"realtime_factor": 0}
    with Bus(config={"voices": voices}, settings=settings) as bus, Client(bus.frontend) as client:
        rss: list[int] = []
        [engine] = engines_of(bus.workers[0].pid)
        for start in range(0, 200, 50):
            jobs = [
                client.submit("abc", engine="tone", voice=name, deadline_s=60)
                for name in names[start : start + 50]
            ]
            assert len({job.result(timeout_s=PATIENCE_S).samples.tobytes() for job in jobs}) == 50
            rss.append(rss_bytes(engine))
        figures = until(client, lambda figures: figures.get("jobs_done") == 200)
    assert figures["voices"] == 32
    assert rss[-1] - rss[0] < 20_000_000, rss


def test_an_engine_without_work_is_unloaded_and_the_next_job_wakes_it() -> None:
    with Bus(settings={"idle_unload_s": 0.3, "load_s": 0.2}) as bus, Client(bus.frontend) as client:
        pid = bus.workers[0].pid
        until(client, lambda figures: figures.get("unloads", 0) >= 1)
        assert engines_of(pid) == [], "its memory is really free"
        first = client.say("Good morning.", engine="tone", voice="amber")
        again = client.say("Good morning.", engine="tone", voice="amber")
        assert np.array_equal(first.samples, again.samples)
        assert client.status()["totals"]["retried"] == 0


def test_a_voice_that_is_replaced_or_removed_is_so_for_the_next_job(tmp_path: Path) -> None:
    store = VoiceStore(tmp_path / "voices", cache_dir=tmp_path / "cache")
    chance = np.random.default_rng(6)

    def record(replace: bool) -> None:
        store.add("dora", hum(chance), consent="Made for a test.", replace=replace)

    voices = {"path": str(tmp_path / "voices"), "cache_dir": str(tmp_path / "cache")}
    with Bus(config={"voices": voices}) as bus, Client(bus.frontend) as client:
        record(replace=False)
        before = client.say("abc", engine="tone", voice="dora")
        record(replace=True)
        after = client.say("abc", engine="tone", voice="dora")
        assert not np.array_equal(before.samples, after.samples)
        store.remove("dora")
        job = client.submit("abc", engine="tone", voice="dora")
        assert "unknown_voice" in str(job_error(job))


def job_error(job: Any) -> Exception:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - its code is what is looked at
        job.result(timeout_s=PATIENCE_S)
    return caught.value
