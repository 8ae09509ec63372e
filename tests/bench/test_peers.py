"""The peers' benchmark: its own ends of VB1 keep the protocol, its tally notices, its ratios are ratios."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from bench.peers.catalogue import SYSTEMS
from bench.peers.install import REQUIREMENTS, Place, SkippedError
from bench.peers.load import Tally, in_bursts
from bench.peers.plan import (
    LARGE_BYTES,
    SINGLE,
    TEXT_BYTES,
    WINDOW,
    WINDOWED,
    Assignment,
    Phase,
    answer_of,
    number_of,
    text_of,
)
from bench.peers.report import OURS, PEERS, headline, table
from bench.peers.runner import fetch, limit_of, once, row_of
from bench.peers.systems import Started, System
from bench.peers.vb1 import ENGINE, INTERVAL_S, BareClient, EchoWorker
from voicebus.client import Client
from voicebus.client.launch import Bus


@pytest.fixture(params=["bundled", "plain"])
def bundled(request: pytest.FixtureRequest) -> bool:
    return request.param == "bundled"


@pytest.fixture
def bus(bundled: bool, tmp_path: Path) -> Iterator[Bus]:
    """A broker with the thin worker, which is drained at the end and must go then."""
    config = {"broker": {"journal": str(tmp_path), "default_engine": ENGINE}}
    with Bus(engines={}, config=config) as running:
        worker = threading.Thread(target=EchoWorker(running.backend, bundled).serve)
        worker.start()
        yield running
        with Client(running.frontend) as client:
            client.drain("thin")
        worker.join(10)
        assert not worker.is_alive()


@pytest.mark.parametrize("size_bytes", [TEXT_BYTES, LARGE_BYTES])
def test_thin_ends_of_vb1_get_every_job_done_once(bus: Bus, bundled: bool, size_bytes: int) -> None:
    client = BareClient(bus.frontend, bundled)
    texts = [(number, text_of(number, size_bytes)) for number in range(2 * WINDOW)]
    client.ask(texts)
    found: list[tuple[int, bytes]] = []
    while len(found) < len(texts):
        found += client.answers()
    client.close()
    assert sorted(found) == [(number, answer_of(text)) for number, text in texts]
    with Client(bus.frontend) as asking:
        totals = asking.status()["totals"]
    assert (totals["done"], totals["failed"], totals["retried"]) == (len(texts), 0, 0)


def test_the_thin_worker_serves_the_real_client(bus: Bus) -> None:
    texts = [text_of(number, TEXT_BYTES) for number in range(100)]
    with Client(bus.frontend) as client:
        results = list(client.map([text.decode() for text in texts], engine=ENGINE, window=WINDOW))
        assert [result.speech.pcm if result.speech else result.error for result in results] == texts
        # `say` would cut a text of several sentences: the one of the benchmark must stay whole.
        assert client.say(texts[7].decode(), engine=ENGINE).pcm == texts[7]


def test_the_thin_worker_outlives_an_idle_time_in_which_both_sides_beat(bus: Bus) -> None:
    with Client(bus.frontend) as client:
        assert client.say("000001 before!", engine=ENGINE).pcm == b"000001 before!"
        threading.Event().wait(2.5 * INTERVAL_S)
        assert client.say("000001 after..", engine=ENGINE).pcm == b"000001 after.."
        (worker,) = client.status()["workers"]
        assert worker["id"] == "thin"


@pytest.mark.parametrize("name", ["voicebus", "voicebus-bare", "voicebus-tone", "zmq.proxy"])
def test_a_system_is_measured_by_processes_of_its_own(name: str) -> None:
    system = next(system for system in SYSTEMS if system.name == name)
    phases = (Phase(SINGLE, TEXT_BYTES, 0.05, 0.02), Phase(WINDOWED, TEXT_BYTES, 0.05, 0))
    # What these systems need is installed with voicebus: the place of the peers' packages is not looked at.
    rows = once(system, Place("no python", Path("no packages")), phases)
    assert [(row["mode"], row["errors"], row["reason"]) for row in rows] == [
        (SINGLE, 0, ""),
        (WINDOWED, 0, ""),
    ]
    assert rows[1]["answers"] >= WINDOW
    for who in ("client", "middle", "worker"):
        assert rows[1][f"{who}_us_per_request"] > 0


def test_what_cannot_be_had_is_skipped_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    where = Place("no python", tmp_path / "debian")

    def start(_: object, place: Place) -> Started:
        raise SkippedError(place.server("no-server"))

    needy = System("needy", "", start, debian=("nats-server",))
    modest = System("modest", "", start)
    skipped = fetch([needy, modest], where, lambda _: None)
    assert list(skipped) == ["needy"]
    assert "nats-server comes as a Debian package" in skipped["needy"]
    with pytest.raises(SkippedError, match="no-server is not in the packages"):
        once(modest, where, [])


def test_every_package_that_a_system_needs_is_pinned() -> None:
    pinned = [line.split("==")[0] for line in REQUIREMENTS.read_text().splitlines() if "==" in line]
    assert {name for system in SYSTEMS for name in system.python} == set(pinned)


def test_texts_and_answers_have_their_sizes_and_numbers() -> None:
    for size_bytes in (TEXT_BYTES, LARGE_BYTES):
        text = text_of(1234, size_bytes)
        assert len(text) == TEXT_BYTES
        assert text.decode().strip() == text.decode()
        assert len(answer_of(text)) == size_bytes
        assert number_of(text) == number_of(answer_of(text)) == 1234


def test_an_assignment_survives_the_command_line() -> None:
    given = Assignment("tcp://somewhere", [1], [2, 3], [Phase(SINGLE, 200, 1.5, 0.5)], {"bundled": True})
    assert Assignment.from_json(given.to_json()) == given


class Faulty:
    """Answers one request wrongly, one twice, one never."""

    def __init__(self) -> None:
        self.waiting: list[tuple[int, bytes]] = []

    def ask(self, texts: Any) -> None:
        for number, text in texts:
            if number == 1:
                self.waiting.append((1, b"something else"))
            elif number != 3:
                self.waiting += [(number, answer_of(text))] * (2 if number == 2 else 1)

    def answers(self) -> list[tuple[int, bytes]]:
        if not self.waiting:
            raise TimeoutError
        found, self.waiting = self.waiting, []
        return found


def test_the_tally_counts_wrong_double_and_missing_answers() -> None:
    tally = Tally(Phase(WINDOWED, TEXT_BYTES, 0, 0), 0, count())
    in_bursts(Faulty())(tally)
    figures = tally.figures()
    assert (figures["answers"], figures["errors"]) == (WINDOW - 2, 3)
    assert figures["reason"].startswith("request 1 was answered wrongly")


def made_up(system: str, *rates: float) -> list[dict[str, Any]]:
    """Rows of a system; the large answers must not be taken for the small ones."""
    rows: list[dict[str, Any]] = []
    for rate in rates:
        for size_bytes, factor in ((TEXT_BYTES, 1.0), (LARGE_BYTES, 0.01)):
            figures = {
                "mode": WINDOWED,
                "size_bytes": size_bytes,
                "answers": int(rate * factor),
                "seconds": 1,
            }
            figures |= {"p50_us": 10.0, "p99_us": 20.0, "errors": 0, "reason": ""}
            figures |= {"client_ns": 700_000_000, "middle_ns": 300_000_000, "worker_ns": None}
            figures |= {"client_busy": 0.9, "middle_busy": 0.4, "worker_busy": None, "background_cores": 0.1}
            rows.append(row_of(system, figures))
    return rows


def test_the_headline_is_a_ratio_of_medians() -> None:
    rows = [
        *made_up("voicebus", 30_000, 1_000, 20_000),
        *made_up("voicebus-bare", 50_000),
        *made_up("nats", 9_000, 10_000, 400_000),
        *made_up("redis", 2_000),
    ]
    ratios = headline(rows)
    assert ratios == {
        "voicebus": {"ratio_to_nats": 2.0, "ratio_to_redis": 10.0},
        "voicebus-bare": {"ratio_to_nats": 5.0, "ratio_to_redis": 25.0},
    }
    assert headline(made_up("nats", 10_000)) == {}
    assert json.loads(json.dumps(ratios)) == ratios


def test_the_table_says_who_is_the_limit() -> None:
    header, _, line = table(made_up("voicebus", 30_000, 10_000, 20_000))
    assert header.count("|") == line.count("|")
    assert "20,000 (10,000–30,000)" in line
    assert "| client | 0.1 | 0 |" in line
    assert limit_of({"client": 0.3, "middle": 0.9}, 1.0) == "middle"
    assert limit_of({"client": 0.3, "middle": 0.4}, 0.7) == ""
    assert limit_of({"client": 0.3, "middle": 0.4}, os.cpu_count() or 1) == "cores"
    assert limit_of({}, 0.0) == ""


def test_names_are_unique_and_every_ratio_has_its_systems() -> None:
    names = [system.name for system in SYSTEMS]
    assert len(names) == len(set(names))
    assert {*OURS, *PEERS.values()} <= set(names)
