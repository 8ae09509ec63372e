"""`vc bench` against a real bus: figures of real jobs, within the time, and on Ctrl-C those there are."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic

import pytest

from voicebus.client import Client
from voicebus.client.launch import Bus

VC = [sys.executable, "-m", "voicebus.client.cli"]
PACE = {"seconds_per_char": 0.01, "realtime_factor": 0.1}
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def bus() -> Iterator[Bus]:
    with Bus({"tone": 2}, settings=PACE) as running:
        yield running


@pytest.fixture
def vc_bench(bus: Bus, tmp_path: Path) -> Run:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        line = [*VC, "bench", "--broker", bus.frontend, *arguments]
        return subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=60)

    return run


def test_all_jobs_are_spoken_and_each_part_has_its_figures(vc_bench: Run) -> None:
    done = vc_bench(
        "-e", "tone", "-v", "amber", "--text", "Ten chars.", "--jobs", "40", "--window", "8", "--json"
    )
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert (found["workers"], found["slots"], found["errors"]) == (2, 2, {})
    (ping,) = found["ping"]
    assert ping["answered"] > 0
    assert 0 < ping["p50_s"] <= ping["p99_s"]
    assert found["single"]["jobs"] == 40
    # Ten characters are 0.1 s of audio, for which the engine takes 10 ms.
    assert found["single"]["first_audio"]["p50_s"] >= 0.004
    assert found["batch"]["jobs"] == 40
    assert 0 < found["batch"]["audio_s_per_s"] <= 20.5, "two workers at a tenth of real time"
    assert found["batch"]["stream_real_time_factor_p50"] >= 0.09


def test_people_are_told_in_a_few_lines(vc_bench: Run) -> None:
    done = vc_bench("-e", "tone", "--jobs", "5")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[0] for line in done.stdout.splitlines() if line[0] != " "] == [
        "bus", "ping", "single", "batch",
    ]  # fmt: skip


def test_it_ends_when_the_time_is_over(bus: Bus, vc_bench: Run) -> None:
    begun = monotonic()
    done = vc_bench("-e", "tone", "--text", "x" * 300, "--jobs", "100000", "--seconds", "2", "--json")
    assert monotonic() - begun < 10
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["batch"]["unfinished"] > 0
    assert found["errors"] == {}
    assert found["batch"]["seconds"] <= 2
    with Client(bus.frontend) as client:
        assert client.status()["jobs"]["queued"] == 0, "what was left is cancelled"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["-e", "tone", "-v", "nobody"], "unknown_voice"), (["-e", "tone", "--text", " "], "bad_request")],
)
def test_when_every_job_fails_it_says_why_and_ends_with_1(
    vc_bench: Run, arguments: list[str], code: str
) -> None:
    done = vc_bench(*arguments, "--seconds", "5", "--json")
    assert done.returncode == 1
    assert done.stderr.startswith(f"vc: {code}: ")
    assert len(done.stderr.splitlines()) == 1
    assert json.loads(done.stdout)["errors"] == {code: 3}


def test_a_bus_that_is_not_there_is_told_at_once(tmp_path: Path) -> None:
    line = [*VC, "bench", "--broker", "tcp://127.0.0.1:1"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("vc: broker_unreachable: ")


def test_ctrl_c_shows_the_figures_so_far(bus: Bus, tmp_path: Path) -> None:
    line = [*VC, "bench", "--broker", bus.frontend, "-e", "tone", "--jobs", "100000", "-s", "60", "--json"]
    with Client(bus.frontend) as client:
        done_before = client.status()["totals"]["done"]
        child = subprocess.Popen(
            line, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        give_up_at = monotonic() + 30
        while client.status()["totals"]["done"] < done_before + 5:
            assert monotonic() < give_up_at
        child.send_signal(signal.SIGINT)
        output, errors = child.communicate(timeout=20)
    assert child.returncode == 130, errors
    found = json.loads(output)
    assert found["interrupted"] is True
    assert found["single"]["jobs"] >= 1
    assert "Traceback" not in errors
