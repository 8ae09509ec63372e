"""One small checkpoint and one loaded engine for all of these tests: either takes seconds to make."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.workers.engines.checkpoints import make_xtts
from voicebus.workers.engines import coqui
from voicebus.workers.engines.xtts.engine import XttsEngine


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    coqui.set_threads(1)
    return make_xtts(tmp_path_factory.mktemp("xtts"))


@pytest.fixture(scope="session")
def engine(checkpoint: Path) -> Iterator[XttsEngine]:
    engine = XttsEngine()
    engine.load({"model_dir": str(checkpoint), "threads": 1, "device": "cpu", "batch": 4})
    yield engine
    engine.close()
