"""Numbers of the sound path: checkpoint reader, speaker encoder, conversion, joins. No model files needed."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from voicebus.workers.engines.kokoro import conversion, enrol, joins, world
from voicebus.workers.engines.kokoro.encoder import cut_silence, mel_filters, mel_spectrogram
from voicebus.workers.engines.kokoro.model import Network, load_packs
from voicebus.workers.engines.kokoro.weights import read_tensors

RATE_HZ = 24_000


def vowel(
    f0_hz: float, seconds: float = 1.5, formants: tuple[float, ...] = (600.0, 1200.0, 2500.0)
) -> np.ndarray:
    """A sung vowel with some vibrato: harmonics under resonances."""
    t = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    pitch = f0_hz * (1 + 0.05 * np.sin(2 * np.pi * 3 * t))
    phase = 2 * np.pi * np.cumsum(pitch) / RATE_HZ
    y = np.zeros_like(t)
    for k in range(1, int(5000 / f0_hz)):
        y += (1 / k + sum(np.exp(-(((k * f0_hz - f) / 250.0) ** 2)) for f in formants)) * np.sin(k * phase)
    fade = np.minimum(1, np.minimum(t, t[::-1]) / 0.05)
    rng = np.random.default_rng(0)
    return (0.2 * y / np.abs(y).max() * fade + 1e-4 * rng.standard_normal(t.size)).astype(np.float32)


def test_a_checkpoint_is_read_but_never_run(tmp_path: Path) -> None:
    values = np.arange(6, dtype="<f4")
    path = tmp_path / "weights.pt"
    # {"model_state": {"w": _rebuild_tensor_v2(storage, 0, (2, 3), (3, 1), False, OrderedDict())}}
    text = (
        b"\x80\x02}X\x0b\x00\x00\x00model_state}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n"
        b"((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x06tQK\x00"
        b"K\x02K\x03\x86K\x03K\x01\x86\x89ccollections\nOrderedDict\n)RtRss."
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("w/data.pkl", text)
        archive.writestr("w/data/0", values.tobytes())
    tensors = read_tensors(path, "model_state")
    np.testing.assert_array_equal(tensors["w"], values.reshape(2, 3))

    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(tmp_path / "sprung"),)

    evil = tmp_path / "evil.pt"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        trap = pickle.dumps(Trap(), protocol=protocol)
        evil.write_bytes(trap)
        with pytest.raises(ValueError, match=r"evil\.pt is refused: the file asks for posix\.mkdir"):
            read_tensors(evil, "model_state")
        with zipfile.ZipFile(evil, "w") as archive:
            archive.writestr("w/data.pkl", trap)
        with pytest.raises(ValueError, match=r"evil\.pt is refused: the file asks for posix\.mkdir"):
            read_tensors(evil, "model_state")
    assert not (tmp_path / "sprung").exists()
    stream = tmp_path / "stream.pt"
    stream.write_bytes(pickle.dumps(OrderedDict(a=1), protocol=2))
    with pytest.raises(ValueError, match=r"stream\.pt is refused"):
        read_tensors(stream, "model_state")


def checkpoint(path: Path, *, shape: bytes, stride: bytes, packed: bool = False) -> Path:
    """Six numbers, in whatever form the two pickled tuples say."""
    text = (
        b"\x80\x02}X\x0b\x00\x00\x00model_state}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n"
        b"((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x06tQK\x00"
        + shape
        + stride
        + b"\x89ccollections\nOrderedDict\n)RtRss."
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as archive:
        archive.writestr("w/data.pkl", text)
        archive.writestr("w/data/0", np.arange(6, dtype="<f4").tobytes())
    return path


TWO_BY_THREE: dict[str, Any] = {"shape": b"K\x02K\x03\x86", "stride": b"K\x03K\x01\x86"}


@pytest.mark.parametrize(
    "claims",
    [
        {
            "shape": b"\x8a\x06\x00\x00\x00\x00\x00\x01\x85",
            "stride": b"K\x00\x85",
        },  # one number, 2 ** 40 times
        {"shape": b"J\xff\xff\xff\xffK\x03\x86", "stride": b"K\x03K\x01\x86"},  # -1 by 3
        {"shape": b"K\x02K\x03\x86", "stride": b"K\x04K\x01\x86"},  # beyond the end
        {"shape": b"K\x02K\x03\x86", "stride": b"K\x01\x85"},
        {"shape": b"X\x01\x00\x00\x00aK\x03\x86", "stride": b"K\x03K\x01\x86"},
        {"shape": b"K\x02K\x03\x86", "stride": b"G\x7f\xf8\x00\x00\x00\x00\x00\x00K\x01\x86"},  # NaN
        {**TWO_BY_THREE, "packed": True},
    ],
)
def test_a_tensor_that_claims_what_is_not_there_is_refused_by_name(
    tmp_path: Path, claims: dict[str, Any]
) -> None:
    """One number repeated without end took all memory; a word for a size got out as a TypeError."""
    path = checkpoint(tmp_path / "weights.pt", **claims)
    with pytest.raises(ValueError, match=r"weights\.pt is (refused|damaged)"):
        read_tensors(path, "model_state")
    whole = read_tensors(checkpoint(path, **TWO_BY_THREE), "model_state")["w"]
    np.testing.assert_array_equal(whole, np.arange(6).reshape(2, 3))


def test_a_checkpoint_with_any_byte_changed_is_read_or_refused_by_name(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "weights.pt", **TWO_BY_THREE)
    data = path.read_bytes()
    refused: list[str] = []
    for place in range(len(data)):
        for value in (0, 0x28, 0x52, 0x62, 0xFF):
            path.write_bytes(data[:place] + bytes([value]) + data[place + 1 :])
            try:
                read_tensors(path, "model_state")
            except ValueError as error:
                refused.append(str(error))
    assert len(refused) > len(data)
    assert all(str(path) in said for said in refused)


def varint(number: int) -> bytes:
    return bytes([number]) if number < 128 else bytes([number & 127 | 128]) + varint(number >> 7)


def part(number: int, value: int | bytes) -> bytes:
    """A field of a protocol buffer."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def network_with_weights_at(place: str) -> bytes:
    """An ONNX model that gives out four numbers, which lie in another file."""
    where = {"location": place.encode(), "offset": b"0", "length": b"16"}
    entries = b"".join(part(13, part(1, key.encode()) + part(2, value)) for key, value in where.items())
    tensor = part(1, 4) + part(2, 1) + part(8, b"w") + entries + part(14, 1)
    kind = part(1, part(1, 1) + part(2, part(1, part(1, 4))))
    node = part(1, b"w") + part(2, b"y") + part(4, b"Identity")
    graph = part(1, node) + part(2, b"g") + part(5, tensor) + part(12, part(1, b"y") + part(2, kind))
    return part(1, 8) + part(7, graph) + part(8, part(1, b"") + part(2, 13))


