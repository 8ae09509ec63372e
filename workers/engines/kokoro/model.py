"""The Kokoro-82M network itself: phoneme tokens and a style in, 24 kHz speech out, and its 54 voices.

A voice pack holds one style vector for each length of utterance, [510, 256]. Packs can be averaged: a
weighted mean of several is a voice between them, which is where cloning starts.
"""

from __future__ import annotations

from importlib import import_module
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]

RATE_HZ: Final = 24_000
MAX_TOKENS: Final = 510
STYLE_SIZE: Final = 256


class Network:
    """One onnxruntime session. `run` may be called from several threads.

    Raises `ValueError` where the file is not the model and `ImportError` without onnxruntime.
    """

    def __init__(self, path: Path, threads: int) -> None:
        # Typed by hand: the package's own hints leave most of it unknown.
        ort: Any = import_module("onnxruntime")
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Threads that spin between operators take cores from conversion and from the other workers.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        _refuse_parts_elsewhere(path)
        try:
            self._session: Any = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors share no base of their own
            raise ValueError(f"{path} cannot be loaded: {error}") from error

    def run(self, tokens: list[int], pack: FloatArray, speed: float = 1.0) -> FloatArray:
        """Speak up to `MAX_TOKENS` tokens in the style of `pack` [510, 256]: float32 [samples], 24 kHz."""
        inputs = {
            "tokens": np.array([[0, *tokens, 0]], np.int64),
            "style": np.ascontiguousarray(pack[len(tokens) - 1][None], np.float32),
            "speed": np.array([speed], np.float32),
        }
        (audio,) = cast("list[Any]", self._session.run(None, inputs))
        return np.asarray(audio, np.float32).reshape(-1)


def _refuse_parts_elsewhere(path: Path) -> None:
    """Refuse a network whose weights lie in files that it names: old readers go anywhere for them."""
    try:
        with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as network:
            # The key by which ONNX names such a file; it stands in no network that is whole.
            elsewhere = network.find(b"location") >= 0
    except ValueError:
        elsewhere = False  # an empty file cannot be mapped, and is refused as what it is
    if elsewhere:
        raise ValueError(f"{path} is refused: its weights lie in other files")


def load_packs(folder: Path) -> tuple[tuple[str, ...], FloatArray]:
    """Return the voices' names in order and their packs [voices, 510, 256].

    Raises `ValueError` naming a file that is no pack.
    """
    files = sorted(folder.glob("*.bin"))
    for file in files:
        if not file.is_file() or file.stat().st_size != MAX_TOKENS * STYLE_SIZE * 4:
            raise ValueError(f"{file} is no voice")
    packs = [np.fromfile(file, "<f4").reshape(MAX_TOKENS, STYLE_SIZE) for file in files]
    return tuple(file.stem for file in files), np.stack(packs)
