"""The flood itself, a process of its own: PEERS connections that send malformed messages as fast as they can.

    python -m bench.flood.peers --address tcp://… [--address tcp://…] --peers 50 --messages 1000000

A connection that is broken is made anew at once, until all has been sent. Prints `sending`, and at the end
how many messages the kernel took, and how many connections that needed.
"""

from __future__ import annotations

import random
import selectors
import socket
import time
from collections.abc import Sequence
from contextlib import suppress

import click

from bench.flood.garbage import GREETING, GREETING_BYTES, ready_command, wrong_messages

BLOCK = 200
"""Messages that are handed to the kernel at once."""
SHAKEN_S = 5.0


class Flooder:
    """One connection after the other to one address."""

    def __init__(self, address: str, blocks: Sequence[bytes]) -> None:
        host, _, port = address.removeprefix("tcp://").rpartition(":")
        self._place = host, int(port)
        self._blocks = blocks
        self._left = b""
        self.sent = self.connections = 0
        self.line = self.dial()

    def dial(self) -> socket.socket:
        """Connect, as a DEALER does."""
        line = socket.create_connection(self._place, SHAKEN_S)
        line.sendall(GREETING)
        _read(line, GREETING_BYTES)
        line.sendall(ready_command())
        line.setblocking(False)
        self.connections += 1
        self._left = b""
        return line

    def push(self) -> bool:
        """Send what the connection takes now. False: it was broken, and another one was made."""
        with suppress(BlockingIOError):
            while True:
                if not self._left:
                    self._left = self._blocks[self.sent // BLOCK % len(self._blocks)]
                took = self.line.send(self._left)
                self._left = self._left[took:]
                if not self._left:
                    self.sent += BLOCK
                    return True
        return True


def _read(line: socket.socket, size: int) -> None:
    while size:
        data = line.recv(size)
        if not data:
            raise ConnectionResetError("closed in the handshake")
        size -= len(data)


@click.command()
@click.option("--address", "addresses", multiple=True, required=True)
@click.option("--peers", default=50, show_default=True)
@click.option("--messages", default=1_000_000, show_default=True)
@click.option("--pace", default=0, show_default=True, help="Messages a second in all; 0: as fast as can be.")
@click.option("--seconds", default=600.0, show_default=True, help="Give up after so long.")
def main(addresses: tuple[str, ...], peers: int, messages: int, pace: int, seconds: float) -> None:
    """Send malformed messages."""
    dice = random.Random(1)
    kinds = wrong_messages(dice)
    blocks = [b"".join(dice.choices(kinds, k=BLOCK)) for _ in range(20)]
    flooders = [Flooder(addresses[number % len(addresses)], blocks) for number in range(peers)]
    selector = selectors.DefaultSelector()
    for flooder in flooders:
        selector.register(flooder.line, selectors.EVENT_WRITE, flooder)
    click.echo("sending")
    until = time.monotonic() + seconds
    begun = time.monotonic()
    while (sent := sum(flooder.sent for flooder in flooders)) < messages and time.monotonic() < until:
        if pace and (early_s := sent / pace - (time.monotonic() - begun)) > 0:
            time.sleep(early_s)
        for key, _ in selector.select(1.0):
            flooder: Flooder = key.data
            if pace and sum(each.sent for each in flooders) > pace * (time.monotonic() - begun):
                break
            try:
                flooder.push()
            except OSError:
                selector.unregister(flooder.line)
                flooder.line.close()
                with suppress(OSError):
                    flooder.line = flooder.dial()
                selector.register(flooder.line, selectors.EVENT_WRITE, flooder)
    sent = sum(flooder.sent for flooder in flooders)
    connections = sum(flooder.connections for flooder in flooders)
    click.echo(f"sent={sent} connections={connections} seconds={time.monotonic() - begun:.2f}")


if __name__ == "__main__":
    main()
