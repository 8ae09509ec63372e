"""Jobs over HTTP: handed over, watched, fetched, cancelled, and taken up again after a restart."""

from __future__ import annotations

import io
import json
import signal
import time
import wave
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile

from tests.edge.conftest import Speaker
from tests.edge.server import EdgeProcess
from voicebus.client import Client, Speech
from voicebus.client.launch import Bus
from voicebus.common.errors import BadRequest
from voicebus.common.text import SENTENCE_PAUSE_S
from voicebus.edge.jobs import told

LINES = [f"Line {number} of a short book." for number in range(12)]


def ended(http: httpx.Client, id: str) -> dict[str, Any]:
    """Wait for a job's end; bounded by the test's own limit."""
    while (job := http.get(f"/v1/jobs/{id}").json())["state"] == "running":
        time.sleep(0.05)
    return job


def test_a_list_of_lines_as_one_wav_and_as_a_zip(http: httpx.Client, spoken: Speaker) -> None:
    made = http.post("/v1/jobs", json={"input": LINES, "voice": "amber"})
    assert made.status_code == 202
    assert (made.json()["state"], made.json()["total"]) == ("running", len(LINES))
    job = ended(http, made.json()["id"])
    assert (job["state"], job["done"], job["failed"]) == ("done", len(LINES), 0)
    own = [spoken(line) for line in LINES]
    audio = http.get(f"/v1/jobs/{job['id']}/audio")
    assert audio.headers["content-disposition"] == f'attachment; filename="{job["id"]}.wav"'
    pause = np.zeros(int(SENTENCE_PAUSE_S * 24_000), np.int16)
    expected = np.concatenate([part for one in own for part in (one, pause)][:-1])
    with wave.open(io.BytesIO(audio.content)) as file:
        assert file.getnframes() == expected.size, "the header tells the true length"
        assert file.readframes(expected.size) == expected.tobytes()
    archive = zipfile.ZipFile(io.BytesIO(http.get(f"/v1/jobs/{job['id']}/audio?format=zip").content))
    assert archive.testzip() is None
    names = sorted(archive.namelist())
    assert names == [*(f"{number:05}.wav" for number in range(1, 13)), "manifest.jsonl"]
    for name, samples in zip(names, own, strict=False):
        assert np.array_equal(soundfile.read(io.BytesIO(archive.read(name)), dtype="int16")[0], samples)


def test_lines_may_differ_and_a_line_that_fails_is_told(http: httpx.Client, spoken: Speaker) -> None:
    lines = [{"text": LINES[0], "voice": "basil", "id": "intro"}, {"text": LINES[1], "language": "xx-none"}]
    job = ended(http, http.post("/v1/jobs", json={"input": lines, "voice": "amber"}).json()["id"])
    assert (job["done"], job["failed"]) == (1, 1)
    assert sum(job["errors"].values()) == 1
    archive = zipfile.ZipFile(io.BytesIO(http.get(f"/v1/jobs/{job['id']}/audio?format=zip").content))
    assert np.array_equal(
        soundfile.read(io.BytesIO(archive.read("00001-intro.wav")), dtype="int16")[0],
        spoken(LINES[0], "basil"),
    )


