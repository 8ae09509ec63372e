"""One checkpoint for all tests of a session."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.workers.engines.openvoice.checkpoint import make


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("openvoice") / "converter")
