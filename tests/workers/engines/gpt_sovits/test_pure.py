"""The parts that know no network: settings, options, the WAV reader, a window's choice, what answers mean."""

from __future__ import annotations

import json
import struct
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.workers.engines.gpt_sovits.scripted import open_header, wav
from voicebus.common.errors import BadRequest, BusError, ConfigError, EngineError, Overloaded
from voicebus.workers.engine import Reference, Request
from voicebus.workers.engines.gpt_sovits.answers import NotPlacedError, ServerAwayError, refusal
from voicebus.workers.engines.gpt_sovits.languages import server_language
from voicebus.workers.engines.gpt_sovits.options import checked, for_server
from voicebus.workers.engines.gpt_sovits.reference import LEAST_S, LONGEST_S, Voice, learn, window
from voicebus.workers.engines.gpt_sovits.settings import Settings
from voicebus.workers.engines.gpt_sovits.wavstream import WavReader

URL = "http://127.0.0.1:9880"
RATE_HZ = 16_000


# Settings.


def test_one_setting_is_enough_for_a_server_on_this_machine() -> None:
    settings = Settings.read({"api_url": URL + "/", "threads": 2, "device": "cuda:0"})
    assert settings.api.url == URL
    assert settings.languages == ("en", "zh", "ja", "yue", "ko")
    assert (settings.concurrency, settings.sample_rate, settings.streaming_mode) == (1, 32_000, 1)
    assert settings.server_reference_dir == str(settings.reference_dir)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "api_url"),
        ({"api_url": ""}, "api_url"),
        ({"api_url": "ftp://host"}, "http"),
        ({"api_url": "http://"}, "host"),
        ({"api_url": "http://host:port"}, "host"),
        ({"api_url": "http://host?x=1"}, "query"),
        ({"api_url": 9880}, "http"),
        ({"api_url": URL, "apiurl": 1}, "allowed are api_url"),
        ({"api_url": URL, "concurrency": 0}, "from 1 to 64"),
        ({"api_url": URL, "concurrency": 1.5}, "whole"),
        ({"api_url": URL, "concurrency": True}, "whole"),
        ({"api_url": URL, "sample_rate": 100}, "from 8000 to 48000"),
        ({"api_url": URL, "streaming_mode": 4}, "from 0 to 3"),
        ({"api_url": URL, "timeout_s": "soon"}, "number"),
        ({"api_url": URL, "timeout_s": float("nan")}, "number"),
        ({"api_url": URL, "languages": "de"}, "not 'de'"),
        ({"api_url": URL, "languages": []}, "list of tags"),
        ({"api_url": URL, "languages": 5}, "list of tags"),
        ({"api_url": URL, "reference_dir": 5}, "path"),
        ({"api_url": URL, "top_k": 0}, "from 1 to 100"),
        ({"api_url": URL, "text_split_method": "cut9"}, "cut0, cut1"),
        ({"api_url": URL, "upload_url": URL}, "server_reference_dir"),
        (
            {"api_url": URL, "upload_url": URL, "reference_dir": "/r", "server_reference_dir": "/r"},
            "not both",
        ),
        ({"api_url": "http://gpu-box:9880"}, "reference_dir"),
    ],
)
def test_a_wrong_setting_is_refused_with_what_is_allowed(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Settings.read(given)


def test_credentials_are_kept_out_of_words() -> None:
    settings = Settings.read({"api_url": "https://me:se%40cret@[::1]:9880/api/", "reference_dir": "/r"})
    assert (settings.api.user, settings.api.password) == ("me", "se@cret")
    assert str(settings.api) == "https://[::1]:9880/api"
    assert "cret" not in repr(settings)
    with pytest.raises(ConfigError) as refused:
        Settings.read({"api_url": "https://me:secret@host/?x"})
    assert "secret" not in str(refused.value)


def test_languages_and_folders_are_taken_as_given() -> None:
    settings = Settings.read(
        {
            "api_url": "http://gpu-box:9880",
            "languages": "en-GB, zh_CN",
            "reference_dir": "/mnt/r",
            "server_reference_dir": "D:\\r",
            "seed": 7,
        }
    )
    assert settings.languages == ("en-gb", "zh-cn")
    assert (settings.reference_dir, settings.server_reference_dir) == (Path("/mnt/r"), "D:\\r")
    assert settings.defaults == {"seed": 7}


@pytest.mark.parametrize(
    ("tag", "name"),
    [("zh-CN", "zh"), ("zh-HK", "yue"), ("yue", "yue"), ("en-us", "en"),
     ("cmn", "zh"), ("ko_KR", "ko"), ("de", None)],
)  # fmt: skip
def test_a_tag_finds_the_servers_name(tag: str, name: str | None) -> None:
    assert server_language(tag) == name


# Options.


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"ref_audio_path": "/etc/passwd"}, "no option"),
        ({"aux_ref_audio_paths": []}, "no option"),
        ({"streaming_mode": 1}, "no option"),
        ({"top_k": 101}, "whole number from 1 to 100"),
        ({"top_k": 1.5}, "whole number"),
        ({"top_k": True}, "whole number"),
        ({"top_p": 0}, "from 0.01 to 1"),
        ({"temperature": float("nan")}, "from 0.05 to 2"),
        ({"seed": 2**32}, "from -1 to 4294967295"),
        ({"parallel_infer": "yes"}, "true or false"),
        ({"text_split_method": "cut6"}, "one of cut0"),
        ({"sample_steps": 32}, "server's version"),
    ],
)
def test_a_wrong_option_is_refused_with_what_is_allowed(options: dict[str, Any], said: str) -> None:
    with pytest.raises(BadRequest, match=said):
        checked(
            options, known={"top_k", "top_p", "temperature", "seed", "parallel_infer", "text_split_method"}
        )


