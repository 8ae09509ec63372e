"""The real XTTS under a real bus, on a small checkpoint with random weights: heavy, for make test-engines.

Such a model babbles, and the host's check of what it says would rightly have it say most of it twice; where
calls are counted or audio is compared, the check is off.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf

from tests.integration.test_batches import engines_of, hum, until
from tests.workers.engines.checkpoints import make_xtts
from voicebus.client import Client
from voicebus.client.launch import Bus
from voicebus.common.voices import VoiceStore
from voicebus.workers.children import rss_bytes
from voicebus.workers.engines.xtts import weights

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(600)]
GREEDY = {"do_sample": False}
LINES = [
    ("en", "The bells rang at noon."),
    ("zh-cn", "今天天气很好。"),
    ("ja", "こんにちは、世界。"),
    ("en", "Nobody knew why."),
    ("de", "Guten Morgen."),
    ("fr", "Il pleut encore."),
    ("en", "Twelve boats left the harbour."),
    ("es", "Buenas noches."),
]
XTTS = "xtts-0"


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("xtts-tiny")
    make_xtts(folder)
    return folder


@pytest.fixture(scope="module")
def bus(checkpoint: Path) -> Iterator[Bus]:
    settings = {"model_dir": str(checkpoint), "batch": 8, "threads": 1, "self_check": False}
    config = {"broker": {"default_engine": "xtts"}}
    with Bus(engines={"xtts": 1}, settings=settings, config=config) as running:
        yield running


@pytest.mark.parametrize("language", ["en", "zh-cn", "ja"])
def test_vc_say_writes_a_wav_at_24_khz(bus: Bus, tmp_path: Path, language: str) -> None:
    text = dict(LINES)[language]
    wav = tmp_path / "said.wav"
    command = [sys.executable, "-m", "voicebus.client.cli", "say", text, "--broker", bus.frontend]
    command += ["--engine", "xtts", "--language", language, "--voice", "amber", "-o", str(wav)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    samples, rate_hz = sf.read(wav, dtype="float32")
    assert rate_hz == 24_000
    assert len(samples) > 2400
    assert float(np.abs(samples).max()) > 0.001


def test_the_bus_knows_its_slots_and_which_weights_it_speaks_with(bus: Bus, checkpoint: Path) -> None:
    with Client(bus.frontend) as client:
        engine = client.status()["engines"]["xtts"]
    assert engine["slots"] == 8
    assert engine["version"].startswith(f"1-{weights.fingerprint(checkpoint)}-")


def settled(client: Client) -> dict[str, Any]:
    """The worker's figures once they tell of all that was done; each job here is one segment."""
    done = client.status()["totals"]["done"]
    return until(client, lambda figures: figures.get("rows_spoken") == done, XTTS)


def test_eight_jobs_take_fewer_calls_than_jobs_and_sound_as_if_each_were_alone(bus: Bus) -> None:
    def say(client: Client, language: str, text: str, voice: str) -> Any:
        return client.submit(text, engine="xtts", voice=voice, language=language, options=GREEDY)

    with Client(bus.frontend) as client:
        alone = [
            say(client, language, text, voice).result(timeout_s=120).samples
            for (language, text), voice in zip(LINES, ["amber", "basil"] * 4, strict=True)
        ]
        before = settled(client)
        jobs = [
            say(client, language, text, voice)
            for (language, text), voice in zip(LINES, ["amber", "basil"] * 4, strict=True)
        ]
        together = [job.result(timeout_s=120).samples for job in jobs]
        after = settled(client)
    assert after["rows_spoken"] - before["rows_spoken"] == 8
    assert after["generate_calls"] - before["generate_calls"] < 8
    for one, other in zip(alone, together, strict=True):
        assert len(one) == len(other)
        # The same tokens; batched sums are rounded in another order, which 16 bits hardly show.
        assert int(np.abs(one.astype(int) - other.astype(int)).max()) <= 2


def test_its_process_killed_in_mid_sentence_costs_no_job(bus: Bus) -> None:
    with Client(bus.frontend) as client:
        pid = bus.workers[0].pid
        done = 0
        for result in client.map([f"Line {n} of a dozen." for n in range(12)], engine="xtts", voice="amber"):
            assert result.error is None
            assert result.speech is not None
            assert result.speech.sample_rate_hz == 24_000
            done += 1
            if result.index == 1:
                os.kill(engines_of(pid)[0], signal.SIGKILL)
        status = client.status()
    assert done == 12
    assert status["totals"]["retried"] >= 1, "the kill must hit a running job, or it shows nothing"


def test_two_hundred_voices_pass_through_its_cache_of_thirty_two(checkpoint: Path, tmp_path: Path) -> None:
    store = VoiceStore(tmp_path / "voices", cache_dir=tmp_path / "cache")
    chance = np.random.default_rng(5)
    names = [f"voice-{number}" for number in range(200)]
    for name in names:
        store.add(name, hum(chance), consent="Made for a test.", licence="CC0-1.0")
    voices = {"path": str(tmp_path / "voices"), "cache_dir": str(tmp_path / "cache")}
    settings = {"model_dir": str(checkpoint), "batch": 4, "threads": 1, "self_check": False, "max_tokens": 10}
    with (
        Bus(engines={"xtts": 1}, config={"voices": voices}, settings=settings) as bus,
        Client(bus.frontend) as client,
    ):
        [engine] = engines_of(bus.workers[0].pid)
        rss: list[int] = []
        for start in range(0, 200, 50):
            jobs = [
                client.submit("Yes.", engine="xtts", voice=name, options=GREEDY, deadline_s=300)
                for name in names[start : start + 50]
            ]
            for job in jobs:
                assert job.result(timeout_s=300).samples.size
            rss.append(rss_bytes(engine))
        figures = until(client, lambda figures: figures.get("jobs_done") == 200, XTTS)
    assert figures["voices"] == 32
    assert rss[-1] - rss[0] < 60_000_000, rss
