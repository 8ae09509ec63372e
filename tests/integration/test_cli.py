"""The command line against a real bus: whole files, batches that survive a kill, errors of one line."""

from __future__ import annotations

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

import pytest

from voicebus.client import Client
from voicebus.client.launch import Bus
from voicebus.client.processes import Child

ROOT = Path(__file__).parents[2]
QUIET = {"logging": {"file": None}}
VC = [sys.executable, "-m", "voicebus.client.cli"]


@pytest.fixture(scope="module")
def bus() -> Iterator[Bus]:
    with Bus({"tone": 2}, settings={"seconds_per_char": 0.01, "realtime_factor": 0.05}) as running:
        yield running


@pytest.fixture
def vc(bus: Bus, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(command: str, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        line = [*VC, command, "--broker", bus.frontend, *arguments]
        return subprocess.run(line, cwd=tmp_path, input=stdin, capture_output=True, text=True, timeout=60)

    return run


Run = Callable[..., subprocess.CompletedProcess[str]]


def one_line(done: subprocess.CompletedProcess[str], code: int, says: str) -> None:
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith("vc: "), done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 2


def until(true: Callable[[], bool], timeout_s: float = 30) -> None:
    """Wait for what another process does to files."""
    pause, give_up_at = threading.Event(), monotonic() + timeout_s
    while not true():
        assert monotonic() < give_up_at
        pause.wait(0.01)


def test_a_text_becomes_a_file_and_one_line_of_figures(vc: Run, tmp_path: Path) -> None:
    done = vc("say", "Hello there. How are you?", "-e", "tone", "-v", "amber", "-o", "a.wav")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("a.wav: engine=tone worker=tone-")
    for figure in ("voice=amber", "audio=", "first_audio=", "real_time_factor="):
        assert figure in done.stdout
    with wave.open(str(tmp_path / "a.wav")) as file:
        assert (file.getnchannels(), file.getsampwidth()) == (1, 2)
        assert file.getnframes() > 0.2 * file.getframerate()


def test_text_comes_from_stdin_and_audio_goes_to_stdout(bus: Bus, tmp_path: Path) -> None:
    line = [*VC, "say", "-", "-o", "-", "-e", "tone", "--broker", bus.frontend]
    done = subprocess.run(line, input="Grüße.".encode(), capture_output=True, cwd=tmp_path, timeout=60)
    assert done.returncode == 0
    assert done.stdout[:4] == b"RIFF"
    assert done.stderr.startswith(b"stdout: engine=tone")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["Hi.", "-e", "tone", "-v", "nobody"], "unknown_voice"),
        (["Hi.", "-e", "nothing"], "unknown_engine"),
        (["Hi.", "-e", "tone", "--option", "no_such_option=1"], "bad_request"),
        (["   ", "-e", "tone"], "bad_request"),
        (["Hi" * 190, "-e", "tone", "--deadline", "0.05"], "deadline_exceeded"),
    ],
)
def test_a_failure_is_one_line_and_no_file(vc: Run, tmp_path: Path, arguments: list[str], code: str) -> None:
    one_line(vc("say", *arguments, "-o", "a.wav"), 1, f"{code}: ")
    assert not list(tmp_path.iterdir())


def test_a_broker_that_is_not_there_is_told_in_a_few_seconds(tmp_path: Path) -> None:
    line = [*VC, "say", "Hi.", "--broker", "tcp://127.0.0.1:1", "-o", str(tmp_path / "a.wav")]
    done = subprocess.run(line, capture_output=True, text=True, timeout=30)
    one_line(done, 1, "broker_unreachable: no broker answers at tcp://127.0.0.1:1")
    assert not list(tmp_path.iterdir())


def test_status_lists_the_workers(vc: Run) -> None:
    done = vc("status", "--json")
    assert done.returncode == 0
    assert {"tone-0", "tone-1"} <= {worker["id"] for worker in json.loads(done.stdout)["workers"]}
    assert "tone-0" in vc("status").stdout


