"""Durable jobs on real processes: clients and brokers are killed, and every job is spoken and fetched."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from voicebus.client import AsyncClient, Client, Speech
from voicebus.client.launch import Bus
from voicebus.client.processes import Child
from voicebus.common.audio import to_s16
from voicebus.common.errors import BusError, Cancelled, UnknownJob
from voicebus.common.voices import VoiceStore
from voicebus.workers.engine import Reference, Request
from voicebus.workers.engines.tone import ToneEngine

if TYPE_CHECKING:
    from voicebus.common.audio import Pcm

VC = [sys.executable, "-m", "voicebus.client.cli"]
PACE = {"seconds_per_char": 0.01, "realtime_factor": 0}
SLOW = {"seconds_per_char": 0.01, "realtime_factor": 1}
CONFIG = {"workers": {"tone": {"count": 1}}}
SUBMIT = """
import sys
from voicebus.client import Client
address, count = sys.argv[1], int(sys.argv[2])
bus = Client(address)
jobs = [
    bus.submit(f"Line {number} of {number * 7919 % 1000}.", voice="amber", engine="tone", durable=True)
    for number in range(count)
]
for job in jobs:
    job.wait_accepted(60)
print("accepted " + " ".join(job.id for job in jobs), flush=True)
jobs[-1].result()
"""


def text_of(number: int) -> str:
    return f"Line {number} of {number * 7919 % 1000}."


@pytest.fixture(scope="module")
def spoken() -> Callable[[str], Pcm]:
    """What the engine itself makes of a line: the yardstick for what came over the bus."""
    engine = ToneEngine()
    engine.load(PACE)
    recording = VoiceStore().reference("amber")
    voice = engine.voice(Reference("amber", recording.samples, recording.rate_hz, recording.sha256))

    def speak(text: str) -> Pcm:
        return np.concatenate([to_s16(part) for part in engine.speak(Request(text, "en"), voice)])

    return speak


def until(true: Callable[[], bool], timeout_s: float = 60) -> None:
    """Wait for what other processes do."""
    pause, give_up_at = threading.Event(), monotonic() + timeout_s
    while not true():
        assert monotonic() < give_up_at
        pause.wait(0.02)


def test_a_thousand_jobs_outlive_their_client_and_their_broker(spoken: Callable[[str], Pcm]) -> None:
    with Bus({}, config=CONFIG) as bus:
        slow = bus.start_worker("tone", settings=SLOW)
        submitter = Child("submitter", [sys.executable, "-c", SUBMIT, bus.frontend, "1000"], "accepted ")
        try:
            ids = submitter.wait_ready(60).split()[1:]
        finally:
            submitter.kill()
        assert len(set(ids)) == 1000
        with Client(bus.frontend) as client:
            until(lambda: bool(client.jobs("done")))
            bus.kill_broker()
        bus.kill_worker(slow)
        bus.start_broker()
        with Client(bus.frontend) as client:
            assert len(client.jobs("queued")) > 900, "the test must kill a full queue, or it shows nothing"
            assert len(client.jobs()) == 1000
        bus.start_worker("tone", settings=PACE)

        async def fetch_all() -> list[Speech]:
            async with AsyncClient(bus.frontend) as client:
                return await asyncio.gather(*(client.job(id).result(60) for id in ids))

        results = asyncio.run(fetch_all())
        for number, speech in enumerate(results):
            assert np.array_equal(speech.samples, spoken(text_of(number))), number
        with Client(bus.frontend) as client:
            assert {job["state"] for job in client.jobs()} == {"done"}
            assert client.job(ids[500]).result(10).pcm == results[500].pcm, "fetched as often as wished"


@pytest.fixture(scope="module")
def running() -> Iterator[Bus]:
    with Bus({"tone": 1}, settings=SLOW | {"realtime_factor": 0.2}, config=CONFIG) as bus:
        yield bus


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def vc(running: Bus, tmp_path: Path) -> Run:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        line = [*VC, *arguments, "--broker", running.frontend]
        return subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=60)

    return run


def coded(done: subprocess.CompletedProcess[str], code: int, says: str) -> None:
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 2


def test_a_durable_batch_killed_and_resumed_speaks_no_line_twice(
    running: Bus, vc: Run, tmp_path: Path, spoken: Callable[[str], Pcm]
) -> None:
    lines = [text_of(number) for number in range(60)]
    long_line = " ".join(f"Sentence {number} of a long line is here." for number in range(20))
    lines[3] = long_line
    (tmp_path / "lines.txt").write_text("\n".join(lines))
    manifest = tmp_path / "out" / "manifest.jsonl"
    with Client(running.frontend) as client:
        accepted = client.status()["totals"]["accepted"]
        command = ("batch", "lines.txt", "-o", "out", "-e", "tone", "-v", "amber", "--durable")
        first = subprocess.Popen([*VC, *command, "--broker", running.frontend], cwd=tmp_path)
        until(lambda: manifest.exists() and manifest.read_bytes().count(b"\n") >= 5)
        first.send_signal(signal.SIGKILL)
        first.wait()
        before = {row["index"] for row in map(json.loads, manifest.read_bytes().split(b"\n")[:-1])}
        assert len(before) < 60, "the test must cut a batch in two, or it shows nothing"
        coded(vc(*command), 2, "--resume")
        # Nobody waits, and yet it goes on.
        until(lambda: client.status()["jobs"]["open"] == 0)
        done = vc(*command, "--resume")
        assert done.returncode == 0, done.stderr
        assert f"60 of 60 lines done ({len(before)} from before)" in done.stdout
        pieces = 59 + sum(len(record["jobs"]) for record in read(manifest) if record["index"] == 4)
        assert pieces > 60, "a long line has several jobs"
        assert client.status()["totals"]["accepted"] - accepted == pieces, "each job was made once"
    records = read(manifest)
    assert sorted(record["index"] for record in records) == list(range(1, 61))
    assert {record["status"] for record in records} == {"done"}
    assert len(list(manifest.parent.iterdir())) == 62, (
        "60 files, the manifest and the names; nothing half-written"
    )
    for record in records:
        if record["index"] != 4:
            assert np.array_equal(
                samples(manifest.parent / record["file"]), spoken(lines[record["index"] - 1])
            )


def read(manifest: Path) -> list[dict[str, Any]]:
    return [json.loads(row) for row in manifest.read_text().splitlines()]


def samples(path: Path) -> Pcm:
    with wave.open(str(path)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), dtype="<i2")


def test_jobs_are_listed_fetched_and_cancelled_by_id(
    running: Bus, vc: Run, tmp_path: Path, spoken: Callable[[str], Pcm]
) -> None:
    with Client(running.frontend) as client:
        kept = client.submit("Keep this.", voice="amber", engine="tone", durable=True)
        client.submit("x" * 400, engine="tone", durable=True).wait_accepted(30)
        last = client.submit("Not this.", voice="amber", engine="tone", durable=True)
        last.wait_accepted(30)
        cancelled = vc("jobs", "cancel", last.id)
        assert cancelled.returncode == 0, cancelled.stderr
        with pytest.raises(Cancelled):
            last.result(30)
        kept.result(30)
    got = vc("jobs", "get", kept.id, "-o", "kept.wav")
    assert got.returncode == 0, got.stderr
    assert np.array_equal(samples(tmp_path / "kept.wav"), spoken("Keep this."))
    listed = {job["id"]: job for job in json.loads(vc("jobs", "list", "--json").stdout)}
    assert (listed[kept.id]["state"], listed[kept.id]["durable"]) == ("done", True)
    assert listed[last.id]["code"] == "cancelled"
    found = json.loads(vc("jobs", "list", "--json", "--state", "cancelled").stdout)
    assert last.id in {job["id"] for job in found}
    assert {job["state"] for job in found} == {"cancelled"}
    assert kept.id in vc("jobs", "list").stdout
    coded(vc("jobs", "get", last.id, "-o", "no.wav"), 1, "cancelled: ")
    coded(vc("jobs", "get", "ab" * 16, "-o", "no.wav"), 1, "unknown_job: ")
    coded(vc("jobs", "cancel", kept.id), 1, "unknown_job: ")
    coded(vc("jobs", "get", "nonsense", "-o", "no.wav"), 1, "bad_request: ")
    assert not (tmp_path / "no.wav").exists()


def test_a_client_that_was_stopped_for_too_long_still_gets_its_durable_result() -> None:
    """It waited for ever: the broker had given its place away, and a durable job says nothing of that."""
    config = CONFIG | {"broker": {"client_timeout_s": 3.0}}
    wait = SUBMIT + '\nprint("result", len(jobs[-1].result().pcm), flush=True)\n'
    with Bus({}, config=config) as bus, Client(bus.frontend) as client:
        submitter = Child("submitter", [sys.executable, "-c", wait, bus.frontend, "1"], "accepted ")
        try:
            job = client.job(submitter.wait_ready(60).split()[1])
            assert client.status()["clients"] == 2
            submitter.signal(signal.SIGSTOP)
            until(lambda: client.status()["clients"] == 1)
            bus.start_worker("tone", settings=PACE)
            speech = job.result(30)
            submitter.signal(signal.SIGCONT)
            assert submitter.wait(60) == 0
            assert submitter.lines[-1] == f"result {len(speech.pcm)}"
        finally:
            submitter.signal(signal.SIGCONT)
            submitter.kill()


def test_a_client_that_is_closed_leaves_its_durable_jobs_and_a_cancel_ends_them(running: Bus) -> None:
    with Client(running.frontend) as client:
        leaving = Client(running.frontend)
        blocker = leaving.submit("y" * 300, engine="tone", durable=True)
        job = leaving.submit("Go on.", engine="tone", durable=True)
        plain = leaving.submit("Only for me.", engine="tone")
        for promised in (blocker, job):
            promised.wait_accepted(30)
        leaving.close()
        with pytest.raises(Cancelled, match=job.id):
            job.result(10)
        assert plain.done()
        assert client.job(job.id).result(30).pcm
        assert client.job(job.id).status()["state"] == "done"
        with pytest.raises(UnknownJob):
            client.job(os.urandom(16).hex()).result(30)

        async def cancel() -> BusError | None:
            async with AsyncClient(running.frontend) as bus:
                first = await bus.submit("z" * 300, engine="tone", durable=True)
                await first.wait_accepted(30)
                await bus.cancel(first.id)
                try:
                    await first.result(30)
                except BusError as error:
                    return error
                return None

        assert isinstance(asyncio.run(cancel()), Cancelled)
