"""The engine's side of the phonemiser: finds libespeak-ng, keeps its helper running, asks it for IPA.

The wheel `espeakng-loader` brings the library and its data (1.52), so that every machine pronounces alike
and none needs root; a library installed with the system serves where that wheel is absent. The helper is
a process of its own (see `espeak_helper`); one that has died is started again once before giving up.
"""

from __future__ import annotations

import json
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import IO, Final, cast

from ....common.errors import EngineError, ModelMissing

VOICES: Final[dict[str, str]] = {
    "en-us": "gmw/en-US",
    "en-gb": "gmw/en",
    "es": "roa/es",
    "fr": "roa/fr",
    "hi": "inc/hi",
    "it": "roa/it",
    "pt-br": "roa/pt-BR",
}
"espeak-ng's own name of the voice for each language tag; the paths name exactly one voice each."


def find_library() -> tuple[str, str | None]:
    """Return the path of libespeak-ng and of its data (None: where the library itself looks).

    Raises `ModelMissing` where neither the wheel nor the system has it.
    """
    try:
        import espeakng_loader
    except ImportError:
        from ctypes.util import find_library as find_in_system

        found = find_in_system("espeak-ng")
        if found is None:
            raise ModelMissing(
                "espeak-ng is not installed; run: pip install 'voicebus[kokoro]' (or install espeak-ng)"
            ) from None
        return found, None
    return str(espeakng_loader.get_library_path()), str(espeakng_loader.get_data_path())


class Espeak:
    """Turns text into IPA with stress marks and `^` as tie, a string a clause. Safe between threads."""

    def __init__(self) -> None:
        self._library, self._data = find_library()
        self._lock = Lock()
        self._helper: subprocess.Popen[bytes] | None = None
        self._ask_cached = lru_cache(maxsize=4096)(self._ask)

    def phonemes(self, text: str, language: str) -> list[str]:
        """Phonemise `text`. Raises `EngineError` where the helper fails, `KeyError` for a foreign tag."""
        return list(self._ask_cached(VOICES[language], text))

    def close(self) -> None:
        """End the helper. A later call starts another."""
        with self._lock:
            self._stop()

    def _ask(self, voice: str, text: str) -> tuple[str, ...]:
        line = json.dumps({"library": self._library, "data": self._data, "voice": voice, "text": text})
        with self._lock:
            for attempt in (1, 2):
                try:
                    answer = self._exchange(line)
                except OSError:
                    self._stop()
                    if attempt == 2:
                        raise EngineError(
                            "espeak-ng died twice on this text; leave out unusual characters"
                        ) from None
                else:
                    break
            else:
                raise AssertionError("the loop returns or raises")
        if "error" in answer:
            raise EngineError(f"espeak-ng cannot phonemise: {answer['error']}")
        return tuple(cast("list[str]", answer["phonemes"]))

    def _exchange(self, line: str) -> dict[str, object]:
        helper = self._helper
        if helper is None or helper.poll() is not None:
            script = Path(__file__).with_name("espeak_helper.py")
            # -I keeps PYTHONPATH and this folder's module names out of a program that needs neither.
            helper = self._helper = subprocess.Popen(  # noqa: S603 - our own script, run by our own interpreter
                [sys.executable, "-I", str(script)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        to_helper, from_helper = cast("IO[bytes]", helper.stdin), cast("IO[bytes]", helper.stdout)
        to_helper.write(line.encode() + b"\n")
        to_helper.flush()
        answer = from_helper.readline()
        if not answer:
            raise BrokenPipeError("the helper closed its pipe")
        return cast("dict[str, object]", json.loads(answer))

    def _stop(self) -> None:
        helper, self._helper = self._helper, None
        if helper is None:
            return
        helper.kill()
        helper.wait()
        for pipe in (helper.stdin, helper.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:  # flushing what a dead helper never read
                    continue