def test_a_worker_is_drained_by_its_name(bus: Bus, vc: Run) -> None:
    number = bus.start_worker("tone", name="short-lived")
    assert vc("drain", "short-lived").returncode == 0
    assert bus.workers[number].wait(30) == 0
    assert vc("drain", "short-lived").returncode == 1


def test_a_batch_killed_half_way_and_taken_up_has_every_line_once(bus: Bus, vc: Run, tmp_path: Path) -> None:
    lines = [f"This is line number {number}." for number in range(300)]
    (tmp_path / "lines.txt").write_text("\n".join(lines))
    manifest = tmp_path / "out" / "manifest.jsonl"
    command = ("lines.txt", "-o", "out", "-e", "tone", "-v", "amber")
    first = subprocess.Popen([*VC, "batch", "--broker", bus.frontend, *command], cwd=tmp_path)
    until(lambda: manifest.exists() and manifest.read_bytes().count(b"\n") >= 60)
    first.send_signal(signal.SIGKILL)
    first.wait()
    before = {row["index"] for row in map(json.loads, manifest.read_bytes().split(b"\n")[:-1])}
    assert 60 <= len(before) < 300, "the test must cut a batch in two, or it shows nothing"
    one_line(vc("batch", *command), 2, "--resume")
    done = vc("batch", *command, "--resume")
    assert done.returncode == 0, done.stderr
    assert f"300 of 300 lines done ({len(before)} from before)" in done.stdout
    records = [json.loads(row) for row in manifest.read_text().splitlines()]
    assert sorted(record["index"] for record in records) == list(range(1, 301))
    assert {record["status"] for record in records} == {"done"}
    files = sorted(path.name for path in manifest.parent.glob("*.wav"))
    assert files == sorted(record["file"] for record in records)
    assert len(list(manifest.parent.iterdir())) == 301, "no half-written file is left"
    for record in records:
        with wave.open(str(manifest.parent / record["file"])) as file:
            assert file.getnframes() == pytest.approx(
                0.01 * 24_000 * len(lines[record["index"] - 1]), rel=0.2
            )


