"""What somebody would send who wants in, wants others out, or wants to be taken for another."""

from __future__ import annotations

import asyncio
import io
import json
import re
import secrets
import select
import socket
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest
from multidict import MultiDict

from tests.edge.server import EdgeProcess
from voicebus.client.launch import Bus
from voicebus.common.apikeys import ApiKeys
from voicebus.common.errors import BadRequest
from voicebus.edge.addresses import client_of, networks
from voicebus.edge.app import BODIES_AT_ONCE
from voicebus.edge.decoding import decode_apart
from voicebus.edge.guard import Gate
from voicebus.edge.metrics import Figures
from voicebus.edge.problems import answer
from voicebus.edge.reading import from_words
from voicebus.edge.sillytavern import Line
from voicebus.edge.talk import Talk, complete
from voicebus.edge.voices_api import MAX_UPLOADS

SECRET = "vb_00000000_" + "s" * 43
HOST = b"Host: 127.0.0.1\r\n"
JSON = b"Content-Type: application/json\r\n"
SPEECH = b"POST /v1/audio/speech HTTP/1.1\r\n" + HOST + JSON


@pytest.fixture(scope="module")
def keyed(bus: Bus, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EdgeProcess]:
    """An edge that asks for keys: what is sent here may have one in it."""
    file = tmp_path_factory.mktemp("keys") / "keys.json"
    ApiKeys(file).new("a")
    with EdgeProcess(bus, edge={"api_keys": str(file), "wyoming_port": 0}) as edge:
        yield edge


def exchange(edge: EdgeProcess, data: bytes) -> tuple[bytes, bytes]:
    """Send bytes as they are; returns the head and the body of what comes until the connection ends."""
    host, port = edge.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as plain:
        plain.sendall(data)
        got = b""
        while more := plain.recv(65_536):
            got += more
    head, _, body = got.partition(b"\r\n\r\n")
    return head, body


def logged(edge: EdgeProcess) -> str:
    """The log so far: what happened before is in it when a later request's line is."""
    assert edge.child is not None
    mark = f"mark-{secrets.token_hex(8)}"
    with edge.client() as http:
        while f"id={mark}" not in "\n".join(edge.child.lines):
            assert http.get("/livez", headers={"X-Request-Id": mark}).status_code == 200
    return "\n".join(edge.child.lines)