@pytest.mark.parametrize("place", ["inside", "../secret", "link", "/etc/passwd", "x/../../secret"])
def test_a_network_reads_no_file_but_its_own(tmp_path: Path, place: str) -> None:
    """Of new releases of onnxruntime only the first is let through, of old ones all."""
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(bytes(16))
    (folder / "inside").write_bytes(bytes(16))
    (folder / "link").symlink_to("../secret")
    (folder / "model.onnx").write_bytes(network_with_weights_at(place))
    with pytest.raises(ValueError, match=r"model\.onnx is refused: its weights lie in other files"):
        Network(folder / "model.onnx", threads=1)
    (folder / "model.onnx").write_bytes(b"")
    with pytest.raises(ValueError, match=r"model\.onnx cannot be loaded"):
        Network(folder / "model.onnx", threads=1)


@pytest.mark.parametrize("size", [0, 522_239, 522_241])
def test_a_voice_of_another_size_is_named(tmp_path: Path, size: int) -> None:
    (tmp_path / "af_heart.bin").write_bytes(bytes(size))
    with pytest.raises(ValueError, match=r"af_heart\.bin is no voice"):
        load_packs(tmp_path)
    (tmp_path / "af_heart.bin").unlink()
    os.mkfifo(tmp_path / "af_heart.bin")
    with pytest.raises(ValueError, match=r"af_heart\.bin is no voice"):
        load_packs(tmp_path)


def test_mel_bands_hear_a_tone_where_it_is() -> None:
    t = np.arange(16_000) / 16_000
    filters = mel_filters()
    assert filters.shape == (40, 201)
    for hz in (300.0, 1000.0, 4000.0):
        mel = mel_spectrogram(np.sin(2 * np.pi * hz * t).astype(np.float32))
        assert mel.shape == (101, 40)
        loudest = int(mel[50].argmax())
        assert abs(np.average(np.arange(201) * 40.0, weights=filters[loudest]) - hz) < 0.12 * hz


def test_silence_is_cut_and_speech_kept() -> None:
    rng = np.random.default_rng(1)
    speech = (0.1 * rng.standard_normal(16_000)).astype(np.float32)
    quiet = np.zeros(32_000, np.float32)
    kept = cut_silence(np.concatenate([quiet, speech, quiet]))
    assert 16_000 <= kept.size <= 16_000 + 2 * 16_000 * 0.2