def test_ctrl_c_ends_a_batch_with_the_line_that_takes_it_up(bus: Bus, tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("A line that takes some time.\n" * 400)
    manifest = tmp_path / "out" / "manifest.jsonl"
    line = [*VC, "batch", "--broker", bus.frontend, "lines.txt", "-o", "out", "-e", "tone"]
    batch = subprocess.Popen(line, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    until(lambda: manifest.exists() and manifest.stat().st_size > 0)
    batch.send_signal(signal.SIGINT)
    _, stderr = batch.communicate(timeout=30)
    assert batch.returncode == 130
    assert "go on with: vc batch lines.txt -o out --resume" in stderr
    assert "Traceback" not in stderr
    with Client(bus.frontend) as client:
        until(lambda: client.status()["jobs"]["open"] == 0)


def test_lines_that_fail_are_counted_by_code_and_done_again(vc: Run, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,voice,id\nHello.,amber,x\n,amber,empty\nHello.,nobody,who\n")
    done = vc("batch", "a.csv", "-o", "out", "-e", "tone", "--format", "flac")
    one_line(done, 1, "2 of 3 lines failed: bad_request 1, unknown_voice 1")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["00001-x.flac", "manifest.jsonl"]
    (tmp_path / "a.csv").write_text("text,voice,id\nHello.,amber,x\nNow.,amber,empty\nHello.,basil,who\n")
    done = vc("batch", "a.csv", "-o", "out", "-e", "tone", "--format", "flac", "--resume")
    assert done.returncode == 0, done.stderr
    assert "3 of 3 lines done (1 from before)" in done.stdout


def test_the_raw_client_speaks_the_protocol_without_us(bus: Bus, tmp_path: Path) -> None:
    script = [sys.executable, str(ROOT / "examples" / "raw_client.py"), "--broker", bus.frontend]
    done = subprocess.run(
        [*script, "--engine", "tone", "--voice", "amber", "-o", "raw.wav"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    with wave.open(str(tmp_path / "raw.wav")) as file:
        assert file.getnframes() > 0
    failed = subprocess.run([*script, "--engine", "nothing"], capture_output=True, text=True, cwd=tmp_path)
    assert failed.returncode == 1
    assert failed.stderr.startswith("raw_client: unknown_engine: ")


def config(folder: Path, **sections: object) -> Path:
    file = folder / "config.yaml"
    file.write_text(json.dumps({**QUIET, **sections}))
    return file


def test_up_runs_a_bus_restarts_what_dies_and_drains_on_ctrl_c(tmp_path: Path) -> None:
    ports = {"frontend": "tcp://127.0.0.1:*", "backend": "tcp://127.0.0.1:*"}
    file = config(tmp_path, broker=ports, workers={"tone": {"count": 2}}, edge={"enabled": False})
    up = Child("up", [*VC, "up", "--config", str(file)], "voicebus ready: ")
    try:
        frontend = up.wait_ready(60).split()[2]
        with Client(frontend) as client:
            assert client.say("Hello.", engine="tone").samples.size
            name = client.status()["workers"][0]["id"]
            (pid,) = children_of(up.pid, name)
            os.kill(pid, signal.SIGKILL)
            until(lambda: children_of(up.pid, name) not in ([], [pid]))
            until(lambda: len(client.status()["workers"]) == 2)
            assert client.say("Hello.", engine="tone").samples.size
        everyone = children_of(up.pid, "")
        up.signal(signal.SIGINT)
        assert up.wait(60) == 0
        assert not [pid for pid in everyone if alive(pid)]
    finally:
        up.end(10)
    assert not any("Traceback" in line for line in up.lines)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of their parent's death")
def test_a_killed_up_leaves_no_process_behind(tmp_path: Path) -> None:
    """Its workers went on for ever, and the next `vc up` found their names taken."""
    ports = {"frontend": "tcp://127.0.0.1:*", "backend": "tcp://127.0.0.1:*"}
    file = config(tmp_path, broker=ports, workers={"tone": {}}, edge={"enabled": False})
    up = Child("up", [*VC, "up", "--config", str(file)], "voicebus ready: ")
    try:
        up.wait_ready(60)
        everyone = children_of(up.pid, "")
        assert len(everyone) == 2
        up.kill()
        until(lambda: not [pid for pid in everyone if alive(pid)])
    finally:
        up.end(10)


def test_up_says_in_a_line_why_it_cannot_start(bus: Bus, tmp_path: Path) -> None:
    taken = config(tmp_path, broker={"frontend": bus.frontend, "backend": "tcp://127.0.0.1:*"})
    up = subprocess.run([*VC, "up", "--config", str(taken)], capture_output=True, text=True, timeout=60)
    one_line(up, 2, "config_error: cannot listen on")
    ports = {"frontend": "tcp://127.0.0.1:*", "backend": "tcp://127.0.0.1:*"}
    file = config(tmp_path, broker=ports, edge={"enabled": False})
    no_models = {**os.environ, "VOICEBUS_MODELS": str(tmp_path / "none")}
    up = subprocess.run(
        [*VC, "up", "--config", str(file), "--engine", "kokoro"],
        capture_output=True,
        text=True,
        timeout=120,
        env=no_models,
    )
    one_line(up, 1, "model_missing: ")
    assert "vc models pull kokoro" in up.stderr


def processes() -> dict[int, tuple[int, str]]:
    """Parent and command line by pid. Zombies do not count: in a container nobody may reap them."""
    found: dict[int, tuple[int, str]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if state not in "ZX":
            found[int(folder.name)] = (int(parent), command)
    if found:
        return found
    listed = ["ps", "-A", "-ww", "-o", "pid=,ppid=,stat=,args="]
    rows = subprocess.run(listed, capture_output=True, text=True, check=True).stdout.splitlines()
    for pid, parent, state, command in (row.split(None, 3) for row in rows):
        if not state.startswith("Z"):
            found[int(pid)] = (int(parent), command)
    return found


def children_of(parent: int, name: str) -> list[int]:
    """The pids of a process's children whose command line has `name`."""
    return [pid for pid, (of, command) in processes().items() if of == parent and name in command]


def alive(pid: int) -> bool:
    return pid in processes()
