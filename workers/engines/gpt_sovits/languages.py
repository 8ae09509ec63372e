"""Between the bus's language tags and the names that api_v2 knows.

The server knows five languages and no variants: whatever is Chinese is `zh` (which there means Chinese with
English words in it), except for what is spoken in Hong Kong and Macau, which it calls `yue`. Servers of
version 1 know `en`, `zh` and `ja` alone; the setting `languages` then says so.
"""

from __future__ import annotations

from typing import Final

SERVER_LANGUAGES: Final = ("en", "zh", "ja", "yue", "ko")
UNKNOWN: Final = "auto"
"The server's name for a language it shall guess; every version has it."
DENSE: Final = frozenset({"zh", "ja", "yue", "ko"})
"Written with about a third as many characters a second as English."

_CANTONESE: Final = frozenset({"zh-hk", "zh-mo", "zh-yue", "zh-hant-hk", "zh-hant-mo"})
_ALIASES: Final = {"cmn": "zh"}


def server_language(tag: str) -> str | None:
    """The server's name for a BCP 47 tag, None for a language it does not know."""
    wanted = tag.lower().replace("_", "-")
    if wanted in _CANTONESE:
        return "yue"
    bare = wanted.partition("-")[0]
    bare = _ALIASES.get(bare, bare)
    return bare if bare in SERVER_LANGUAGES else None