def test_a_second_take_of_a_fixed_seed_is_another() -> None:
    request = Request("a", "en", options={"seed": 2**32 - 1}, take=1, speed=1.5)
    assert for_server(request, {"seed": 3, "top_k": 5}, None) == {"seed": 0, "top_k": 5, "speed_factor": 1.5}
    assert for_server(Request("a", "en", take=2), {"seed": -1}, None)["seed"] == -1
    assert "seed" not in for_server(Request("a", "en", take=2), {}, None)


@pytest.mark.parametrize("speed", [0.4, 2.1, float("nan")])
def test_a_speed_out_of_range_is_refused(speed: float) -> None:
    with pytest.raises(BadRequest, match=r"0\.5 to 2\.0"):
        for_server(Request("a", "en", speed=speed), {}, None)


# The WAV reader.


def read(pieces: list[bytes]) -> tuple[np.ndarray[Any, Any], WavReader]:
    reader = WavReader()
    parts = [reader.feed(piece) for piece in pieces]
    return np.concatenate([np.zeros(0, np.int16), *parts]), reader


def with_length(data: bytes, length: int) -> bytes:
    return open_header()[:-4] + struct.pack("<I", length) + data


@given(
    samples=st.lists(st.integers(-32768, 32767), max_size=200),
    cuts=st.lists(st.integers(0, 500), max_size=20),
    length=st.sampled_from(["known", "none", "largest", "unknown"]),
    tag=st.binary(max_size=33),
    trailer=st.booleans(),
)
def test_a_wav_may_be_cut_anywhere(
    samples: list[int], cuts: list[int], length: str, tag: bytes, trailer: bool
) -> None:
    pcm = np.array(samples, np.int16).tobytes()
    lengths = {"known": len(pcm), "none": 0, "largest": 0xFFFFFFFF, "unknown": 0x7FFFFFFF - 36}
    whole = with_length(pcm, lengths[length])
    listed = b"LIST" + struct.pack("<I", len(tag)) + tag + b"\0" * (len(tag) % 2)
    whole = whole[:12] + listed + whole[12:]
    if trailer and length == "known" and pcm:
        whole += b"id3 \0\0\0\0"
    places = sorted({0, len(whole), *(cut for cut in cuts if cut < len(whole))})
    heard, reader = read([whole[start:end] for start, end in pairwise(places)])
    assert heard.tolist() == samples
    assert reader.rate_hz == 32_000
    assert not reader.missing


