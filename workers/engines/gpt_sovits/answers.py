"""What an answer of the server means, other than audio: ours, the asker's or the server's fault.

api_v2 says little by its status: everything that goes wrong in its pipeline is a 400 with the words "tts
failed", so the words are read for those few things that can be mended. What cannot be told from the outside
is kept in the server's own words, cut to a length that fits into a log line.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final, cast
from urllib.parse import urlsplit

from ....common.errors import BadRequest, BusError, EngineError, Overloaded

AWAY: Final = frozenset({429, 502, 503, 504})
"A gateway says so in place of a server that is not there, or has too much to do."
MAX_WORDS: Final = 300
RETRY_AFTER_S: Final = 5.0

# In the server's thirteen languages: "3~10秒", "3-10 second", "3 à 10", "3 a 10", "3～10".
_THREE_TO_TEN: Final = re.compile(r"(?<!\d)3\s?(?:[~～–-]|à|a|to)\s?10(?!\d)")


class ServerAwayError(Exception):
    """Nobody is there to answer: the same request may be made again later."""


class BrokenOffError(ServerAwayError):
    """An answer had begun and ended before its time."""


class NotPlacedError(EngineError):
    """The reference is not where the server looks for it."""


def refusal(status: int, content_type: str, body: bytes, location: str = "") -> Exception:
    """Return the error that an answer without audio stands for; `body` may be cut."""
    words = _plain(body)
    if status in AWAY:
        return ServerAwayError(f"it answered {status}")
    if 300 <= status < 400:
        target = _short(_host(location)) or "another path"
        return EngineError(
            f"the GPT-SoVITS server redirects to {target}, which is not followed: set api_url to where it is"
        )
    if status in (401, 403, 407):
        return EngineError(f"the GPT-SoVITS server refused our credentials ({status}): set them in api_url")
    if status in (404, 405):
        return EngineError(f"what answers at api_url is not an api_v2 of GPT-SoVITS ({status} for POST /tts)")
    if status == 422:
        return BadRequest(f"the GPT-SoVITS server does not take {_fields(body)}")
    if status == 400:
        return _failed(body, words)
    return EngineError(f"the GPT-SoVITS server answered {status}: {words or 'without a word'}")


def _host(location: str) -> str:
    """Where a redirect leads, without what is secret in it; empty where that is no other host."""
    try:
        return urlsplit(location).netloc.rpartition("@")[2]
    except ValueError:
        return "an address that is none"


def _failed(body: bytes, words: str) -> BusError:
    parsed = _object(body)
    message = parsed.get("message")
    if not isinstance(message, str):
        return EngineError(f"the GPT-SoVITS server answered 400: {words or 'without a word'}")
    if "Exception" not in parsed:
        return BadRequest(f"the GPT-SoVITS server refuses this: {_short(message)}")
    return failure(str(parsed["Exception"]))


def failure(exception: str) -> BusError:
    """Return the error that the pipeline's own words stand for."""
    if "not exists" in exception:
        return NotPlacedError(
            "the GPT-SoVITS server does not find the reference that was placed for it: see that reference_dir"
            " and server_reference_dir are the same folder, or that upload_url leads there"
        )
    if _THREE_TO_TEN.search(exception):
        return BadRequest("the GPT-SoVITS server takes references of 3 to 10 s only: give another recording")
    if "prompt_text cannot be empty" in exception:
        return BadRequest(
            "GPT-SoVITS of version 3 and 4 needs to know what is said in the reference: give a recording of"
            " at most 10 s with its transcript"
        )
    if "out of memory" in exception.lower():
        return Overloaded("the GPT-SoVITS server ran out of memory", retry_after_s=RETRY_AFTER_S)
    return EngineError(f"the GPT-SoVITS server failed: {_short(exception) or 'without a word'}")


def _fields(body: bytes) -> str:
    detail = _object(body).get("detail")
    entries = cast("list[object]", detail) if isinstance(detail, list) else []
    names: list[str] = []
    for entry in entries:
        place = cast("dict[str, object]", entry).get("loc") if isinstance(entry, dict) else None
        if isinstance(place, list | tuple):
            names.append(".".join(str(part) for part in cast("list[object]", place) if part != "body"))
    return _short(", ".join(dict.fromkeys(name for name in names if name))) or "this request"


def _object(body: bytes) -> dict[str, Any]:
    try:
        parsed: object = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", parsed) if isinstance(parsed, dict) else {}


def _plain(body: bytes) -> str:
    return _short(body.decode(errors="replace"))


def _short(text: str) -> str:
    """One printable line of at most `MAX_WORDS` characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: MAX_WORDS * 4]).split())
    return line if len(line) <= MAX_WORDS else f"{line[:MAX_WORDS]}…"
