"""The real api_v2 application in its own process, killed and started again. Its models are stood in for."""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.workers.engines.gpt_sovits.talking import starting
from tests.workers.engines.gpt_sovits.tones import RATE_HZ, spoken
from voicebus.client import Client
from voicebus.client.launch import Bus
from voicebus.common.audio import to_s16
from voicebus.common.errors import BadRequest, EngineError, WorkerLost
from voicebus.workers.engine import Reference, Request
from voicebus.workers.engines.gpt_sovits.engine import GptSovitsEngine
from voicebus.workers.engines.gpt_sovits.reference import Voice

ROOT = Path(__file__).resolve().parents[4]
PYTHON = ROOT / ".cache/gpt-sovits/bin/python"
PATIENCE_S = 60.0

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(not PYTHON.exists(), reason="the server is not installed: make test-engines"),
]


class Process:
    """A server on a port of its own, which it keeps over restarts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.asked: queue.Queue[dict[str, Any]] = queue.Queue()
        self.log = open(folder / "log", "ab")  # noqa: SIM115 - closed with the server
        self.child: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, version: str = "v2ProPlus") -> None:
        """Start it; it takes a few seconds to answer."""
        self.child = subprocess.Popen(
            [str(PYTHON), str(Path(__file__).with_name("server.py")), str(self.port), str(self.folder)],
            stdout=subprocess.PIPE,
            stderr=self.log,
            env=os.environ | {"STAND_IN_VERSION": version, "OMP_NUM_THREADS": "1"},
            text=True,
        )
        threading.Thread(target=self._read, args=(self.child,), daemon=True).start()

    def _read(self, child: subprocess.Popen[str]) -> None:
        assert child.stdout is not None
        for line in child.stdout:
            self.asked.put(json.loads(line))

    def next_asked(self) -> dict[str, Any]:
        """Wait for the next request that reached the pipeline."""
        return self.asked.get(timeout=PATIENCE_S)

    def kill(self) -> None:
        """SIGKILL."""
        assert self.child is not None
        os.kill(self.child.pid, signal.SIGKILL)
        self.child.wait(PATIENCE_S)

    def let_go(self) -> None:
        """What holds goes on."""
        (self.folder / "go").touch()

    def hold(self) -> None:
        """What says HOLD holds."""
        (self.folder / "go").unlink(missing_ok=True)
        while not self.asked.empty():
            self.asked.get_nowait()


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    server = Process(tmp_path_factory.mktemp("gpt-sovits") / "server")
    server.start()
    yield server
    server.kill()
    server.log.close()


@pytest.fixture
def server(process: Process) -> Process:
    process.hold()
    assert process.child is not None
    if process.child.poll() is not None:
        process.start()
    return process


@pytest.fixture
def start(server: Process, tmp_path: Path) -> Iterator[Callable[..., GptSovitsEngine]]:
    with starting(tmp_path / "refs") as begin:
        yield partial(begin, server.url)


Start = Callable[..., GptSovitsEngine]


def voice(engine: GptSovitsEngine, seconds: float = 5, rate_hz: int = 24_000, text: str = "Said.") -> Voice:
    rng = np.random.default_rng(3)
    samples = (rng.normal(0, 0.1, int(seconds * rate_hz))).astype(np.float32)
    return engine.voice(Reference("v", samples, rate_hz, "0" * 64, "en-us", text))


def say(engine: GptSovitsEngine, text: str, known: Voice | None = None, **request: Any) -> Any:
    parts = list(engine.speak(Request(text, "en", **request), known or voice(engine)))
    return to_s16(np.concatenate([np.zeros(0, np.float32), *parts]))


def test_a_job_and_a_stream_are_their_own_text(start: Start, server: Process) -> None:
    engine = start()
    for mode in (False, True):
        for text in ("Hello there.", "Something else, then!"):
            assert np.array_equal(say(engine, text, streamed=mode), spoken(text))
    assert np.array_equal(say(engine, "Slow.", speed=0.5), spoken("Slow.", 0.5))
    asked = [server.next_asked() for _ in range(5)]
    assert [body["return_fragment"] for body in asked] == [False, False, True, True, False]
    assert {body["prompt_text"] for body in asked} == {"Said."}
    assert engine.figures()["references_placed"] == 1


@pytest.mark.parametrize("mode", [0, 1, 2, 3])
def test_every_streaming_mode_is_heard_early(start: Start, server: Process, mode: int) -> None:
    engine = start(streaming_mode=mode)
    parts = engine.speak(Request("HOLD on.", "en", streamed=True), voice(engine))
    heard: list[Any] = []
    if mode:
        heard.append(next(part for part in parts if part.size))
    else:
        next(parts)
    server.let_go()
    heard.extend(parts)
    assert np.array_equal(to_s16(np.concatenate(heard)), spoken("HOLD on."))


def test_options_reach_the_models_and_only_those_there_are(start: Start, server: Process) -> None:
    engine = start(top_p=0.9)
    say(engine, "a", options={"top_k": 3, "text_split_method": "cut0", "seed": 4}, take=1)
    asked = server.next_asked()
    assert [asked[name] for name in ("top_k", "top_p", "text_split_method", "seed")] == [3, 0.9, "cut0", 5]
    engine.check(Request("a", "en", options={"vits_parallel_infer": False}))
    with pytest.raises(BadRequest, match="no option 'sample_steps'"):
        engine.check(Request("a", "en", options={"sample_steps": 8}))


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("text", "said"), [("RAISE", "asked to fail"), ("SILENCE", "server's log")], ids=["raise", "silence"]
)
def test_a_pipeline_that_fails_is_an_error_and_never_silence(
    start: Start, text: str, said: str, streamed: bool
) -> None:
    engine = start()
    with pytest.raises(EngineError, match=said):
        say(engine, text, streamed=streamed)
    assert np.array_equal(say(engine, "Then it works."), spoken("Then it works."))


def test_a_pipeline_that_fails_in_the_middle_is_an_error(start: Start) -> None:
    with pytest.raises(EngineError, match="server's log"):
        say(start(), "BREAK", streamed=True)


@pytest.mark.parametrize(
    ("seconds", "rate_hz"),
    [(3.0, 16_000), (3.0, 44_100), (9.95, 22_050), (10.0, 48_000), (31.7, 44_100), (12, 96_000)],
)
def test_the_server_takes_whatever_was_cut(start: Start, seconds: float, rate_hz: int) -> None:
    engine = start()
    assert np.array_equal(say(engine, "Hi.", voice(engine, seconds, rate_hz)), spoken("Hi."))


@pytest.mark.parametrize("streamed", [False, True])
def test_a_reference_that_the_server_cannot_see_is_said(start: Start, tmp_path: Path, streamed: bool) -> None:
    engine = start(server_reference_dir=str(tmp_path / "elsewhere"))
    with pytest.raises(EngineError, match="the same folder"):
        say(engine, "Hi.", streamed=streamed)
    assert engine.figures()["requests"] == 2 + streamed, "it was placed again once"


def test_a_stopped_job_leaves_the_server_free(start: Start, server: Process) -> None:
    engine = start()
    parts = engine.speak(Request("HOLD this.", "en", streamed=True), voice(engine))
    next(part for part in parts if part.size)
    parts.close()  # type: ignore[attr-defined]
    server.let_go()
    assert np.array_equal(say(engine, "Next."), spoken("Next."))


def test_killed_while_it_infers_it_is_asked_again(start: Start, server: Process) -> None:
    engine = start()
    parts = engine.speak(Request("HOLD it.", "en"), voice(engine))
    heard = [next(parts)]
    server.next_asked()
    server.kill()
    server.let_go()
    server.start()
    heard.extend(parts)
    assert np.array_equal(to_s16(np.concatenate(heard)), spoken("HOLD it."))
    assert engine.figures()["outages"] == 1


def test_killed_before_it_was_heard_a_stream_is_asked_again(start: Start, server: Process) -> None:
    engine = start()
    parts = engine.speak(Request("Away.", "en", streamed=True), voice(engine))
    server.kill()
    heard = [next(parts)]
    server.start()
    heard.extend(parts)
    assert np.array_equal(to_s16(np.concatenate(heard)), spoken("Away."))


def test_killed_after_it_was_heard_a_stream_gives_the_job_back(start: Start, server: Process) -> None:
    engine = start()
    known = voice(engine)
    parts = engine.speak(Request("HOLD it.", "en", streamed=True), known)
    assert next(part for part in parts if part.size).size
    server.kill()
    with pytest.raises(WorkerLost):
        list(parts)
    server.start()
    assert np.array_equal(say(engine, "Again.", known, streamed=True), spoken("Again."))


def test_a_version_that_needs_the_words_says_so(start: Start, server: Process) -> None:
    server.kill()
    server.start("v3")
    engine = start()
    assert np.array_equal(say(engine, "Hi.", voice(engine)), spoken("Hi."))
    with pytest.raises(BadRequest, match="transcript"):
        say(engine, "Hi.", voice(engine, text=""), streamed=True)
    server.kill()


def test_a_batch_over_the_bus_while_the_server_is_killed_and_started_again(
    server: Process, tmp_path: Path
) -> None:
    lines = [f"This is line {number} of the batch." for number in range(12)]
    lines[4] = "HOLD the fifth line."
    settings = {"api_url": server.url, "reference_dir": str(tmp_path / "refs")}

    def kill_in_the_fifth_line() -> None:
        while server.next_asked()["text"] != lines[4]:
            pass
        server.kill()
        server.let_go()
        server.start()

    with Bus(engines={"gpt-sovits": 1}, settings=settings) as bus, Client(bus.frontend) as client:
        killer = threading.Thread(target=kill_in_the_fifth_line)
        killer.start()
        results = list(client.map(lines, engine="gpt-sovits", voice="amber", deadline_s=120))
        killer.join(PATIENCE_S)
        totals = client.status()["totals"]
    assert [(result.index, result.error) for result in results] == [(number, None) for number in range(12)]
    for line, result in zip(lines, results, strict=True):
        assert result.speech is not None
        assert np.array_equal(result.speech.samples, spoken(line)), line
    assert (totals["done"], totals["failed"], totals["retried"]) == (12, 0, 0), "the engine waits by itself"


def test_a_stream_over_the_bus_waits_for_the_server(server: Process, tmp_path: Path) -> None:
    text = ["This is heard at once.", "And this when the server is back."]
    settings = {"api_url": server.url, "reference_dir": str(tmp_path / "refs")}
    with Bus(engines={"gpt-sovits": 1}, settings=settings) as bus, Client(bus.frontend) as client:
        server.kill()
        chunks = client.stream(" ".join(text), engine="gpt-sovits", voice="amber", deadline_s=120)
        server.start()
        heard = np.concatenate([chunk.samples for chunk in chunks])
    first, last = (spoken(line) for line in text)
    faded = RATE_HZ // 50
    "Between sentences the client pauses, and fades a few milliseconds on both sides."
    assert np.array_equal(heard[: first.size - faded], first[:-faded])
    assert np.array_equal(heard[faded - last.size :], last[faded:])
    assert not heard[first.size : -last.size].any()
