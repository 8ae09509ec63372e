"""What nobody should send: refused with a clear code, memory bounded, and the next request served."""

from __future__ import annotations

import io
import json
import os
import socket
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
import soundfile

from tests.edge.server import EdgeProcess
from voicebus.client.launch import Bus

MIB = 2**20
CONSENT = {"name": "A Test", "consent": "synthetic, made by this test"}


@pytest.fixture(scope="module")
def edge(bus: Bus, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EdgeProcess]:
    store = tmp_path_factory.mktemp("voices")
    own = {"header_timeout_s": 1.0, "body_timeout_s": 2.0, "max_connections_per_ip": 40}
    with EdgeProcess(bus, edge=own, config={"voices": {"path": str(store)}}) as edge:
        yield edge


@pytest.fixture
def bounded(edge: EdgeProcess) -> Iterator[Callable[[], None]]:
    """Afterwards the edge is there, answers, and is not much larger."""
    assert edge.child is not None
    process = psutil.Process(edge.child.pid)
    before = process.memory_info().rss
    yield lambda: None
    with edge.client() as http:
        assert http.post("/v1/audio/speech", json={"input": "Still here."}).status_code == 200
    assert process.memory_info().rss - before < 96 * MIB
    assert all(child.status() != psutil.STATUS_RUNNING for child in process.children(recursive=True))


def connected(edge: EdgeProcess) -> socket.socket:
    """A bare socket: HTTP clients would not send what is sent here."""
    host, port = edge.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=30)


def upload(http: httpx.Client, data: bytes, name: str = "sample.wav") -> httpx.Response:
    return http.post("/v1/audio/voices", data=CONSENT, files={"audio_sample": (name, data)})


def refused(answer: httpx.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text


def test_a_header_that_never_ends_is_cut_off(edge: EdgeProcess, bounded: Callable[[], None]) -> None:
    with connected(edge) as slow:
        slow.sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\nX-Slow: ")
        assert slow.recv(100) == b""


def test_a_body_that_never_ends_is_given_up(edge: EdgeProcess, bounded: Callable[[], None]) -> None:
    with connected(edge) as slow:
        slow.sendall(
            b"POST /v1/audio/speech HTTP/1.1\r\nHost: a\r\n"
            b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
        )
        assert b" 408 " in slow.recv(4096)


def test_a_header_that_is_too_large(edge: EdgeProcess, bounded: Callable[[], None]) -> None:
    with edge.client() as http:
        assert http.get("/livez", headers={"X-Large": "a" * 100_000}).status_code == 400
        assert http.get("/livez", headers={f"X-{number}": "a" for number in range(500)}).status_code == 400


def test_more_connections_than_one_address_may_have(edge: EdgeProcess, bounded: Callable[[], None]) -> None:
    open_ones = [connected(edge) for _ in range(60)]
    try:
        open_ones[-1].sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
        with suppress(ConnectionResetError):
            assert open_ones[-1].recv(100) == b""
    finally:
        for one in open_ones:
            one.close()


def test_two_gigabytes_are_refused_before_they_come(edge: EdgeProcess, bounded: Callable[[], None]) -> None:
    with connected(edge) as client:
        client.sendall(
            b"POST /v1/audio/voices HTTP/1.1\r\nHost: a\r\n"
            b"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 2147483648\r\n\r\n"
        )
        answer = client.recv(4096)
        assert b" 413 " in answer.partition(b"\r\n")[0]
        assert b"body_too_large" in answer


def test_two_gigabytes_without_a_length_are_refused_while_they_come(
    edge: EdgeProcess, bounded: Callable[[], None]
) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        yield b'--b\r\nContent-Disposition: form-data; name="audio_sample"; filename="a"\r\n\r\n'
        while sent < 2 << 30:
            sent += MIB
            yield bytes(MIB)

    with edge.client() as http:
        try:
            answer = http.post(
                "/v1/audio/voices",
                content=endless(),
                headers={"Content-Type": "multipart/form-data; boundary=b"},
            )
            refused(answer, 413, "body_too_large")
        except httpx.WriteError:
            pass  # cut off while still sending
    assert sent < 200 * MIB


def test_a_body_of_json_that_is_too_large(edge: EdgeProcess, bounded: Callable[[], None]) -> None:
    with edge.client() as http:
        refused(http.post("/v1/audio/speech", json={"input": "a" * (9 * MIB)}), 413, "body_too_large")


def test_a_compressed_bomb_is_not_unpacked(edge: EdgeProcess, bounded: Callable[[], None]) -> None:
    """A gigabyte of blanks in a megabyte. No client packs what it asks for, so nothing is unpacked at all."""
    packer = zlib.compressobj(9, wbits=31)
    bomb = b"".join(packer.compress(b" " * MIB) for _ in range(1024)) + packer.flush()
    with edge.client() as http:
        answer = http.post(
            "/v1/audio/speech",
            content=bomb,
            headers={"Content-Encoding": "gzip", "Content-Type": "application/json"},
        )
        refused(answer, 415, "unsupported_media_type")


def test_json_nested_without_end(edge: EdgeProcess, bounded: Callable[[], None]) -> None:
    with edge.client() as http:
        for body in (
            b"[" * 500_000,
            b'{"options":' * 50_000 + b"1" + b"}" * 50_000,
            b'{"input": "\xff\xfe"}',
        ):
            answer = http.post("/v1/audio/speech", content=body, headers={"Content-Type": "application/json"})
            refused(answer, 400, "bad_request")


def flac_bomb() -> bytes:
    """Hours of silence in kilobytes."""
    out = io.BytesIO()
    with soundfile.SoundFile(out, "w", 8000, 1, format="FLAC", subtype="PCM_16") as file:
        for _ in range(360):
            file.write(np.zeros(80_000, np.int16))
    return out.getvalue()


def lying_wav() -> bytes:
    """A WAV that claims ten hours and has a second."""
    samples = (3000 * np.sin(np.arange(24_000) / 20)).astype("<i2").tobytes()
    claimed = 10 * 3600 * 48_000
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, 24_000, 48_000, 2, 16)
    return (
        struct.pack("<4sI4s", b"RIFF", claimed + 36, b"WAVE")
        + form
        + struct.pack("<4sI", b"data", claimed)
        + samples
    )


