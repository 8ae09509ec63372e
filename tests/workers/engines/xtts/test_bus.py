"""The engine in a worker of a real bus: several jobs at once, in several languages."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from voicebus.client import Client
from voicebus.client.launch import Bus
from voicebus.workers.engines.xtts import weights

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(600)]

JOBS = (
    ("Hello there, my friends.", "en"),
    ("你好,今天是十二点五分。", "zh-cn"),
    ("東京は今日12時です。", "ja"),
)


def test_several_jobs_are_spoken_at_once(checkpoint: Path) -> None:
    settings: dict[str, Any] = {"model_dir": str(checkpoint), "threads": 1, "batch": 4}
    with (
        Bus({"xtts": 1}, settings=settings, ready_timeout_s=300) as bus,
        Client(bus.frontend) as client,
        ThreadPoolExecutor(len(JOBS)) as pool,
    ):
        going = [pool.submit(client.say, text, engine="xtts", language=language) for text, language in JOBS]
        spoken = [job.result() for job in going]
        status = client.status()["engines"]["xtts"]
    assert all(speech.samples.size > 1000 for speech in spoken)
    assert status["slots"] == 4
    assert status["version"].startswith(f"1-{weights.fingerprint(checkpoint)}-")
