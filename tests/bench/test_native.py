"""The native benchmark counts right, on real brokers: every request answered once, with all its bytes.

Nothing about time is asserted, except that a worker which takes its time cannot be faster than that.
"""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import zmq

from bench.brokers.stands import (
    BUNDLED,
    C_BROKER,
    PIRATE,
    PROXY,
    PROXY_CURVE,
    PROXY_ONE_FRAME,
    PROXY_PARTS,
    VOICEBUS,
    Party,
    Stand,
)
from bench.hot import run_load
from bench.native import CannotBuildError, Programs, build
from bench.processes import Running

SHORT: dict[str, Any] = {"warmup_s": 0.05, "span_s": 0.25}
ALL = (VOICEBUS, BUNDLED, PROXY, PROXY_ONE_FRAME, PROXY_PARTS, PROXY_CURVE, C_BROKER, PIRATE)
KEPT = ("failed", "strays", "wrong_bytes", "out_of_order", "missing")


@pytest.fixture(scope="module")
def programs() -> Programs:
    try:
        return build()
    except CannotBuildError as error:
        pytest.skip(str(error))


def named(party: Party) -> str:
    return party.name


def must_be_right(got: dict[str, Any], party: Party, answer_bytes: int) -> None:
    assert got["errors"] == 0, got
    assert got["answered"] == got["sent"] > 0
    assert 0 < got["answers"] <= got["answered"]
    assert got["received_bytes"] == got["answered"] * answer_bytes
    assert got["accepted"] == (got["sent"] if party.is_voicebus else 0)
    assert 0 < got["p50_us"] <= got["p99_us"] <= got["max_us"]
    assert got["cpu_ns"] > 0


@pytest.mark.parametrize("party", ALL, ids=named)
def test_every_request_is_answered_once(party: Party, programs: Programs) -> None:
    credit = 1 if party is PIRATE else 8
    with Stand(party, programs, answer_bytes=200, workers=3, credit=credit) as stand:
        got = run_load(programs, stand, window=32, answer_bytes=200, connections=3, **SHORT)
    must_be_right(got, party, 200)


@pytest.mark.parametrize("party", [VOICEBUS, BUNDLED, PROXY, C_BROKER], ids=named)
def test_the_bytes_of_large_answers_add_up(party: Party, programs: Programs) -> None:
    answer_bytes = 2 * 256 * 1024 + 2000  # three chunks, the last one small
    with Stand(party, programs, answer_bytes=answer_bytes, workers=2, credit=2) as stand:
        got = run_load(programs, stand, window=4, answer_bytes=answer_bytes, **SHORT)
    must_be_right(got, party, answer_bytes)


@pytest.mark.parametrize("party", [BUNDLED, C_BROKER], ids=named)
def test_an_open_loop_sends_what_is_due_and_no_more(party: Party, programs: Programs) -> None:
    with Stand(party, programs, answer_bytes=200, workers=1, credit=16) as stand:
        begun = time.monotonic()
        got = run_load(programs, stand, window=1, rate_per_s=500, answer_bytes=200, **SHORT)
    must_be_right(got, party, 200)
    # A stall at the edge of the span may add what fell due in it, but nothing that was due may be left out.
    assert 0.3 * 500 - 1 <= got["sent"] <= 500 * (time.monotonic() - begun)
    assert got["latencies"] >= 0.25 * 500 - 1


def test_only_who_reads_bundles_is_sent_them(programs: Programs) -> None:
    for party in (VOICEBUS, BUNDLED):
        with Stand(party, programs, answer_bytes=200, workers=1, credit=32) as stand:
            got = run_load(programs, stand, window=32, answer_bytes=200, **SHORT)
        assert (got["received_per_bundle"] > 1) == party.bundles
        assert (got["sent_per_bundle"] > 0) == party.bundles


