"""References: where they are put so that the server can read them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.workers.engines.gpt_sovits.scripted import Scripted, http, words
from tests.workers.engines.gpt_sovits.talking import TONES, WHOLE, Start, say, voice
from voicebus.common.errors import EngineError
from voicebus.workers.engine import Request

pytest.importorskip("aiohttp", reason="the engine's own package: pip install 'voicebus[gpt-sovits]'")
LOST = words(400, message="tts failed", Exception="/r/x.wav not exists")


def test_a_lost_reference_is_placed_again_once(start: Start, server: Scripted, tmp_path: Path) -> None:
    engine = start(LOST, WHOLE)
    assert np.array_equal(say(engine), TONES)
    assert engine.figures()["references_placed"] == 2
    server.scripts = [[LOST]]
    with pytest.raises(EngineError, match="reference_dir"):
        say(engine)
    assert len(server.spoken) == 4


def test_a_voice_of_an_earlier_start_is_placed_where_it_is_gone(start: Start, tmp_path: Path) -> None:
    engine = start(WHOLE)
    known = engine.unpack(voice(engine).pack())
    (tmp_path / "refs" / known.file_name).unlink()
    list(engine.speak(Request("Hello.", "en"), known))
    assert (tmp_path / "refs" / known.file_name).exists()


def test_references_are_uploaded_once(start: Start, server: Scripted) -> None:
    engine = start(
        WHOLE,
        reference_dir=None,
        upload_url=server.url.replace("//", "//me:pass@") + "/dav",
        server_reference_dir="/srv",
    )
    say(engine)
    say(engine)
    puts = [asked for asked in server.asked if asked.method == "PUT"]
    name = voice(engine).file_name
    assert [(put.path, put.body) for put in puts] == [(f"/dav/{name}", voice(engine).wav)]
    assert puts[0].headers["authorization"] == "Basic bWU6cGFzcw=="
    assert server.spoken[0]["ref_audio_path"] == f"/srv/{name}"


def test_an_upload_that_is_refused_is_named(start: Start, server: Scripted) -> None:
    server.put = http(status=403)
    engine = start(WHOLE, reference_dir=None, upload_url=server.url, server_reference_dir="/srv")
    with pytest.raises(EngineError, match="403 to a PUT"):
        say(engine)
