"""Peers written by hand: one that shows any key, and one that speaks ZeroMQ's own protocol byte by byte."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from typing import Any

import msgspec
import zmq
from zmq.utils.monitor import parse_monitor_message

from tests.broker.test_loop import Peer as KeylessPeer
from voicebus.common.handshake import show_key
from voicebus.common.keyring import KeyFile

TIMEOUT_MS = 10_000
pack = msgspec.msgpack.encode
SETTLED = (
    zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)


class Peer(KeylessPeer):
    """A DEALER that shows `key`, or none, and notes how its handshakes go."""

    def __init__(self, context: zmq.Context[Any], address: str, key: KeyFile | None = None) -> None:
        self.socket = context.socket(zmq.DEALER)
        self.socket.linger = 0
        show_key(self.socket, key)
        self.monitor = self.socket.get_monitor_socket(SETTLED | zmq.EVENT_DISCONNECTED)
        self.socket.connect(address)

    def event(self) -> tuple[int, int]:
        """The next thing that happened to the connection, and its value."""
        assert self.monitor.poll(TIMEOUT_MS), "nothing became of the connection"
        happened = parse_monitor_message(self.monitor.recv_multipart())
        return int(happened["event"]), int(happened["value"])

    @property
    def is_let_in(self) -> bool:
        """How the first handshake ended."""
        return self.event()[0] == zmq.EVENT_HANDSHAKE_SUCCEEDED

    def wait_cut_off(self) -> None:
        """Wait for the end of the connection."""
        while self.event()[0] != zmq.EVENT_DISCONNECTED:
            pass

    def close(self) -> None:
        self.socket.disable_monitor()
        self.monitor.close(0)
        self.socket.close(0)


class RawPeer:
    """ZMTP 3.0 with the NULL mechanism, by hand: what a library would not send."""

    def __init__(self, address: str, routing_id: bytes = b"") -> None:
        host, _, port = address.removeprefix("tcp://").rpartition(":")
        self.line = socket.create_connection((host, int(port)), 10)
        self.line.sendall(b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32))
        self._read(64)
        ready = b"\x05READY" + _property(b"Socket-Type", b"DEALER") + _property(b"Identity", routing_id)
        self.line.sendall(bytes((4, len(ready))) + ready)
        flags, size = self._read(2)
        assert flags == 4, "no READY came"
        self._read(size)

    def flood(self, times: int, *frames: bytes) -> None:
        """Send a message so often, or until the other end has had enough."""
        last = len(frames) - 1
        message = b"".join(
            struct.pack("!BQ", 2 | (number < last), len(frame)) + frame for number, frame in enumerate(frames)
        )
        with suppress(ConnectionError):
            for _ in range(times):
                self.line.sendall(message)

    def is_cut_off(self) -> bool:
        """Wait until the other end closes the connection."""
        return is_hung_up(self.line)

    def close(self) -> None:
        self.line.close()

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self.line.recv(size - len(data))
            assert more, "the other end has gone"
            data += more
        return data


class OldPeer(RawPeer):
    """ZMTP 2.0, which has no mechanisms and no properties: a routing id is simply there."""

    def __init__(self, address: str, routing_id: bytes) -> None:
        host, _, port = address.removeprefix("tcp://").rpartition(":")
        self.line = socket.create_connection((host, int(port)), 10)
        self.line.sendall(b"\xff" + bytes(8) + b"\x7f\x01\x05" + bytes((0, len(routing_id))) + routing_id)


def is_hung_up(line: socket.socket) -> bool:
    """Whether the other end closes a connection before its timeout."""
    try:
        while line.recv(65_536):
            pass
    except ConnectionError:
        return True
    except TimeoutError:
        return False
    return True


def _property(name: bytes, value: bytes) -> bytes:
    return bytes((len(name),)) + name + struct.pack("!I", len(value)) + value