@given(cut=st.integers(0, 43 + 200))
def test_a_wav_that_ends_early_is_noticed(cut: int) -> None:
    whole = wav(np.arange(100, dtype=np.int16))
    assert read([whole[:cut]])[1].missing
    assert not read([whole])[1].missing


def test_half_a_sample_at_the_end_is_noticed() -> None:
    assert read([open_header() + b"\0\0\0"])[1].missing == "it ends within a sample"


@pytest.mark.parametrize(
    "data",
    [
        b"<!DOCTYPE html>" + bytes(100),
        b"RIFF\0\0\0\0AVI " + bytes(100),
        b"RIFF\0\0\0\0WAVEdata\0\0\0\0",
        b"RIFF\0\0\0\0WAVEfmt \x02\0\0\0\0\0data\0\0\0\0",
        b"RIFF\0\0\0\0WAVELIST\xff\xff\xff\x7f",
        b"RIFF\0\0\0\0WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 2, 32_000, 128_000, 4, 16),
        b"RIFF\0\0\0\0WAVEfmt " + struct.pack("<IHHIIHH", 16, 3, 1, 32_000, 128_000, 4, 32),
        b"RIFF\0\0\0\0WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 1, 2, 2, 16),
        b"RIFF\0\0\0\0WAVE" + b"junk\0\0\0\0" * 3000,
    ],
)
def test_what_is_no_wav_of_ours_is_refused(data: bytes) -> None:
    with pytest.raises(EngineError):
        read([data])


def test_the_extensible_format_of_pcm_is_taken() -> None:
    body = struct.pack("<HHIIHHHHIH", 0xFFFE, 1, 24_000, 48_000, 2, 16, 22, 16, 4, 1)
    body += bytes.fromhex("000000001000800000aa00389b71")
    data = b"RIFF\0\0\0\0WAVEfmt " + struct.pack("<I", len(body)) + body + b"data\0\0\0\0\1\0"
    heard, reader = read([data])
    assert (heard.tolist(), reader.rate_hz) == ([1], 24_000)


# The window of a recording.