def test_a_book_in_one_text(http: httpx.Client) -> None:
    text = " ".join(LINES * 20)
    job = ended(http, http.post("/v1/jobs", json={"input": text}).json()["id"])
    assert (job["state"], job["done"]) == ("done", job["total"])
    assert job["total"] > 5, "cut into parts: one of hours would be held in memory whole"
    audio = http.get(f"/v1/jobs/{job['id']}/audio").content
    assert soundfile.info(io.BytesIO(audio)).duration == pytest.approx(job["audio_s"], rel=0.05)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 400, "bad_request"),
        ({"input": []}, 400, "bad_request"),
        ({"input": "  "}, 400, "bad_request"),
        ({"input": ["fine", " "]}, 400, "bad_request"),
        ({"input": "a", "voice": "nobody"}, 404, "unknown_voice"),
        ({"input": [{"text": "a", "voice": "nobody"}]}, 404, "unknown_voice"),
        ({"input": "a", "response_format": "exe"}, 400, "bad_request"),
    ],
)
def test_mistakes_are_told_before_anything_is_spoken(
    http: httpx.Client, body: dict[str, Any], status: int, code: str
) -> None:
    before = len(http.get("/v1/jobs").json()["jobs"])
    answer = http.post("/v1/jobs", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert len(http.get("/v1/jobs").json()["jobs"]) == before


def test_a_job_that_is_cancelled_keeps_what_was_spoken(bus: Bus, http: httpx.Client) -> None:
    job = http.post("/v1/jobs", json={"input": ["First.", "And then it is STUCK."]}).json()
    assert http.get(f"/v1/jobs/{job['id']}/audio").json()["error"]["code"] == "conflict"
    while http.get(f"/v1/jobs/{job['id']}").json()["done"] < 1:
        time.sleep(0.05)
    assert http.delete(f"/v1/jobs/{job['id']}").json()["state"] == "cancelled"
    assert http.get(f"/v1/jobs/{job['id']}/audio").status_code == 200
    assert http.get("/v1/jobs/../../etc/passwd/audio").status_code == 404
    assert http.get("/v1/jobs/" + "0" * 32).json()["error"]["code"] == "unknown_job"


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[tuple[Bus, Path]]:
    settings = {"seconds_per_char": 0.01, "realtime_factor": 0.5}
    config = {"broker": {"default_engine": "tone", "journal": str(tmp_path / "journal")}}
    with Bus(engines={"tone": 2}, settings=settings, config=config) as bus:
        yield bus, tmp_path


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_a_job_outlives_the_edge_and_the_broker(slow: tuple[Bus, Path], spoken: Speaker, how: str) -> None:
    """An edge that was stopped in order marked its jobs as failed: closing their client raised in them."""
    bus, folder = slow
    lines = [f"Line {number} of a book that outlives its shop." for number in range(60)]
    with EdgeProcess(bus, folder=folder) as edge:
        with edge.client() as http:
            id = http.post("/v1/jobs", json={"input": lines, "voice": "amber"}).json()["id"]
            assert http.get(f"/v1/jobs/{id}").json()["durable"] is True
            while http.get(f"/v1/jobs/{id}").json()["done"] < 5:
                time.sleep(0.05)
        assert edge.child is not None
        if how == "killed":
            edge.child.kill()
        else:
            edge.child.signal(signal.SIGTERM)
            assert edge.child.wait(30) == 0
        bus.kill_broker()
        bus.start_broker()
        edge.start()
        with edge.client() as http:
            job = ended(http, id)
            assert (job["state"], job["done"]) == ("done", 60)
            archive = zipfile.ZipFile(io.BytesIO(http.get(f"/v1/jobs/{id}/audio?format=zip").content))
    manifest = [json.loads(line) for line in archive.read("manifest.jsonl").splitlines()]
    assert sorted(record["index"] for record in manifest) == list(range(1, 61)), "each line once"
    for number, line in enumerate(lines, 1):
        samples, _ = soundfile.read(io.BytesIO(archive.read(f"{number:05}.wav")), dtype="int16")
        assert np.array_equal(samples, spoken(line))


def test_a_durable_job_that_is_cancelled_is_withdrawn_at_the_broker(slow: tuple[Bus, Path]) -> None:
    """It went on there: the closed client raised, and that left the withdrawal out. So did a broker away."""
    bus, folder = slow
    lines = [f"Line {number} of a book that nobody wants any more." for number in range(400)]
    with EdgeProcess(bus, folder=folder) as edge, edge.client() as http, Client(bus.frontend) as client:
        for broker_is_away in (False, True):
            job = http.post("/v1/jobs", json={"input": lines, "voice": "amber"}).json()
            while http.get(f"/v1/jobs/{job['id']}").json()["done"] < 2:
                time.sleep(0.05)
            if broker_is_away:
                bus.kill_broker()
            assert http.delete(f"/v1/jobs/{job['id']}").json()["state"] == "cancelled"
            if broker_is_away:
                bus.start_broker()
            while client.status()["jobs"]["open"]:
                time.sleep(0.05)
            done = client.status()["totals"]["done"]
            assert done < len(lines) / 2


def test_a_short_job_does_not_wait_for_books(slow: tuple[Bus, Path]) -> None:
    bus, folder = slow
    book = {
        "input": [f"Line {number} of a very long book indeed." for number in range(2000)],
        "voice": "amber",
    }
    with EdgeProcess(bus, folder=folder) as edge, edge.client() as http:
        books = [http.post("/v1/jobs", json=book).json()["id"] for _ in range(5)]
        short = http.post("/v1/jobs", json={"input": "A line.", "voice": "amber"}).json()["id"]
        assert ended(http, short)["state"] == "done"
        assert {http.get(f"/v1/jobs/{id}").json()["state"] for id in books} == {"running"}
        for id in books:
            http.delete(f"/v1/jobs/{id}")


def test_what_has_ended_makes_room_and_can_be_forgotten(bus: Bus) -> None:
    """A thousand jobs a week stopped everybody's, for what had ended was kept and counted."""
    with EdgeProcess(bus, edge={"max_jobs": 3}) as edge, edge.client() as http:
        ids: list[str] = []
        for number in range(5):
            made = http.post("/v1/jobs", json={"input": f"Number {number}."})
            assert made.status_code == 202
            ids.append(made.json()["id"])
            ended(http, ids[-1])
        assert [job["id"] for job in http.get("/v1/jobs").json()["jobs"]] == ids[:1:-1]
        assert http.delete(f"/v1/jobs/{ids[-1]}").status_code == 200
        assert http.get(f"/v1/jobs/{ids[-1]}").status_code == 404
        assert not (edge.folder / "jobs" / ids[-1]).exists()


def test_sound_that_is_not_there_breaks_the_answer_off(bus: Bus) -> None:
    """A second answer was written into the first, so that a damaged file looked whole."""
    with EdgeProcess(bus) as edge, edge.client() as http:
        job = ended(http, http.post("/v1/jobs", json={"input": LINES}).json()["id"])
        (edge.folder / "jobs" / job["id"] / "00007.wav").unlink()
        for format in ("wav", "zip"):
            with pytest.raises(httpx.RemoteProtocolError):
                http.get(f"/v1/jobs/{job['id']}/audio?format={format}")
        assert http.get("/livez").status_code == 200


def test_a_full_disk_is_named_as_one_and_no_path_is() -> None:
    with pytest.raises(BadRequest) as raised:
        Speech(bytes(9600), 24_000, "tone", "worker").save("/dev/full/line.wav")
    assert told(raised.value)[0] == "storage_error"
    assert "/dev/full" not in told(raised.value)[1]
