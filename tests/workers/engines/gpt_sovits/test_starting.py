"""What an engine needs at its start, and what it says where that is missing."""

from __future__ import annotations

import socket
from pathlib import Path

import numpy as np
import pytest

from tests.workers.engines.gpt_sovits.scripted import Scripted, http, words
from tests.workers.engines.gpt_sovits.talking import TONES, WHOLE, Start, say
from voicebus.common.errors import BadRequest, BusError, ConfigError, EngineError
from voicebus.workers.engine import Request
from voicebus.workers.engines.gpt_sovits.engine import GptSovitsEngine

pytest.importorskip("aiohttp", reason="the engine's own package: pip install 'voicebus[gpt-sovits]'")


@pytest.mark.parametrize(
    ("description", "said"),
    [
        (http(b"<html>", kind="text/html"), "not an api_v2"),
        (words(200, paths={"/": {}}), "not an api_v2"),
        (http(status=302, headers="Location: http://evil.example/\r\n"), "evil"),
        (http(status=401), "credentials"),
        (http(status=503), "no GPT-SoVITS server answers"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "HTTP"),
    ],
)
def test_what_is_no_api_v2_is_not_begun_with(
    start: Start, server: Scripted, description: bytes, said: str
) -> None:
    server.description = description
    with pytest.raises(EngineError, match=said):
        start(WHOLE, startup_s=0)


def test_a_server_that_does_not_describe_itself_is_taken(start: Start, server: Scripted) -> None:
    server.description = http(status=404)
    engine = start(WHOLE)
    engine.check(Request("Hello.", "en", options={"sample_steps": 32}))
    assert np.array_equal(say(engine), TONES)


def test_nobody_at_the_address_is_said_with_the_remedy(start: Start) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://user:secret@127.0.0.1:{nobody.getsockname()[1]}"
        with pytest.raises(EngineError, match=r"start its api_v2\.py") as raised:
            start(WHOLE, api_url=url, startup_s=0)
    assert "secret" not in str(raised.value)


def test_credentials_are_sent_and_never_shown(
    start: Start, server: Scripted, caplog: pytest.LogCaptureFixture
) -> None:
    engine = start(["reset"], api_url=server.url.replace("//", "//me:secret@"), outage_s=0.2)
    server.description = http(status=503)
    with pytest.raises(BusError) as raised:
        say(engine)
    assert all("authorization" in asked.headers for asked in server.asked)
    assert "secret" not in caplog.text + str(raised.value)


def test_what_this_servers_version_lacks_is_refused(start: Start) -> None:
    with pytest.raises(ConfigError, match="super_sampling"):
        start(WHOLE, super_sampling=True)
    with pytest.raises(BadRequest, match="sample_steps"):
        start(WHOLE).check(Request("Hello.", "en", options={"sample_steps": 8}))


def test_a_folder_that_cannot_be_is_named(start: Start, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be made"):
        start(WHOLE, reference_dir=str(tmp_path / "file" / "refs"))


def test_dense_scripts_get_shorter_segments(start: Start) -> None:
    engine = start(WHOLE, max_chars=90)
    assert (engine.max_chars("en"), engine.max_chars("zh-cn"), engine.max_chars("ko")) == (90, 30, 30)
    assert all(len(piece) <= 30 for piece in engine.segments("今天天气很好，" * 20 + "。", "zh"))


def test_an_engine_that_was_never_loaded_says_so_and_closes() -> None:
    engine = GptSovitsEngine()
    assert engine.figures() == {}
    with pytest.raises(EngineError, match="not loaded"):
        engine.check(Request("a", "en"))
    engine.close()
    engine.close()
