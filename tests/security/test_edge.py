"""The edge before a broker with keys: it shows its own, and one that is refused is not its clients' fault."""

from __future__ import annotations

from pathlib import Path

import httpx

from tests.edge.server import EdgeProcess
from tests.edge.test_jobs import ended
from voicebus.common.keyring import Keyring

from .conftest import House

SPEECH = {"model": "tone", "input": "Hello.", "voice": "amber", "response_format": "pcm"}


def edge(house: House, ring: Keyring) -> EdgeProcess:
    return EdgeProcess(house.bus, config={"security": {"keys": str(ring.folder)}})


def test_the_edge_speaks_and_works_through_jobs_with_its_key(house: House, tmp_path: Path) -> None:
    ring = Keyring(tmp_path / "of-edge")
    house.ring.copy("client", ring.folder)
    with edge(house, ring) as running, httpx.Client(base_url=running.url, timeout=30) as http:
        assert http.post("/v1/audio/speech", json=SPEECH).content
        job = http.post("/v1/jobs", json={"input": "One.\nTwo.", "model": "tone"}).json()
        assert ended(http, job["id"])["state"] == "done"


def test_a_key_of_the_edge_that_is_not_taken_is_the_edges_own_fault(house: House) -> None:
    """Caught: its clients were answered 401, and looked for the mistake in their own keys."""
    with EdgeProcess(house.bus) as running, httpx.Client(base_url=running.url, timeout=30) as http:
        answer = http.post("/v1/audio/speech", json=SPEECH)
        assert answer.status_code == 500
        error = answer.json()["error"]
        assert error["code"] == "config_error"
        assert "its log has more" in error["message"]
        assert http.get("/readyz").status_code == 503
