"""Text of strangers, made harmless where it is shown, and refused where it is kept.

A name with an escape sequence in it moves a terminal's cursor; a line feed forges a line of a log; a
right-to-left override turns `gnp.exe` around. JSON and YAML carry all of these faithfully. So what becomes
part of a record must be printable from the start, and whatever is shown is escaped all the same: files can
be edited by hand, and come from elsewhere.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from .errors import BadRequest

_JOINERS: Final = frozenset("\u200c\u200d")
"""Persian, Hindi and emoji cannot be written without them, and they turn nothing around."""
_ROOMY: Final = frozenset("\n\t ")
_HIDDEN: Final = re.compile(r"[^\x20-\x7e]")


def is_printable(letter: str) -> bool:
    """Whether a character shows as itself: no control, override, lone surrogate or separator of lines."""
    # Spaces other than " " are not printable to Python, and harmless.
    return letter.isprintable() or letter in _JOINERS or unicodedata.category(letter) == "Zs"


def refuse_unprintable(field: str, text: str, *, lines: bool = False) -> None:
    """Raise `BadRequest` for text that cannot be kept; with `lines` it may have line feeds and tabs."""
    for at, letter in enumerate(text, 1):
        if not is_printable(letter) and not (lines and letter in _ROOMY):
            raise BadRequest(
                f"{field} has a character that does not show (U+{ord(letter):04X}, number {at}): leave it out"
            )


def printable(text: str, *, lines: bool = False) -> str:
    """The same text with everything that does not show escaped, as in JSON; what can be read stays as it is.

    With `lines` line feeds stay. JSON that is put through this is the same JSON: there is nothing else to
    escape outside of its strings, and in them line feeds are escaped already.
    """
    if lines:
        return "\n".join(printable(line) for line in text.split("\n"))
    return _HIDDEN.sub(lambda found: _escaped(found[0]), text)


def _escaped(letter: str) -> str:
    if is_printable(letter):
        return letter
    code = ord(letter)
    if code < 0x1_0000:
        return f"\\u{code:04x}"
    code -= 0x1_0000
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"