def recording(*stretches: tuple[str, float]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Speech ('s') and silence by seconds."""
    rng = np.random.default_rng(1)
    parts = [
        rng.normal(0, 0.1 if kind == "s" else 1e-5, round(seconds * RATE_HZ)) for kind, seconds in stretches
    ]
    return np.concatenate(parts).astype(np.float32)


def learnt(samples: np.ndarray[Any, Any], text: str | None = "What  is\nsaid.") -> Voice:
    return learn(Reference("v", samples, RATE_HZ, "0" * 64, "en", text))


def test_a_recording_of_the_right_length_stays_as_it_is() -> None:
    voice = learnt(recording(("s", 6)))
    assert voice.pcm.size == 6 * RATE_HZ
    assert voice.text == "What is said."


def test_silent_edges_go_before_words_do() -> None:
    voice = learnt(recording((".", 3), ("s", 8), (".", 4)))
    assert 8 <= voice.pcm.size / RATE_HZ <= 9
    assert voice.text == "What is said."


def test_a_few_words_in_much_silence_keep_enough_of_it() -> None:
    voice = learnt(recording((".", 10), ("s", 1), (".", 0.1)))
    assert 3 <= voice.pcm.size / RATE_HZ <= 10


def test_a_long_recording_is_cut_at_pauses_where_most_is_said_and_loses_its_words() -> None:
    samples = recording(("s", 2), (".", 3), ("s", 4), (".", 0.4), ("s", 4), (".", 3), ("s", 2))
    start, end, fits = window(samples, RATE_HZ)
    assert not fits
    assert (start / RATE_HZ, end / RATE_HZ) == pytest.approx((4.8, 13.6), abs=0.05)
    voice = learnt(samples)
    assert voice.text == ""
    assert voice.pcm[0] == voice.pcm[-1] == 0


@given(
    stretches=st.lists(st.tuples(st.sampled_from("s."), st.floats(0.1, 8)), min_size=1, max_size=8),
    rate_hz=st.sampled_from([16_000, 22_050, 44_100]),
)
def test_whatever_is_taken_is_what_the_server_accepts(
    stretches: list[tuple[str, float]], rate_hz: int
) -> None:
    samples = recording(*stretches)
    try:
        voice = learn(Reference("v", samples, rate_hz, "0" * 64))
    except BadRequest:
        assert samples.size < LEAST_S * rate_hz or float(np.abs(samples).max()) < 0.002
    else:
        assert LEAST_S < voice.pcm.size / rate_hz < 10


def test_speech_without_a_pause_is_cut_where_it_is() -> None:
    assert learnt(recording(("s", 30))).pcm.size == int(LONGEST_S * RATE_HZ)


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        (recording(("s", 2.9)), "2.9 s"),
        (recording((".", 5)), "silent"),
        (np.zeros(0, np.float32), "silent"),
        (np.full(RATE_HZ * 5, np.nan, np.float32), "silent"),
    ],
)
def test_a_recording_that_is_of_no_use_is_refused(samples: np.ndarray[Any, Any], said: str) -> None:
    with pytest.raises(BadRequest, match=said):
        learnt(samples)


def test_a_voice_survives_as_arrays() -> None:
    voice = learn(Reference("v", recording(("s", 4)), RATE_HZ, "0" * 64, "zh-cn", "你好。"))
    again = Voice.unpack(voice.pack())
    assert (again.file_name, again.language, again.text) == (voice.file_name, "zh-cn", "你好。")
    assert again.wav == voice.wav
    with pytest.raises(ValueError, match="16 bit"):
        Voice.unpack({**voice.pack(), "pcm": np.zeros(3)})


# What answers mean.


def failed(words: str) -> bytes:
    """A 400 of the pipeline."""
    return json.dumps({"message": "tts failed", "Exception": words}, ensure_ascii=False).encode()


@pytest.mark.parametrize(
    ("status", "body", "kind", "said"),
    [
        (400, b'{"message":"text_lang: de is not supported in version v2"}', BadRequest, "text_lang: de"),
        (400, b'{"message":"text_split_method:x is not supported"}', BadRequest, "text_split_method"),
        (400, failed("/r/a.wav not exists"), NotPlacedError, "reference_dir"),
        (400, failed("参考音频在3~10秒范围外，请更换！"), BadRequest, "3 to 10"),
        (400, failed("Reference audio is outside the 3-10 second range"), BadRequest, "3"),
        (400, failed("参照音声が3～10秒の範囲外です。"), BadRequest, "3 to 10"),
        (400, failed("expected 13 to 100"), EngineError, "expected 13"),
        (400, failed("prompt_text cannot be empty when using SoVITS_V3"), BadRequest, "transcript"),
        (400, failed("CUDA out of memory."), Overloaded, "memory"),
        (400, failed(""), EngineError, "without a word"),
        (400, b"nonsense", EngineError, "nonsense"),
        (400, b"[" * 100_000, EngineError, "400"),
        (400, b'{"message":5}', EngineError, "400"),
        (422, b'{"detail":[{"loc":["body","top_k"]},{"loc":["body","a",0]}]}', BadRequest, "top_k, a.0"),
        (422, b'{"detail":"x"}', BadRequest, "this request"),
        (500, b"Internal Server Error", EngineError, "Internal Server Error"),
        (500, b"\x1b[31m\nred\xff", EngineError, r"\[31m red"),
        (404, b"", EngineError, "not an api_v2"),
        (405, b"", EngineError, "not an api_v2"),
        (401, b"", EngineError, "credentials"),
        (418, b"", EngineError, "418"),
        (307, b"", EngineError, "elsewhere.example:1"),
        (429, b"", ServerAwayError, "429"),
        (502, b"", ServerAwayError, "502"),
        (503, b"", ServerAwayError, "503"),
        (504, b"", ServerAwayError, "504"),
    ],
)  # fmt: skip
def test_what_an_answer_means(status: int, body: bytes, kind: type[Exception], said: str) -> None:
    error = refusal(status, "", body, "http://u:p@elsewhere.example:1/x")
    assert type(error) is kind
    with pytest.raises(kind, match=said):
        raise error
    assert "u:p" not in str(error)


def test_a_servers_words_are_cut() -> None:
    error = refusal(500, "", b"word " * 10_000)
    assert isinstance(error, BusError)
    assert len(error.message) < 400