@pytest.mark.parametrize("party", [VOICEBUS, C_BROKER], ids=named)
def test_a_worker_that_takes_time_is_no_faster_than_that(party: Party, programs: Programs) -> None:
    slots = 2
    credit = slots + 1 if party.is_voicebus else slots
    with Stand(party, programs, answer_bytes=200, workers=1, credit=credit, service_us=5000) as stand:
        begun = time.monotonic()
        got = run_load(programs, stand, window=8, answer_bytes=200, **SHORT)
        most = slots * (time.monotonic() - begun) / 0.005
    must_be_right(got, party, 200)
    assert got["answered"] <= most


def test_an_answer_of_another_size_is_an_error(programs: Programs) -> None:
    for party in (VOICEBUS, C_BROKER):
        with Stand(party, programs, answer_bytes=200, workers=1, credit=4) as stand:
            got = run_load(programs, stand, window=4, answer_bytes=202, **SHORT)
        assert got["wrong_bytes"] == got["answered"] > 0
        assert got["errors"] == got["wrong_bytes"]


def test_a_refused_job_is_an_error_with_its_code(programs: Programs) -> None:
    with Stand(VOICEBUS, programs, answer_bytes=200, workers=1, credit=4) as stand:
        command = [str(programs.load), "--connect", stand.frontend, "--dialect", "vb1", "--seconds", "0.1"]
        # Fewer than the broker bears of one connection.
        some = ["--rate", "100", "--warmup", "0", "--voice", "No Voice!"]
        done = subprocess.run([*command, *some], capture_output=True, text=True, timeout=30, check=True)
    got = json.loads(done.stdout)
    assert got["first_code"] == "protocol_error"
    assert got["failed"] == got["answered"] == got["errors"] > 0


Answerer = Callable[[int, list[bytes]], list[list[bytes]]]


@pytest.fixture
def broken_broker() -> Iterator[Callable[[Answerer], str]]:
    """A broker in this process that answers as the test wishes."""
    context = zmq.Context()
    ended = threading.Event()
    threads: list[threading.Thread] = []

    def start(answer: Answerer) -> str:
        socket = context.socket(zmq.ROUTER)
        port = socket.bind_to_random_port("tcp://127.0.0.1")

        def serve() -> None:
            number = 0
            while not ended.is_set():
                if socket.poll(20):
                    for message in answer(number, socket.recv_multipart()):
                        socket.send_multipart(message)
                    number += 1
            socket.close(0)

        threads.append(threading.Thread(target=serve))
        threads[-1].start()
        return f"tcp://127.0.0.1:{port}"

    yield start
    ended.set()
    for thread in threads:
        thread.join(5)
    context.destroy(0)


def asked(programs: Programs, address: str) -> dict[str, Any]:
    command = [str(programs.load), "--connect", address, "--window", "4", "--warmup", "0", "--seconds", "0.1"]
    done = subprocess.run(
        [*command, "--patience", "0.3"], capture_output=True, text=True, timeout=30, check=True
    )
    return json.loads(done.stdout)


def test_a_second_answer_is_an_error(programs: Programs, broken_broker: Callable[[Answerer], str]) -> None:
    got = asked(programs, broken_broker(lambda _number, message: [message, message]))
    assert got["strays"] == got["answered"] > 0
    assert [got[name] for name in KEPT if name != "strays"] == [0, 0, 0, 0]


def test_an_answer_that_does_not_come_is_an_error(
    programs: Programs, broken_broker: Callable[[Answerer], str]
) -> None:
    got = asked(programs, broken_broker(lambda number, message: [] if number == 2 else [message]))
    assert got["missing"] == 1 == got["errors"]
    assert got["answered"] == got["sent"] - 1 > 0


def test_the_c_broker_gives_the_work_of_lost_workers_to_others(programs: Programs) -> None:
    with Stand(C_BROKER, programs, answer_bytes=200, workers=1, credit=4) as stand:
        command = [str(programs.worker), "--connect", stand.backend, "--dialect", "ready", "--slots", "4"]
        with Running(command, output=subprocess.PIPE) as other:
            other.line("ready", 10)
        got = run_load(programs, stand, window=8, answer_bytes=200, **SHORT)
    must_be_right(got, C_BROKER, 200)