@pytest.mark.parametrize(
    "data",
    [
        flac_bomb(),
        lying_wav(),
        b"",
        b"RIFF",
        os.urandom(100_000),
        b"ID3" + bytes(1000),
        b"OggS" + os.urandom(2000),
    ],
    ids=["flac bomb", "lying wav", "nothing", "torn", "noise", "mp3 of nothing", "ogg of noise"],
)
def test_recordings_that_are_none(edge: EdgeProcess, bounded: Callable[[], None], data: bytes) -> None:
    with edge.client() as http:
        refused(upload(http, data), 400, "bad_request")


def test_a_recording_that_is_good_is_taken_and_heard_and_removed(edge: EdgeProcess, tmp_path: Path) -> None:
    from voicebus.common.voices import VoiceStore

    recording = VoiceStore().reference("amber")
    out = io.BytesIO()
    soundfile.write(out, recording.samples, recording.rate_hz, format="FLAC")
    with edge.client() as http:
        made = upload(http, out.getvalue())
        assert (made.status_code, made.json()["id"]) == (201, "a-test")
        refused(upload(http, out.getvalue()), 409, "conflict")
        sample = http.get("/v1/audio/voices/a-test/sample")
        assert soundfile.read(io.BytesIO(sample.content))[1] > 0
        assert http.delete("/v1/audio/voices/a-test").status_code == 204
        refused(http.get("/v1/audio/voices/a-test"), 404, "unknown_voice")
        refused(http.delete("/v1/audio/voices/amber"), 403, "forbidden")


