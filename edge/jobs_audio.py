"""A finished job's sound on its way out: all lines as one WAV, or each in a ZIP, read as it leaves.

A book is gigabytes. Neither form is made whole anywhere: a thread reads a piece, the socket takes it, and
only then the next is read.
"""

from __future__ import annotations

import asyncio
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from aiohttp import web

from ..client.batch import MANIFEST, read_records
from ..common.audio import StreamResampler, to_s16
from ..common.text import SENTENCE_PAUSE_S
from .encoders import wav_header

BLOCK_FRAMES: Final = 1 << 19
BLOCK_BYTES: Final = 1 << 20
MAX_WAV_BYTES: Final = 0xFFFF_FFFF - 64


@dataclass(frozen=True, slots=True)
class SoundFiles:
    """The files of a job in the order of its lines."""

    folder: Path
    names: tuple[str, ...]

    @classmethod
    def of(cls, folder: Path) -> SoundFiles:
        """Those that the manifest has as done."""
        try:
            with open(folder / MANIFEST, "rb") as file:
                records = {record["index"]: record for record in read_records(file)}
        except FileNotFoundError:
            records = {}
        done = [record for _, record in sorted(records.items()) if record.get("status") == "done"]
        return cls(folder, tuple(str(record["file"]) for record in done))


async def wav_of(request: web.Request, files: SoundFiles, id: str) -> web.StreamResponse:
    """Answer with one WAV file."""
    return await _send(request, _wav(files), "audio/wav", f"{id}.wav")


async def zip_of(request: web.Request, files: SoundFiles, id: str) -> web.StreamResponse:
    """Answer with a ZIP file of the lines' files and the manifest."""
    return await _send(request, _zip(files), "application/zip", f"{id}.zip")


async def _send(
    request: web.Request, parts: Iterator[bytes], media_type: str, name: str
) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Disposition": f'attachment; filename="{name}"'})
    response.content_type = media_type
    await response.prepare(request)
    while (part := await asyncio.to_thread(next, parts, None)) is not None:
        await response.write(part)
    await response.write_eof()
    return response


def _wav(files: SoundFiles) -> Iterator[bytes]:
    import soundfile

    infos = [soundfile.info(files.folder / name) for name in files.names]
    rate_hz = infos[0].samplerate
    pause = bytes(2 * int(SENTENCE_PAUSE_S * rate_hz))
    size: int | None = None
    if all(info.samplerate == rate_hz and info.format in ("WAV", "FLAC") for info in infos):
        size = sum(2 * info.frames for info in infos) + len(pause) * (len(infos) - 1)
    yield wav_header(rate_hz, size if size is None or size <= MAX_WAV_BYTES else None)
    for number, name in enumerate(files.names):
        if number:
            yield pause
        with soundfile.SoundFile(files.folder / name) as file:
            resampler = StreamResampler(file.samplerate, rate_hz)
            exact = file.samplerate == rate_hz
            while (block := np.asarray(file.read(BLOCK_FRAMES, dtype="int16"), np.int16)).size:
                yield _bytes(block if exact else to_s16(resampler.feed(block)))
            if not exact:
                yield _bytes(to_s16(resampler.feed(np.zeros(0, np.int16), last=True)))


def _bytes(samples: np.ndarray[tuple[int, ...], np.dtype[np.int16]]) -> bytes:
    return samples.astype("<i2", copy=False).tobytes()


def _zip(files: SoundFiles) -> Iterator[bytes]:
    outlet = _Outlet()
    # Encoded speech does not get smaller; a ZIP that cannot seek tells sizes behind each file.
    with zipfile.ZipFile(outlet, "w", zipfile.ZIP_STORED) as archive:
        for name in (*files.names, MANIFEST):
            with (
                open(files.folder / name, "rb") as source,
                archive.open(zipfile.ZipInfo(name), "w", force_zip64=True) as target,
            ):
                while block := source.read(BLOCK_BYTES):
                    target.write(block)
                    yield outlet.take()
    yield outlet.take()


class _Outlet:
    """What is written to it can be taken away; it cannot seek, and `zipfile` sees that."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing is kept back."""

    def close(self) -> None:
        """Nothing is held open; what was written last is still to be taken."""

    def take(self) -> bytes:
        taken = b"".join(self._parts)
        self._parts.clear()
        return taken
