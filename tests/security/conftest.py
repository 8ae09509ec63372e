"""A bus with keys: real processes, and a keyring of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import zmq

from voicebus.client.launch import Bus
from voicebus.common.keyring import KeyFile, Keyring, Role, read_key

from .peers import Peer

BEAT_S = 0.2


@dataclass
class House:
    """A bus with keys, and peers for it."""

    bus: Bus
    ring: Keyring
    context: zmq.Context[Any]
    peers: list[Peer] = field(default_factory=list)

    def key(self, name: str) -> KeyFile:
        return read_key(self.ring.file(name))

    def new_key(self, name: str, role: Role, tenant: str | None = None) -> KeyFile:
        self.ring.new(name, role, tenant=tenant)
        return self.key(name)

    def door(self, name: str) -> str:
        return self.bus.frontend if name == "frontend" else self.bus.backend

    def peer(self, door: str, key: KeyFile | None) -> Peer:
        peer = Peer(self.context, self.door(door), key)
        self.peers.append(peer)
        return peer


@pytest.fixture
def house(running: House) -> Iterator[House]:
    yield running
    for peer in running.peers:
        peer.close()
    running.peers.clear()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    ring = Keyring(tmp_path_factory.mktemp("house") / "keys")
    ring.init()
    config = {
        "security": {"keys": str(ring.folder)},
        "broker": {"heartbeat_interval_s": BEAT_S, "default_engine": "tone"},
    }
    with Bus({"tone": 1}, config=config) as bus:
        context: zmq.Context[Any] = zmq.Context()
        yield House(bus, ring, context)
        context.destroy(linger=0)
