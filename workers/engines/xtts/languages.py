"""Which languages this installation of XTTS speaks, and how long a segment of each may be.

The model speaks seventeen. Three of them are written in ways that coqui turns into Latin letters with
packages of their own; where these are missing the language is not offered, rather than failing in a job.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Final

log = logging.getLogger(__name__)

MAX_CHARS: Final[Mapping[str, int]] = {
    "en": 250,
    "de": 253,
    "fr": 273,
    "es": 239,
    "it": 213,
    "pt": 203,
    "pl": 224,
    "zh-cn": 82,
    "ar": 166,
    "cs": 186,
    "ru": 182,
    "nl": 251,
    "tr": 226,
    "ja": 71,
    "hu": 224,
    "ko": 95,
    "hi": 150,
}
"""Coqui's own limits: above them the model swallows or repeats words."""
NEEDS: Final[Mapping[str, tuple[str, ...]]] = {
    "zh-cn": ("pypinyin",),
    "ja": ("cutlet", "fugashi", "unidic_lite"),
    "ko": ("ko_speech_tools",),
}


def available() -> tuple[str, ...]:
    """The languages whose packages are installed; English is always the first."""
    found: list[str] = []
    for language in MAX_CHARS:
        lacking = [package for package in NEEDS.get(language, ()) if find_spec(package) is None]
        if lacking:
            log.warning("xtts does not offer %s: not installed: %s", language, ", ".join(lacking))
        else:
            found.append(language)
    return tuple(found)


def max_chars(language: str) -> int:
    """Most characters of one segment."""
    bare = language.lower().split("-", 1)[0]
    return MAX_CHARS.get("zh-cn" if bare == "zh" else bare, MAX_CHARS["en"])
