"""A stranger's recording decoded in a process of its own.

    python -m voicebus.edge.decoding FILE

It may take a gigabyte of memory and some seconds of processor time, can open nothing for writing but
its output, and whatever it does to itself the edge goes on. It prints the recording as a WAV file of a minute
at most, or fails with one line that says why.
"""

from __future__ import annotations

import asyncio
import io
import os
import resource
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

from ..common.errors import BadRequest, BusError, Overloaded, error_from_code

MEMORY_BYTES: Final = 1 << 30
PROCESSOR_S: Final = 20
WALL_S: Final = 30.0
MAX_SECONDS: Final = 60.0
KEPT: Final = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR")
"""Of the environment, whose other variables may be keys and passwords."""
AT_ONCE: Final = 2
MAX_WAITING: Final = 8
_places = asyncio.Semaphore(AT_ONCE)
_waiting = 0


async def decode_apart(file: Path) -> bytes:
    """A recording as WAV.

    Raises `BadRequest` for what is no recording, or one that takes too much, and `Overloaded`.
    """
    global _waiting
    if _waiting >= MAX_WAITING:
        raise Overloaded("too many recordings are being decoded", retry_after_s=5)
    _waiting += 1
    try:
        return await _decode(file)
    finally:
        _waiting -= 1


async def _decode(file: Path) -> bytes:
    async with _places:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "voicebus.edge.decoding",
            str(file),
            stdin=asyncio.subprocess.DEVNULL,
            env={name: os.environ[name] for name in KEPT if name in os.environ},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(WALL_S):
                wav, said = await process.communicate()
        except TimeoutError:
            raise BadRequest("the recording took too long to decode: give a shorter one, as WAV") from None
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
    if process.returncode == 0:
        return wav
    line = said.decode("utf-8", "replace").strip().splitlines()[-1:] or [""]
    code, _, message = line[0].partition(": ")
    if code in BusError.by_code:
        raise error_from_code(code, message)
    raise BadRequest("the recording could not be decoded within its limits: give a shorter one, as WAV")


def main(path: str) -> int:
    """Decode one file. Returns the exit code."""
    import numpy as np
    import soundfile

    from ..common.audio import decode

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (PROCESSOR_S, PROCESSOR_S))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        decoded = decode(path, max_seconds=MAX_SECONDS, cut=True)
        out = io.BytesIO()
        soundfile.write(out, np.asarray(decoded.samples), decoded.rate_hz, format="WAV", subtype="PCM_16")
    except BusError as error:
        print(error, file=sys.stderr)
        return 1
    except MemoryError:
        print(BadRequest("the recording takes too much memory: give a shorter one"), file=sys.stderr)
        return 1
    sys.stdout.buffer.write(out.getvalue())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
