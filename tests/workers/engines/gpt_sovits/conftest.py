"""A server on loopback that answers with whatever bytes a test wants, and engines that speak through it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.workers.engines.gpt_sovits.scripted import Scripted, Step
from tests.workers.engines.gpt_sovits.talking import Start, starting
from voicebus.workers.engines.gpt_sovits.engine import GptSovitsEngine


@pytest.fixture
def server() -> Iterator[Scripted]:
    with Scripted() as server:
        yield server


@pytest.fixture
def start(server: Scripted, tmp_path: Path) -> Iterator[Start]:
    """Load an engine; scripts are what the server answers, in turn."""
    with starting(tmp_path / "refs") as begin:

        def load(*scripts: Step | list[Step], **settings: Any) -> GptSovitsEngine:
            server.scripts = [[script] if not isinstance(script, list) else script for script in scripts]
            return begin(server.url, **settings)

        yield load
