"""XTTS on an NVIDIA GPU: recorded steps, half precision, and memory that really runs out."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.workers.engines.checkpoints import TINY, make_xtts
from tests.workers.engines.xtts.test_speaking import GREEDY, TEXTS, rows, speak
from tests.workers.fakes import FakeCatalogue, FakeLink
from tests.workers.model import read
from voicebus.client import Client
from voicebus.client.launch import Bus
from voicebus.common import wire
from voicebus.common.messages import Submit, encode
from voicebus.common.wire import pack_envelope
from voicebus.workers import control
from voicebus.workers.attempt import Host
from voicebus.workers.checking import Checker
from voicebus.workers.choir import Choir
from voicebus.workers.engine import Samples
from voicebus.workers.engines import coqui
from voicebus.workers.engines.xtts.engine import XttsEngine
from voicebus.workers.voicecache import VoiceCache

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(300)]

MIB = 2**20
LONG = "This sentence goes on for a while, so that the keys of its words need room, and more of it. " * 2


def loaded(checkpoint: Path, **settings: Any) -> XttsEngine:
    engine = XttsEngine()
    engine.load({"model_dir": str(checkpoint), "device": "cuda:0", "batch": 4, **settings})
    return engine


@pytest.fixture(scope="module")
def exact(checkpoint: Path) -> Iterator[XttsEngine]:
    engine = loaded(checkpoint, precision="float32")
    yield engine
    engine.close()


class Waiting:
    """Jobs that are all here."""

    leaving = False

    def __init__(self) -> None:
        self.jobs: deque[list[Any]] = deque()

    def take(self, timeout_ms: int | None) -> list[Any] | None:
        return self.jobs.popleft() if self.jobs else None


def nearly(one: Samples, other: Samples) -> bool:
    """The same tokens, and sound that differs by what a GPU's convolutions round (TF32)."""
    return one.shape == other.shape and bool(np.corrcoef(one, other)[0, 1] > 0.999)


@pytest.mark.parametrize("options", [GREEDY, {"seed": 7}])
def test_a_gpu_says_what_the_cpu_says(
    engine: XttsEngine, exact: XttsEngine, options: Mapping[str, Any]
) -> None:
    here, _ = speak(engine, rows(engine, **options))
    there, _ = speak(exact, rows(exact, **options))
    assert all(nearly(one, other) for one, other in zip(here, there, strict=True))


def test_recorded_steps_say_what_others_do(checkpoint: Path, exact: XttsEngine) -> None:
    """Rows that leave one after another, so that the recordings of 4, 2 and 1 rows are played."""
    plain = loaded(checkpoint, precision="float32", graphs=False)
    try:
        for options in (GREEDY, {"seed": 3}):
            recorded, parts = speak(exact, rows(exact, streamed=True, **options))
            expected, _ = speak(plain, rows(plain, streamed=True, **options))
            assert all(nearly(one, other) for one, other in zip(recorded, expected, strict=True))
            assert len(parts[2]) > 2
    finally:
        plain.close()


def test_a_second_batch_finds_nothing_of_the_first(exact: XttsEngine) -> None:
    first, _ = speak(exact, rows(exact, seed=5))
    going = exact.speak_batch(rows(exact, seed=6))
    next(going)
    going.close()  # type: ignore[attr-defined]
    again, _ = speak(exact, rows(exact, seed=5))
    assert all(nearly(one, other) for one, other in zip(first, again, strict=True))


def test_half_precision_is_the_default_and_sounds_like_the_whole(checkpoint: Path, exact: XttsEngine) -> None:
    half = loaded(checkpoint)
    try:
        assert half.model.dtype == coqui.torch().float16
        spoken, _ = speak(half, rows(half, seed=5))
        whole, _ = speak(exact, rows(exact, seed=5))
        for one, other in zip(spoken, whole, strict=True):
            assert np.isfinite(one).all()
            assert abs(one.size - other.size) <= 0.1 * other.size
    finally:
        half.close()


def test_memory_is_told_and_given_back(checkpoint: Path) -> None:
    """It was not: each step was recorded on a stream of its own, and cuBLAS kept 32 MiB for every one."""
    cuda = coqui.torch().cuda
    before = cuda.memory_reserved()
    engine = loaded(checkpoint)
    speak(engine, rows(engine, seed=5))
    assert engine.figures()["device_bytes"] > before + 10 * MIB
    engine.close()
    assert cuda.memory_reserved() < before + 10 * MIB


def test_a_batch_that_the_gpu_has_no_memory_for_is_halved_and_no_job_lost(tmp_path: Path) -> None:
    """Nothing is injected: keys of 64 rows are 0.8 GB, of this length 1.1, and what is left is 0.1."""
    sizes = {"gpt_layers": 8, "gpt_n_model_channels": 256, "gpt_n_heads": 4, "decoder_input_dim": 256}
    checkpoint = make_xtts(tmp_path, {**TINY, **sizes})
    engine = loaded(checkpoint, batch=64, precision="float32")
    device = engine.model.device
    link = FakeLink()
    host = Host("xtts", "w", engine, VoiceCache(engine, FakeCatalogue(), "", None), link, Checker())
    inbox = Waiting()
    for job in range(64):
        header = encode(Submit(language="en", options={"seed": 1}))
        inbox.jobs.append([pack_envelope(wire.JOB, bytes([job]) * 16, 1, 0), header, LONG.encode()])
    choir = Choir(host, inbox, 0.0)
    cuda = coqui.torch().cuda
    try:
        cuda.empty_cache()
        coqui.limit_device_memory(device, cuda.memory_allocated(device) // MIB + 100)
        choir.gather()
        while not choir.is_empty:
            choir.sing()
    finally:
        coqui.limit_device_memory(device, cuda.get_device_properties(device).total_memory // MIB)
        engine.close()
    assert choir.halved > 0
    messages = [read(frames) for frames in link.frames if frames[0][3] < control.HELLO]
    said = Counter(message.name for message in messages)
    assert (said["DONE"], said["FAILED"]) == (64, 0)
    sound = {
        job: b"".join(
            message.payload
            for message in messages
            if message.name == "CHUNK" and message.job == bytes([job]) * 16
        )
        for job in range(64)
    }
    assert {len(pcm) for pcm in sound.values()} == {len(sound[0])}
    assert len(sound[0]) > 24_000


def test_two_slots_share_a_gpu(checkpoint: Path) -> None:
    settings = {"model_dir": str(checkpoint), "device": "cuda:0", "self_check": False}
    with (
        Bus({"xtts": 1}, settings=settings, slots=2, ready_timeout_s=120) as bus,
        Client(bus.frontend) as client,
    ):
        texts = [text for text, _ in TEXTS] * 8
        results = list(client.map(texts, engine="xtts", language="en", window=24))
    assert all(result.speech is not None and result.speech.duration_s > 0.2 for result in results)