BROKEN = {
    "no HTTP": b"\x16\x03\x01\x02\x00\r\n\r\n",
    "a control character in a header": b"GET /livez HTTP/1.1\r\n"
    + HOST
    + b"Authorization: Bearer %s\x00\r\n\r\n",
    "a header that is too long": b"GET /livez HTTP/1.1\r\n"
    + HOST
    + b"xi-api-key: %s"
    + b"a" * 9000
    + b"\r\n\r\n",
    "a folded header": b"GET /livez HTTP/1.1\r\n" + HOST + b"X-A: b\r\n xi-api-key: %s\r\n\r\n",
    "no host": b"GET /livez HTTP/1.1\r\nxi-api-key: %s\r\n\r\n",
    "two hosts": b"GET /livez HTTP/1.1\r\n" + HOST + b"Host: evil.example\r\nxi-api-key: %s\r\n\r\n",
    "a method that is none": b"EVIL /%s HTTP/1.1\r\n" + HOST + b"\r\n",
    "two lengths": SPEECH + b"Content-Length: 2\r\nContent-Length: 3\r\nxi-api-key: %s\r\n\r\n{}",
    "a length with a sign": SPEECH + b"Content-Length: +2\r\nxi-api-key: %s\r\n\r\n{}",
    "a length and chunks": SPEECH
    + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /%s HTTP/1.1\r\n",
    "chunks by another name": SPEECH + b"Transfer-Encoding: xchunked\r\nxi-api-key: %s\r\n\r\n0\r\n\r\n",
    "chunks after a blank": SPEECH + b"Transfer-Encoding : chunked\r\nxi-api-key: %s\r\n\r\n0\r\n\r\n",
    "a chunk of no length": SPEECH
    + b"Transfer-Encoding: chunked\r\nxi-api-key: %s\r\n\r\nZZ\r\n{}\r\n0\r\n\r\n",
    "a lone line feed": b"GET /livez HTTP/1.1\nHost: 127.0.0.1\nxi-api-key: %s\n\n",
    "a lone carriage return": b"GET /livez HTTP/1.1\r\n" + HOST + b"X-A: b\rxi-api-key: %s\r\n\r\n",
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
def test_what_is_no_request_gets_a_problem_that_repeats_nothing(keyed: EdgeProcess, data: bytes) -> None:
    """It was answered in plain text with a piece of what was sent, which the log had too."""
    head, body = exchange(keyed, data.replace(b"%s", SECRET.encode()))
    assert head.splitlines()[0].endswith(b" 400 Bad Request")
    assert b"application/problem+json" in head
    problem = json.loads(body)
    assert (problem["status"], problem["error"]["code"]) == (400, "bad_request")
    assert problem["instance"].removeprefix("urn:request:") in logged(keyed)
    for said in (head.decode() + body.decode(), logged(keyed)):
        assert SECRET not in said
        assert "Traceback" not in said
    assert b"\r\nServer: voicebus\r\n" in head + b"\r\n"


def test_a_body_that_turns_out_broken_is_the_senders_fault(bus: Bus) -> None:
    with EdgeProcess(bus, edge={"body_timeout_s": 0.5}) as own, own.client() as http:
        host, port = own.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=30) as plain:
            plain.sendall(SPEECH + b'Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{"\r\n')
            # By the time this is answered, a handler has the other.
            assert http.get("/livez").status_code == 200
            plain.sendall(b"ZZ\r\n")
            got = plain.recv(65_536)
        assert got.startswith(b"HTTP/1.1 4")
        assert b"application/problem+json" in got
        assert "Traceback" not in logged(own)


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "gzip, gzip", "x\u202e"])
def test_packed_bodies_are_not_unpacked(bus: Bus, http: httpx.Client, coding: str) -> None:
    """One that was none ended as an error of the server's."""
    headers = {b"Content-Type": b"application/json", b"Content-Encoding": coding.encode()}
    answer = http.post("/v1/audio/speech", content=b"abcd", headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_media_type")
    assert "\u202e" not in answer.text


def test_keys_do_not_end_in_the_log(keyed: EdgeProcess) -> None:
    """aiohttp warns of a subprotocol that it does not know, and a browser's key is one."""

    async def main() -> None:
        async with aiohttp.ClientSession() as session:
            for path in ("/ws/status", "/v1/text-to-speech/amber/stream-input"):
                for protocols in ([f"voicebus.key.{SECRET}"], ["voicebus.status", f"voicebus.key.{SECRET}"]):
                    with pytest.raises(aiohttp.WSServerHandshakeError):
                        async with session.ws_connect(f"{keyed.websocket}{path}", protocols=protocols):
                            pass
            for header in ({"Authorization": f"Bearer {SECRET}"}, {"xi-api-key": SECRET}):
                async with session.get(f"{keyed.url}/v1/models", headers=header) as answer:
                    assert SECRET not in await answer.text()
            url = f"{keyed.websocket}/v1/text-to-speech/amber/stream-input"
            async with session.ws_connect(url) as socket:
                await socket.send_json({"text": " ", "xi_api_key": SECRET})
                assert SECRET not in str((await socket.receive(timeout=30)).data)

    asyncio.run(main())
    assert SECRET not in logged(keyed)


def test_a_good_key_as_a_subprotocol_does_not_end_in_the_log(bus: Bus, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    known, key = ApiKeys(file).new("a")

    async def main(url: str) -> None:
        async with aiohttp.ClientSession() as session:
            socket = await session.ws_connect(f"{url}/ws/status", protocols=[f"voicebus.key.{key}"])
            await socket.receive(timeout=30)
            assert socket.protocol is None
            await socket.close()

    with EdgeProcess(bus, edge={"api_keys": str(file)}) as edge:
        asyncio.run(main(edge.websocket))
        while not re.search(rf"/ws/status .* key={known.id}\b", logged(edge)):
            pass
        assert key not in logged(edge)


def test_errors_show_what_was_sent_harmlessly(http: httpx.Client) -> None:
    """A content type came back with its override of the direction of writing, and its control sequence."""
    asked: list[httpx.Response] = [
        http.post("/v1/audio/speech", content=b"{}", headers={b"Content-Type": "a/\u202e\x9b2J".encode()}),
        http.post("/v1/audio/speech", json={"input": "a", "voice": "\u202e\x1b[2J"}),
        http.post("/v1/audio/speech", json={"input": "a", "model": "\u202e\x1b[2J"}),
        http.post("/v1/audio/speech", json={"input": "a", "response_format": "\u202e\x1b[2J"}),
        http.post("/v1/text-to-speech/%E2%80%AE%1B", json={"text": "a"}),
        http.get("/tts_stream", params={"text": "a", "speaker_wav": "\u202e\x1b[2J"}),
        http.get("/v1/jobs", params={"state": "\u202e\x1b[2J"}),
        http.get("/v1/jobs/%E2%80%AE%1B%0A"),
        http.get("/v1/audio/voices/%00%E2%80%AE%1B%0A"),
        http.get("/v1/models/%E2%80%AE%1B%0A"),
    ]
    for got in asked:
        assert 400 <= got.status_code < 500
        said = json.dumps(got.json(), ensure_ascii=False)
        assert said.isprintable(), said
        assert not re.search(r"\\u00[01][0-9a-f]", said), "escaped once more, so that no reader undoes it"


@pytest.mark.parametrize(
    "path", [b"/\xe2\x80\xae\xc2\x9b2J", b"/%0a%1b%E2%80%AE", b"/\xff\xfe", b"/a?key=%1b"]
)
def test_a_path_cannot_write_in_the_log(keyed: EdgeProcess, path: bytes) -> None:
    head, _ = exchange(keyed, b"GET " + path + b" HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")
    assert head.split(b" ")[1] in (b"400", b"404")
    said = logged(keyed)
    assert all(line.isprintable() for line in said.splitlines())
    assert "?key=" not in said


def test_an_error_of_any_origin_is_made_harmless() -> None:
    for shape in ("problem", "elevenlabs"):
        body = answer(BadRequest("a\u202e\x1b[2J\r\n"), "id", shape=shape).body
        assert isinstance(body, bytes)
        assert json.dumps(json.loads(body), ensure_ascii=False).isprintable()
        assert b"\\\\u202e" in body


def test_every_answer_says_how_it_may_be_kept_and_shown(http: httpx.Client) -> None:
    """A shared cache does not know that an answer to `xi-api-key` is private; the server told its version."""
    wish = {"input": "Hello."}
    asked = [
        http.post("/v1/audio/speech", json=wish),
        http.post("/v1/audio/speech", json=wish | {"stream_format": "sse"}),
        http.post("/v1/audio/speech", json={"input": "Much longer. " * 50}),
        http.get("/tts_stream", params={"text": "Hello."}),
        http.get("/v1/audio/voices/amber/sample"),
        http.get("/v1/audio/voices"),
        http.get("/v1/jobs"),
        http.get("/nothing"),
        http.request("TRACE", "/v1/jobs"),
        http.post("/v1/audio/speech", content=b"{"),
    ]
    for got in asked:
        assert got.headers["cache-control"] == "no-store", got.url
        assert got.headers["server"] == "voicebus"
        assert got.headers["x-content-type-options"] == "nosniff"
        assert got.headers["cross-origin-resource-policy"] == "same-site"
        assert "frame-ancestors 'none'" in got.headers["content-security-policy"]
        assert "strict-transport-security" not in got.headers
    for path in ("/", "/page/main.js"):
        got = http.get(path)
        assert got.headers["cache-control"] == "no-cache"
        assert "script-src 'self'" in got.headers["content-security-policy"]
    assert "'sha256-" in http.get("/docs").headers["content-security-policy"]


def test_pages_that_may_call_may_use_what_they_get(bus: Bus) -> None:
    with EdgeProcess(bus, edge={"cors_origins": ["https://good.example"]}) as edge, edge.client() as http:
        assert "cross-origin-resource-policy" not in http.get("/v1/audio/voices/amber/sample").headers


@pytest.mark.parametrize("query", ["text=a&text=b", "text=a&speaker_wav=amber&speaker_wav=basil"])
def test_what_is_said_twice_is_not_guessed(http: httpx.Client, query: str) -> None:
    """The first of two counted here, and the last of two in a form: a proxy may have checked the other."""
    got = http.get(f"/tts_stream?{query}")
    assert (got.status_code, got.json()["error"]["code"]) == (400, "bad_request")
    assert "twice" in got.json()["detail"]


def test_a_form_that_says_something_twice(http: httpx.Client) -> None:
    part = '--b\r\nContent-Disposition: form-data; name="{}"\r\n\r\n{}\r\n'
    form = part.format("consent", "I agree") + part.format("consent", "nobody asked me") + "--b--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    got = http.post("/v1/audio/voices", content=form.encode(), headers=headers)
    assert (got.status_code, got.json()["detail"]) == (400, "the form has consent twice")
    form = part.format("consent", "\udcff").encode(errors="surrogateescape") + b"--b--\r\n"
    got = http.post("/v1/audio/voices", content=form, headers=headers)
    assert (got.status_code, got.json()["detail"]) == (400, "consent is not UTF-8")


@pytest.mark.parametrize("said", ["({}", 'form-data; name="a"; {}', "form-data; {}(=a"])
def test_what_a_form_calls_its_parts_is_not_printed(edge: EdgeProcess, http: httpx.Client, said: str) -> None:
    """aiohttp warns with each text, which Python prints and keeps: 300 requests left 1.5 MB for ever."""
    mark = secrets.token_hex(16)
    form = f"--b\r\nContent-Disposition: {said.format(mark)}\r\n\r\na\r\n--b--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    got = http.post("/v1/audio/voices", content=form.encode(), headers=headers)
    assert (got.status_code, got.json()["error"]["code"]) == (400, "bad_request")
    assert mark not in logged(edge)


def test_numbers_and_words_that_json_has_not(http: httpx.Client) -> None:
    for body in (
        '{"input": "a", "speed": NaN}',
        '{"input": "a", "speed": Infinity}',
        '{"input": "a", "speed": 1e999}',
        '{"input": "a", "options": {"seed": 1e999}}',
        '{"input": "a", "options": {"seed": ' + "9" * 5000 + "}}",
        '{"input": "a", "options": {"a": ' + "[" * 900 + "]" * 900 + "}}",
        '{"input": "a\\ud800"}',
        json.dumps({"input": "a", "options": {str(n): n for n in range(50_000)}}),
    ):
        headers = {"Content-Type": "application/json"}
        got = http.post("/v1/audio/speech", content=body.encode(), headers=headers)
        assert (got.status_code, got.json()["error"]["code"]) == (400, "bad_request"), body[:80]
        assert len(got.content) < 2000


def test_words_twice_are_seen_in_any_query() -> None:
    assert from_words(MultiDict(text="a"), Line).text == "a"
    with pytest.raises(BadRequest, match="speaker_wav is given twice"):
        from_words(MultiDict([("text", "a"), ("speaker_wav", "b"), ("speaker_wav", "b")]), Line)


def test_an_address_with_a_zone_is_no_address() -> None:
    """A zone may be any text, so each made up one was another client with another share."""
    trusted = networks(["10.0.0.0/8"])
    assert client_of("10.0.0.1", ["fe80::1%made-up"], trusted) == "10.0.0.1"
    assert client_of("10.0.0.1", ["fe80::1"], trusted) == "fe80::1"


def test_methods_that_nobody_knows_make_no_new_rows_of_figures() -> None:
    figures = Figures()
    for number in range(1000):
        figures.note(f"EVIL{number}", "other", 400, 0.0)
    rows = [line for line in figures.text(None).decode().splitlines() if "EVIL" in line or '"other"' in line]
    assert len([row for row in rows if row.startswith("voicebus_http_requests_total")]) == 1


def test_a_header_of_a_second_request_that_never_ends_is_cut_off(bus: Bus) -> None:
    """Only the first was timed: the next had a minute and a quarter, on each of a thousand connections."""
    with EdgeProcess(bus, edge={"header_timeout_s": 0.5}) as edge:
        host, port = edge.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=30) as slow:
            slow.sendall(b"GET /livez HTTP/1.1\r\n" + HOST + b"\r\n")
            assert slow.recv(4096).startswith(b"HTTP/1.1 200")
            slow.sendall(b"GET /livez HTTP/1.1\r\nX-Slow: ")
            assert slow.recv(100) == b""


def test_blanks_without_end_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each one more had all those before it looked through again."""
    looked: list[int] = []

    def counted(text: str) -> tuple[str, str]:
        looked.append(len(text))
        return complete(text)

    monkeypatch.setattr("voicebus.edge.talk.complete", counted)

    async def never(_text: str) -> Any:
        raise AssertionError("there is nothing to say")

    async def main() -> None:
        talk = Talk(never)
        for _ in range(5000):
            talk.feed(" ")
            talk.feed("\n")

    asyncio.run(main())
    assert sum(looked) < 1000


def test_one_address_cannot_keep_all_others_from_watching(bus: Bus) -> None:
    """It could take all places there are, and was then told that it was forbidden."""

    async def main(url: str) -> list[int]:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:
            sockets = [await session.ws_connect(f"{url}/ws/status") for _ in range(50)]
            refused: list[int] = []
            try:
                await session.ws_connect(f"{url}/ws/status")
            except aiohttp.WSServerHandshakeError as error:
                refused.append(error.status)
            await sockets[0].close()
            while True:  # its place is free as soon as the edge has seen it
                with suppress(aiohttp.WSServerHandshakeError):
                    await (await session.ws_connect(f"{url}/ws/status")).close()
                    return refused

    with EdgeProcess(bus) as edge:
        assert asyncio.run(main(edge.websocket)) == [503]


def test_a_websocket_that_is_none_is_told_what_it_lacks(http: httpx.Client) -> None:
    for headers in ({}, {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "99"}):
        got = http.get("/ws/status", headers=headers)
        assert got.status_code == 400
        assert got.json()["error"]["code"] == "bad_request"
    assert "only WebSockets" in http.get("/ws/status").json()["detail"]


def test_a_packed_frame_and_one_that_is_too_large_end_the_socket(bus: Bus) -> None:
    """No extension was agreed on, so a frame that says it is packed is against the protocol."""

    async def main(url: str) -> list[int | None]:
        codes: list[int | None] = []
        async with aiohttp.ClientSession() as session:
            for path, data in (
                ("/ws/status", "a" * 5000),
                ("/v1/text-to-speech/amber/stream-input", "a" * 70_000),
            ):
                async with session.ws_connect(f"{url}{path}", compress=15) as socket:
                    assert socket.compress == 0
                    await socket.send_str(data)
                    while (message := await socket.receive(timeout=30)).type is aiohttp.WSMsgType.TEXT:
                        pass
                    assert message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)
                    codes.append(socket.close_code)
        return codes

    with EdgeProcess(bus) as edge:
        assert asyncio.run(main(edge.websocket)) == [1009, 1009]


def test_names_of_files_in_a_job_stay_in_its_folder(http: httpx.Client) -> None:
    lines = [{"text": "One.", "id": "../../../tmp/evil"}, {"text": "Two.", "id": "a\x00\u202e/b"}]
    job = http.post("/v1/jobs", json={"input": lines}).json()["id"]
    while http.get(f"/v1/jobs/{job}").json()["state"] == "running":
        pass
    packed = http.get(f"/v1/jobs/{job}/audio?format=zip")
    with zipfile.ZipFile(io.BytesIO(packed.content)) as archive:
        names = [name for name in archive.namelist() if name.endswith(".wav")]
    assert len(names) == 2
    assert all(re.fullmatch(r"[0-9]+[A-Za-z0-9_.-]*", name) and ".." not in name for name in names), names
    assert packed.headers["content-disposition"] == f'attachment; filename="{job}.zip"'


def test_what_is_expected_of_us_is_answered_like_all_else(bus: Bus) -> None:
    """A wish that aiohttp does not know came back in plain text."""
    with EdgeProcess(bus) as edge:
        head, body = exchange(edge, SPEECH + b"Expect: %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400")
        assert json.loads(body)["error"]["code"] == "bad_request"
        data = b'{"input": "Hello."}'
        asks = b"Expect: 100-continue\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(data)
        head, rest = exchange(edge, SPEECH + asks + data)
        assert head == b"HTTP/1.1 100 Continue"
        assert rest.startswith(b"HTTP/1.1 200 OK")


def test_one_tenants_jobs_leave_room_for_others(bus: Bus, tmp_path: Path) -> None:
    """They could be all that the server takes."""
    file = tmp_path / "keys.json"
    keys = ApiKeys(file)
    greedy, other = ({"xi-api-key": keys.new(name)[1]} for name in ("greedy", "other"))
    with EdgeProcess(bus, edge={"api_keys": str(file), "max_jobs": 4}) as edge, edge.client() as http:
        # The worker that gets this line hangs, so that its job stays under way.
        jobs = [http.post("/v1/jobs", json={"input": "STUCK"}, headers=greedy) for _ in range(3)]
        assert [job.status_code for job in jobs] == [202, 202, 503]
        assert "half of what this server takes" in jobs[2].json()["detail"]
        assert http.post("/v1/jobs", json={"input": "Hello."}, headers=other).status_code == 202
        for job in jobs[:2]:
            assert http.delete(f"/v1/jobs/{job.json()['id']}", headers=greedy).status_code == 200
        assert http.post("/v1/jobs", json={"input": "Hello."}, headers=greedy).status_code == 202


def test_a_customers_network_has_as_many_connections_as_one_address() -> None:
    """An IPv6 address costs nothing to whoever has 2 to the 64 of them."""
    gate = Gate(100, 2)
    assert gate.enter("2001:db8::1")
    assert gate.enter("2001:db8::2")
    assert not gate.enter("2001:db8::3")
    assert gate.enter("2001:db8:0:1::1")
    gate.leave("2001:db8::1")
    assert gate.enter("2001:db8::4")


def test_what_decodes_recordings_has_no_secrets_to_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A codec's mistake would have had the environment, with the password of Redis in it."""
    spy = tmp_path / "python"
    spy.write_text(f"#!/bin/sh\nenv > {tmp_path}/seen\n")
    spy.chmod(0o700)
    monkeypatch.setattr("voicebus.edge.decoding.sys.executable", str(spy))
    monkeypatch.setenv("VOICEBUS_EDGE__REDIS", "redis://:hunter2@127.0.0.1/0")
    asyncio.run(decode_apart(tmp_path))
    seen = (tmp_path / "seen").read_text()
    assert "PATH=" in seen
    assert "hunter2" not in seen


def test_recordings_that_come_at_once_are_counted(bus: Bus) -> None:
    """Each is a file in the system's temporary folder; two hundred an address could come for two minutes."""
    head = b"POST /v1/audio/voices HTTP/1.1\r\n" + HOST + b"Content-Length: 1000\r\n"
    head += b"Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\n"
    with EdgeProcess(bus) as edge, edge.client() as http:
        host, port = edge.url.removeprefix("http://").split(":")
        coming = [socket.create_connection((host, int(port)), timeout=30) for _ in range(MAX_UPLOADS)]
        try:
            for one in coming:
                one.sendall(head)
            while f"requests_in_flight {MAX_UPLOADS + 1}.0" not in http.get("/metrics").text:
                pass
            form = {"name": "a", "consent": "b"}
            got = http.post("/v1/audio/voices", data=form, files={"audio_sample": ("a", b"RIFF")})
            assert (got.status_code, got.json()["error"]["code"]) == (503, "overloaded")
        finally:
            for one in coming:
                one.close()
        while (
            got := http.post("/v1/audio/voices", data=form, files={"audio_sample": ("a", b"RIFF")})
        ).status_code == 503:
            pass
        assert got.status_code == 400, "no recording, but looked at"


def test_large_bodies_that_come_at_once_are_bounded_together(bus: Bus) -> None:
    """Each may be large: two hundred of an address, held back at the last byte, were gigabytes."""
    size = 65_536
    head = SPEECH + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % size
    with EdgeProcess(bus, edge={"max_body_bytes": size}) as edge, edge.client() as http:
        host, port = edge.url.removeprefix("http://").split(":")
        coming = [socket.create_connection((host, int(port)), timeout=30) for _ in range(BODIES_AT_ONCE + 8)]
        try:
            for one in coming:
                one.sendall(head + b" " * (size - 1))
            ready, _, _ = select.select(coming, [], [], 30)
            assert ready[0].recv(100).startswith(b"HTTP/1.1 503")
        finally:
            for one in coming:
                one.close()
        wish = json.dumps({"input": "Hello."}).encode().ljust(size)
        kind = {"Content-Type": "application/json"}
        while (got := http.post("/v1/audio/speech", content=wish, headers=kind)).status_code == 503:
            pass
        assert got.status_code == 200
