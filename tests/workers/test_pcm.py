from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicebus.common.errors import EngineError
from voicebus.common.wire import MAX_PAYLOAD_BYTES
from voicebus.workers.pcm import checked, pieces


def decoded(samples: list[float]) -> list[int]:
    return np.frombuffer(b"".join(pieces(np.array(samples, np.float32), 4)), "<i2").tolist()


def test_samples_are_rounded_to_nearest_and_clipped() -> None:
    assert decoded([0.0, 0.5, -0.5, 1.0, -1.0]) == [0, 16384, -16384, 32767, -32768]
    assert decoded([0.4 / 32768, 0.6 / 32768, -0.6 / 32768]) == [0, 1, -1]
    assert decoded([1.5, -1.5, 100.0]) == [32767, -32768, 32767]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_an_engine_error(bad: float) -> None:
    with pytest.raises(EngineError, match="not a number"):
        checked(np.array([0.0, bad], np.float32))


@pytest.mark.parametrize(
    "bad", [np.zeros((2, 2), np.float32), np.zeros(3, np.int16), np.float32(0.1), "sound"]
)
def test_anything_but_mono_float_is_an_engine_error(bad: object) -> None:
    with pytest.raises(EngineError, match="instead of float32 mono"):
        checked(bad)


@given(st.integers(0, 700_000), st.sampled_from([2, 32 * 1024, MAX_PAYLOAD_BYTES]))
def test_pieces_are_bounded_and_lose_nothing(size: int, first: int) -> None:
    samples = (np.arange(size) % 65_536 - 32_768).astype(np.float32) / 32_768
    cut = list(pieces(samples, first))
    assert np.array_equal(np.frombuffer(b"".join(cut), "<i2"), np.arange(size) % 65_536 - 32_768)
    assert all(0 < len(piece) <= MAX_PAYLOAD_BYTES and len(piece) % 2 == 0 for piece in cut)
    assert not cut or len(cut[0]) <= first