def test_the_identity_leaves_speech_nearly_unchanged() -> None:
    x = vowel(140.0)
    analysis = world.analyse(x)
    y = conversion.convert(analysis, conversion.identity())
    again = world.analyse(y)
    count = min(len(analysis.f0), len(again.f0))
    both = analysis.loud[:count] & again.loud[:count]
    assert abs(y.size - x.size) <= 240
    assert np.median(np.abs(np.log(again.f0[:count][both] / analysis.f0[:count][both]))) < 0.01
    distance = np.log(again.envelope[:count][both][:, 5:200] / analysis.envelope[:count][both][:, 5:200])
    assert np.median(np.abs(distance)) < 0.5


@pytest.mark.parametrize("wanted_hz", [100.0, 220.0])
def test_conversion_moves_pitch_and_spectrum_to_the_target(wanted_hz: float) -> None:
    source_speech = world.analyse(
        np.concatenate([vowel(140.0), vowel(150.0, formants=(350.0, 2000.0, 2800.0))])
    )
    target_speech = world.analyse(
        np.concatenate(
            [
                vowel(wanted_hz, formants=(750.0, 1400.0, 3000.0)),
                vowel(wanted_hz, formants=(450.0, 2300.0, 3300.0)),
            ]
        )
    )
    source, target = conversion.profile(source_speech), conversion.profile(target_speech)
    found = conversion.between(source, target)
    moved = world.analyse(conversion.convert(source_speech, found))
    heard = conversion.profile(moved)
    assert abs(np.exp(heard.log_f0) - wanted_hz) < 0.05 * wanted_hz
    before = np.linalg.norm(source.frames.mean(axis=0)[1:] - target.frames.mean(axis=0)[1:])
    after = np.linalg.norm(heard.frames.mean(axis=0)[1:] - target.frames.mean(axis=0)[1:])
    assert after < 0.5 * before
    kept = conversion.convert(source_speech, replace(found, pitch=conversion.with_pitch(found.pitch, "keep")))
    assert abs(conversion.profile(world.analyse(kept)).log_f0 - source.log_f0) < 0.03


def test_a_conversion_survives_its_arrays_to_the_bit() -> None:
    analysis = world.analyse(vowel(140.0))
    source = conversion.profile(analysis)
    found = conversion.rounded(conversion.between(source, conversion.profile(world.analyse(vowel(190.0)))))
    back = conversion.from_arrays(conversion.to_arrays(found))
    np.testing.assert_array_equal(conversion.convert(analysis, found), conversion.convert(analysis, back))
    with pytest.raises(ValueError, match="not those"):
        conversion.from_arrays(conversion.to_arrays(found) | {"pitch": np.zeros(7)})
    with pytest.raises(ValueError, match="too little"):
        conversion.profile(world.analyse(np.zeros(RATE_HZ, np.float32) + 1e-6))


def test_peaks_are_bent_not_cut() -> None:
    analysis = world.analyse(vowel(140.0))
    loud = conversion.convert(analysis, replace(conversion.identity(), level=20.0))
    assert np.abs(loud).max() < 1.0
    assert np.isfinite(loud).all()


def test_trimmed_ends_join_without_clicks() -> None:
    quiet = np.zeros(RATE_HZ // 2, np.float32)
    speech = joins.trim(np.concatenate([quiet, vowel(140.0) + np.float32(0.05), quiet]))
    assert 1.4 * RATE_HZ < speech.size < 1.7 * RATE_HZ
    assert abs(float(speech[0])) < 1e-3
    assert abs(float(speech[-1])) < 1e-3
    assert joins.trim(quiet).size == 0
    assert joins.pause_after("Well,") < joins.pause_after("Well.") == joins.pause_after("“Well?”")
    assert joins.pause_after("and then") == 0.0


def test_levels_are_those_of_active_speech() -> None:
    tone = (0.1 * np.sqrt(2) * np.sin(2 * np.pi * 200 * np.arange(RATE_HZ) / RATE_HZ)).astype(np.float32)
    padded = np.concatenate([tone, np.zeros(3 * RATE_HZ, np.float32)])
    assert abs(enrol.level_dbfs(padded) + 20.0) < 0.3
    assert enrol.level_dbfs(np.zeros(100, np.float32)) < -100


def test_blend_weights_favour_the_nearest() -> None:
    weights = enrol.softmax_weights(np.array([0.1, 0.9, 0.8, 0.2], np.float32), 2, 0.05)
    assert weights.sum() == pytest.approx(1.0)
    assert weights[1] > weights[2] > 0 == weights[0] == weights[3]
