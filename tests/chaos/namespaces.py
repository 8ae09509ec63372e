"""A process on another machine, almost: a network namespace joined to ours by one cable, which can be pulled.

Only inside the run's own namespaces (`sandbox`), so neither names nor addresses can collide with the
machine's. Where the kernel lacks `netem`, a bad line is made by pulling the cable many times a second.
"""

from __future__ import annotations

import random
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

from tests.chaos.sandbox import run, succeeds

FLAP_DOWN_S: Final = 0.06
FLAP_UP_S: Final = 0.12
NETEM: Final = ("netem", "delay", "40ms", "20ms", "loss", "8%")
SLOW: Final = ("tbf", "rate", "3mbit", "burst", "16kb", "latency", "300ms")
"""Less than what a worker that speaks on two slots makes in audio."""


class Namespace:
    """A namespace called `name` and its cable. Its end has `far` as address, ours has `near`."""

    def __init__(self, name: str, number: int) -> None:
        self.name = name
        self.near = f"10.213.{number}.1"
        self._device = f"chaos{number}"
        run("ip", "netns", "add", name)
        run("ip", "link", "add", self._device, "type", "veth", "peer", "name", "eth0", "netns", name)
        run("ip", "address", "add", f"{self.near}/30", "dev", self._device)
        run("ip", "link", "set", self._device, "up")
        run("ip", "-n", name, "address", "add", f"10.213.{number}.2/30", "dev", "eth0")
        run("ip", "-n", name, "link", "set", "eth0", "up")
        self.has_netem = succeeds("tc", "-n", name, "qdisc", "add", "dev", "eth0", "root", *NETEM)
        if self.has_netem:
            run("tc", "-n", name, "qdisc", "del", "dev", "eth0", "root")

    @property
    def prefix(self) -> tuple[str, ...]:
        """What to put before a command so that it runs there."""
        return ("nsenter", f"--net=/run/netns/{self.name}", "--")

    def pull(self, seconds: float, chance: random.Random) -> None:
        """Take the link down at one of its ends for a while: packets vanish, or cannot even be sent."""
        far = chance.random() < 0.5
        self._link("down", far=far)
        time.sleep(seconds)
        self._link("up", far=far)

    def lose(self, seconds: float) -> None:
        """Lose and delay packets for a while."""
        if self.has_netem:
            with self._shaped(NETEM):
                time.sleep(seconds)
            return
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._link("down", far=False)
            time.sleep(FLAP_DOWN_S)
            self._link("up", far=False)
            time.sleep(FLAP_UP_S)

    def slow(self, seconds: float) -> None:
        """Let little through for a while, as a queue that fills and then drops."""
        with self._shaped(SLOW):
            time.sleep(seconds)

    @contextmanager
    def _shaped(self, discipline: tuple[str, ...]) -> Generator[None]:
        ends: tuple[tuple[tuple[str, ...], str], ...] = ((("-n", self.name), "eth0"), ((), self._device))
        for where, device in ends:
            run("tc", *where, "qdisc", "add", "dev", device, "root", *discipline)
        try:
            yield
        finally:
            for where, device in ends:
                run("tc", *where, "qdisc", "del", "dev", device, "root")

    def _link(self, state: str, *, far: bool) -> None:
        where, device = (("-n", self.name), "eth0") if far else ((), self._device)
        run("ip", *where, "link", "set", device, state)
