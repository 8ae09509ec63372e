"""What both clients have from their common base."""

from __future__ import annotations

import gc

from voicebus.client import Client
from voicebus.client.launch import Bus


def test_a_client_for_another_tenant_shares_a_connection_and_keeps_it_open() -> None:
    with Bus(engines={"tone": 1}, settings={"realtime_factor": 1}) as bus:
        studio = Client(bus.frontend, tenant="house").as_tenant("studio")
        gc.collect()  # the first is held by nobody else, and would close its connection
        job = studio.submit("A text that takes a moment to be spoken.", engine="tone")
        assert {found["tenant"] for found in studio.jobs()} == {"studio"}
        job.cancel()
