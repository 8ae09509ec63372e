"""The guard before aiohttp: too many are not let in, who never asks is cut off, all else passes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from voicebus.edge.guard import Gate, Guarded, guarding


class Inner(asyncio.Protocol):
    """What aiohttp would see."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.seen.append("made")

    def data_received(self, data: bytes) -> None:
        self.seen.append(data)

    def eof_received(self) -> None:
        self.seen.append("eof")

    def pause_writing(self) -> None:
        self.seen.append("pause")

    def resume_writing(self) -> None:
        self.seen.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.seen.append("lost")


class Wire(asyncio.Transport):
    def __init__(self, address: str) -> None:
        super().__init__({"peername": (address, 1)})
        self.aborted = False

    def abort(self) -> None:
        self.aborted = True


def connect(
    gate: Gate, address: str, timeout_s: float = 60, stall_s: float = 60
) -> tuple[Guarded, Inner, Wire]:
    inner, wire = Inner(), Wire(address)
    guarded = Guarded(inner, gate, timeout_s, stall_s)
    guarded.connection_made(wire)
    return guarded, inner, wire


def test_everything_passes_through_in_order() -> None:
    async def main() -> None:
        guarded, inner, wire = connect(Gate(10, 10), "198.51.100.1")
        guarded.data_received(b"GET")
        guarded.requested()
        guarded.pause_writing()
        guarded.resume_writing()
        guarded.eof_received()
        guarded.connection_lost(None)
        assert inner.seen == ["made", b"GET", "pause", "resume", "eof", "lost"]
        assert not wire.aborted

    asyncio.run(main())


def test_one_address_may_have_so_many_and_all_together_so_many() -> None:
    async def main() -> None:
        gate = Gate(3, 2)
        first = [connect(gate, "198.51.100.1") for _ in range(3)]
        assert [wire.aborted for _, _, wire in first] == [False, False, True]
        assert first[2][1].seen == [], "aiohttp never hears of it"
        first[2][0].data_received(b"GET")
        first[2][0].connection_lost(None)
        assert first[2][1].seen == []
        other = [connect(gate, f"198.51.100.{number}") for number in (2, 3)]
        assert [wire.aborted for _, _, wire in other] == [False, True]
        for guarded, _, _ in (*first[:2], other[0]):
            guarded.connection_lost(None)
        assert gate.open == 0
        assert not connect(gate, "198.51.100.1")[2].aborted

    asyncio.run(main())


def test_many_may_stand_behind_a_proxy() -> None:
    async def main() -> None:
        gate = Gate(100, 1, lambda address: address == "10.0.0.1")
        assert not any(connect(gate, "10.0.0.1")[2].aborted for _ in range(50))

    asyncio.run(main())


@pytest.mark.parametrize("asks", [True, False])
def test_who_never_asks_is_cut_off(asks: bool) -> None:
    async def main() -> None:
        guarded, _, wire = connect(Gate(1, 1), "198.51.100.1", timeout_s=0.01)
        if asks:
            guarded.requested()
        await asyncio.sleep(0.05)
        assert wire.aborted is not asks

    asyncio.run(main())


@pytest.mark.parametrize("goes_on", [True, False])
def test_who_reads_nothing_is_cut_off(goes_on: bool) -> None:
    async def main() -> None:
        guarded, _, wire = connect(Gate(1, 1), "198.51.100.1", stall_s=0.01)
        guarded.requested()
        guarded.pause_writing()
        if goes_on:
            guarded.resume_writing()
        await asyncio.sleep(0.05)
        assert wire.aborted is not goes_on

    asyncio.run(main())


def test_each_connection_has_a_protocol_of_its_own() -> None:
    made = guarding(Inner, Gate(1, 1), 1.0, 1.0)
    assert made() is not made()
