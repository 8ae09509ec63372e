"""What comes through the proxy is always the beginning of what was sent."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.chaos.proxy import Mode, Proxy


class Sink:
    """Listens, and keeps what each connection brought."""

    def __init__(self) -> None:
        self.server = socket.create_server(("127.0.0.1", 0))
        self.taken: list[bytearray] = []
        self.ended: list[threading.Event] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self.server.accept()
                self.taken.append(bytearray())
                self.ended.append(threading.Event())
                threading.Thread(
                    target=self._take, args=(connection, self.taken[-1], self.ended[-1]), daemon=True
                ).start()

    def _take(self, connection: socket.socket, taken: bytearray, ended: threading.Event) -> None:
        with connection, suppress(OSError):
            while block := connection.recv(65536):
                taken += block
        ended.set()

    def wait(self, number: int) -> bytes:
        until = time.monotonic() + 20
        while len(self.ended) <= number and time.monotonic() < until:
            time.sleep(0.01)
        assert self.ended[number].wait(20)
        return bytes(self.taken[number])


@pytest.fixture
def sink() -> Iterator[Sink]:
    sink = Sink()
    yield sink
    sink.server.close()


@pytest.fixture
def proxy(sink: Sink) -> Iterator[Proxy]:
    proxy = Proxy(("127.0.0.1", sink.server.getsockname()[1]))
    yield proxy
    proxy.close()


def test_everything_arrives_before_an_orderly_end(sink: Sink, proxy: Proxy) -> None:
    sent = bytes(range(256)) * 4000
    with socket.create_connection(("127.0.0.1", proxy.port)) as connection:
        connection.sendall(sent)
    assert sink.wait(0) == sent


@pytest.mark.parametrize("mode", [Mode.SWALLOW, Mode.THROTTLE])
def test_a_broken_connection_brings_the_beginning_and_no_more(sink: Sink, proxy: Proxy, mode: Mode) -> None:
    sent = b"".join(number.to_bytes(4) for number in range(100_000))

    def send(connection: socket.socket) -> None:
        with suppress(OSError):
            for at in range(0, len(sent), 1000):
                connection.sendall(sent[at : at + 1000])
                time.sleep(0.001)

    connection = socket.create_connection(("127.0.0.1", proxy.port))
    sender = threading.Thread(target=send, args=(connection,))
    sender.start()
    time.sleep(0.05)
    proxy.mode = mode
    time.sleep(0.15)
    proxy.cut()
    taken = sink.wait(0)
    sender.join(20)
    connection.close()
    assert sent.startswith(taken)
    assert len(taken) < len(sent)
    with socket.create_connection(("127.0.0.1", proxy.port)) as connection:
        connection.sendall(b"afterwards")
    assert sink.wait(1) == b"afterwards"


def test_half_open_means_that_nobody_is_told(sink: Sink, proxy: Proxy) -> None:
    connection = socket.create_connection(("127.0.0.1", proxy.port))
    connection.sendall(b"heard")
    until = time.monotonic() + 20
    while (not sink.taken or bytes(sink.taken[0]) != b"heard") and time.monotonic() < until:
        time.sleep(0.01)
    proxy.mode = Mode.SWALLOW
    connection.close()
    assert not sink.ended[0].wait(0.3)
    proxy.cut()
    assert sink.wait(0) == b"heard"
