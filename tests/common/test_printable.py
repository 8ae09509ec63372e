"""What does not show is refused where it is kept, escaped where it is shown; all scripts are let through."""

from __future__ import annotations

import json

import pytest

from voicebus.common.errors import BadRequest
from voicebus.common.printable import printable, refuse_unprintable

HIDDEN = [
    "\x00",
    "\n",
    "\r",
    "\t",
    "\x1b[2J",
    "\x7f",
    "\x9b31m",
    "\u2028",
    "\u2029",
    "\u202e",
    "\u2066",
    "\ufeff",
    "\ud800",
]


@pytest.mark.parametrize(
    "text", ["Zoë O'Neil", "Ελένη", "王小明", "नमस्ते", "علی‌رضا", "שרה", "👩‍🎤", "a\u00a0b", "#1 (draft)"]
)
def test_names_of_people_are_left_as_they_are(text: str) -> None:
    refuse_unprintable("name", text)
    assert printable(text) == text


@pytest.mark.parametrize("text", HIDDEN)
def test_what_does_not_show_is_refused_and_escaped(text: str) -> None:
    with pytest.raises(BadRequest, match="U\\+"):
        refuse_unprintable("name", f"a{text}b")
    shown = printable(f"a{text}b")
    assert shown.isprintable()
    assert json.loads(f'"{shown}"') == f"a{text}b"


def test_words_of_several_lines_may_have_line_feeds_and_no_more() -> None:
    refuse_unprintable("consent", "one\ntwo\tthree", lines=True)
    with pytest.raises(BadRequest, match=r"U\+001B, number 5"):
        refuse_unprintable("consent", "one\n\x1b[2J", lines=True)
    assert printable("one\ntwo\x1b", lines=True) == "one\ntwo\\u001b"