@pytest.mark.parametrize("id", ["../../etc/passwd", "..", "A", "a/b", "a\0b", "-a", "a" * 65, "CON", "ä"])
def test_ids_that_are_paths_are_refused(edge: EdgeProcess, id: str) -> None:
    good = io.BytesIO()
    from voicebus.common.voices import VoiceStore

    recording = VoiceStore().reference("amber")
    soundfile.write(good, recording.samples, recording.rate_hz, format="WAV")
    with edge.client() as http:
        answer = http.post(
            "/v1/audio/voices",
            data={**CONSENT, "id": id},
            files={"audio_sample": ("../../a.wav", good.getvalue())},
        )
        refused(answer, 400, "bad_request")


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", b"no boundary is named"),
        ("multipart/form-data; boundary=b", b"no boundary is there"),
        ("multipart/form-data; boundary=b", b"--b\r\nno colon\r\n\r\na\r\n--b--\r\n"),
        ("multipart/form-data; boundary=b", b'--b\r\nContent-Disposition: form-data; name="\xff"\r\n\r\na'),
        ("multipart/form-data; boundary=b", b"--b\r\nContent-Length: -5\r\n\r\na\r\n--b--\r\n"),
        ("multipart/form-data; boundary=b", b"--b\r\nContent-Transfer-Encoding: nonsense\r\n\r\na\r\n--b--"),
        ("multipart/form-data; boundary=" + "b" * 100, b"--b"),
    ],
)
def test_forms_that_are_none(edge: EdgeProcess, content_type: str, body: bytes) -> None:
    """Some of these ended as an error of the server's: aiohttp raises whatever its reader meets."""
    with edge.client() as http:
        headers = {"Content-Type": content_type}
        refused(http.post("/v1/audio/voices", content=body, headers=headers), 400, "bad_request")


@pytest.mark.parametrize("missing", ["name", "consent", "audio_sample"])
def test_what_a_voice_cannot_be_without(edge: EdgeProcess, missing: str) -> None:
    fields = {name: value for name, value in CONSENT.items() if name != missing}
    files = {} if missing == "audio_sample" else {"audio_sample": ("a.wav", b"RIFF")}
    with edge.client() as http:
        answer = http.post("/v1/audio/voices", data=fields, files=files or {"x": ("x", b"")})
        assert answer.status_code == 400
        assert missing in answer.json()["detail"] or "not known" in answer.json()["detail"]


def test_a_reader_that_takes_nothing_is_cut_off(bus: Bus) -> None:
    """Everywhere: events, a job's sound and recordings were written to it for ever."""
    long = "A sentence that nobody reads. " * 500
    with EdgeProcess(bus, edge={"stall_timeout_s": 0.5}) as edge, edge.client() as http:
        job = http.post("/v1/jobs", json={"input": long}).json()["id"]
        while http.get(f"/v1/jobs/{job}").json()["state"] == "running":
            pass
        body = {"input": long, "response_format": "pcm"}
        asked = (
            ("POST", "/v1/audio/speech", body),
            ("POST", "/v1/audio/speech", body | {"stream_format": "sse"}),
            ("GET", f"/v1/jobs/{job}/audio", None),
            ("GET", f"/v1/jobs/{job}/audio?format=zip", None),
        )
        for method, path, wish in asked:
            data = b"" if wish is None else json.dumps(wish).encode()
            with connected(edge) as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                head = f"{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
                client.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
                assert edge.child is not None
                while not any("read nothing" in line for line in edge.child.lines):
                    assert http.get("/livez").status_code == 200, "others are served meanwhile"
                edge.child.lines.clear()
        while http.get("/metrics").text.find("voicebus_http_requests_in_flight 1.0") < 0:
            pass


def test_a_form_that_comes_in_small_pieces(edge: EdgeProcess) -> None:
    """A field in two segments was taken for one that is too large."""
    consent = "synthetic, made by this test; " * 40
    form = "".join(
        f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in {"name": "In Pieces", "consent": consent}.items()
    )
    with connected(edge) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        data = form.encode() + b"--b--\r\n"
        head = "POST /v1/audio/voices HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
        head += f"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {len(data)}\r\n\r\n"
        client.sendall(head.encode())
        for at in range(0, len(data), 300):
            client.sendall(data[at : at + 300])
            time.sleep(0.01)  # a segment of its own
        answer = b""
        while more := client.recv(65_536):
            answer += more
    assert b"the form lacks audio_sample" in answer


@pytest.mark.parametrize("path", ["/tts_stream?text=Hello", "/v1/jobs/0/audio", "/ws/status"])
def test_what_is_written_as_it_comes_has_no_head(edge: EdgeProcess, path: str) -> None:
    """It answered HEAD with a body, which the next answer on the connection was taken out of step by."""
    with edge.client() as http:
        assert http.head(path).status_code == 405
        assert http.get("/livez").json() == {"status": "ok"}
