"""Phonemes on request: a small program that keeps libespeak-ng in a process of its own.

It is run by file name, never imported: it reads one JSON line `{"library", "data", "voice", "text"}` at a
time and answers each with one line `{"phonemes": [...]}` (a string a clause) or `{"error": "..."}`. The
library is GPL-3, keeps global state and may crash on odd input; behind a pipe none of that reaches the
engine. Standard library only, so that it starts in some 30 ms.
"""

import ctypes
import json
import sys
from typing import Any, Final

_RETRIEVAL: Final = 1  # AUDIO_OUTPUT_RETRIEVAL: no sound device is opened
_DONT_EXIT: Final = 0x8000
_UTF8: Final = 1
_IPA_TIED: Final = 0x02 | 0x80 | ord("^") << 8
_MAX_CLAUSES: Final = 10_000


class Espeak:
    """The library, opened once; the voice is changed only when another one is asked for."""

    def __init__(self, library: str, data: str | None) -> None:
        self._library = ctypes.CDLL(library)
        translate = self._library.espeak_TextToPhonemes
        translate.restype = ctypes.c_char_p
        translate.argtypes = [ctypes.POINTER(ctypes.c_void_p), ctypes.c_int, ctypes.c_int]
        path = data.encode() if data else None
        if self._library.espeak_Initialize(_RETRIEVAL, 0, path, _DONT_EXIT) <= 0:
            raise OSError("espeak-ng found no data of its own")
        self._voice = ""

    def phonemes(self, voice: str, text: str) -> list[str]:
        """Return the IPA of `text`, a string a clause. Raises `OSError` for a voice the library lacks."""
        if voice != self._voice:
            if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
                raise OSError(f"espeak-ng has no voice {voice}")
            self._voice = voice
        buffer = ctypes.create_string_buffer(text.encode())
        position = ctypes.c_void_p(ctypes.addressof(buffer))
        clauses: list[str] = []
        while position.value and len(clauses) < _MAX_CLAUSES:
            found = self._library.espeak_TextToPhonemes(ctypes.byref(position), _UTF8, _IPA_TIED)
            clauses.append(found.decode() if found else "")
        return clauses


def main() -> None:
    """Answer requests until standard input ends."""
    espeak: Espeak | None = None
    for line in sys.stdin.buffer:
        answer: dict[str, Any]
        try:
            request = json.loads(line)
            if espeak is None:
                espeak = Espeak(request["library"], request["data"])
            answer = {"phonemes": espeak.phonemes(request["voice"], request["text"])}
        except (OSError, AttributeError, KeyError, ValueError) as error:
            answer = {"error": str(error)}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
