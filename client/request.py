"""What a caller asks for, checked before it travels and packed into the header every job carries.

The worker would refuse a bad voice id as well, but a second later and from far away. Each distinct
combination of settings is checked once and remembered, so a row of lines in one voice pays for it once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ..common import wire
from ..common.errors import BadRequest, ProtocolError
from ..common.messages import Submit, decode, encode

REMEMBERED: Final = 1024
Options = Mapping[str, Any]
Naming = Callable[[Any, int, bytes, bytes], bytes]
"""Names the jobs of `map`: a line, the number of its piece, header and text give the job's id of 16 bytes.
The same id must never be given for another header or text."""
STATES: Final = ("queued", "running", "done", "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class Manner:
    """How a text is to be spoken. Empty strings mean the default of broker, worker or voice."""

    voice: str = ""
    engine: str = ""
    language: str = ""
    speed: float = 1.0
    lane: str = "batch"
    durable: bool = False
    options: Options = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Utterance:
    """One line for `map`: a text, and whatever of its manner differs from the call's. None: the call's."""

    text: str
    voice: str | None = None
    engine: str | None = None
    language: str | None = None
    speed: float | None = None
    options: Options | None = None


_FIELDS: Final = ("voice", "engine", "language", "speed", "options")


def utterance(item: object) -> Utterance:
    """Read a line in any of its forms: a string, a mapping, or an object with these attributes.

    Raises `BadRequest` for anything else, and for mappings with other keys than `Utterance` has.
    """
    if isinstance(item, str):
        return Utterance(item)
    if isinstance(item, Utterance):
        return item
    if isinstance(item, Mapping):
        values: dict[str, Any] = {str(key): value for key, value in item.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType] - a mapping of unknown types is read key by key
        unknown = set(values) - {"text", *_FIELDS}
        if unknown:
            raise BadRequest(
                f"a line has the key {sorted(unknown)[0]!r}: only text, {', '.join(_FIELDS)} are known"
            )
    else:
        values = {name: getattr(item, name, None) for name in ("text", *_FIELDS)}
    text = values.pop("text", None)
    if not isinstance(text, str):
        raise BadRequest("a line must be a string, or have a string as its `text`")
    return Utterance(text, **values)


class Packer:
    """Makes SUBMIT headers for one client."""

    def __init__(self, tenant: str = "") -> None:
        self._tenant = tenant
        self._checked: set[object] = set()

    def header(self, manner: Manner, characters: int) -> bytes:
        """Pack the header. Raises `BadRequest` naming what is wrong with the manner."""
        options = dict(manner.options)
        submit = Submit(
            manner.engine,
            manner.voice,
            manner.language,
            manner.lane,
            self._tenant,
            characters,
            manner.speed,
            manner.durable,
            options,
        )
        try:
            packed = encode(submit)
            if options:
                decode(packed, Submit)
            else:
                key = (
                    manner.engine,
                    manner.voice,
                    manner.language,
                    manner.lane,
                    manner.speed,
                    manner.durable,
                )
                if key not in self._checked:
                    decode(packed, Submit)
                    if len(self._checked) >= REMEMBERED:
                        self._checked.clear()
                    self._checked.add(key)
        except (ProtocolError, TypeError, ValueError, OverflowError) as error:
            raise BadRequest(_explain(manner, error)) from None
        return packed

    def payload(self, text: str) -> bytes:
        """Encode the text. Raises `BadRequest` or `TextTooLong`."""
        return wire.check_text(text)


def job_bytes(job: str) -> bytes:
    """Read a job's id. Raises `BadRequest`."""
    try:
        found = bytes.fromhex(job) if len(job) == 2 * wire.JOB_ID_BYTES else b""
    except ValueError:
        found = b""
    if len(found) != wire.JOB_ID_BYTES or not any(found):
        raise BadRequest(f"{_shown(job)} is no job's id: give its 32 hexadecimal digits")
    return found


def check_state(state: str) -> None:
    """Raise `BadRequest` unless a job may be in this state, or it is empty."""
    if state and state not in STATES:
        raise BadRequest(f"no job is ever {_shown(state)}: choose one of {', '.join(STATES)}")


def merged(manner: Manner, line: Utterance) -> Manner:
    """The call's manner with what the line says of its own."""
    if line.voice is line.engine is line.language is line.speed is line.options is None:
        return manner
    return Manner(
        manner.voice if line.voice is None else line.voice,
        manner.engine if line.engine is None else line.engine,
        manner.language if line.language is None else line.language,
        manner.speed if line.speed is None else line.speed,
        manner.lane,
        manner.durable,
        {**manner.options, **(line.options or {})},
    )


def _explain(manner: Manner, error: Exception) -> str:
    """Find the one field that is wrong, as the schema names items only by number."""
    for name in ("engine", "voice", "language", "lane", "speed", "options"):
        value = getattr(manner, name)
        try:
            fields: dict[str, Any] = {name: dict(value) if name == "options" else value}
            decode(encode(Submit(**fields)), Submit)
        except (ProtocolError, TypeError, ValueError, OverflowError):
            return f"{name} {_shown(value)} will not do: {_ALLOWED[name]}"
    return f"the request cannot be sent: {error}"


def _shown(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}…"


_ALLOWED: Final = {
    "engine": "give the name of an engine, at most 128 characters",
    "voice": "a voice's id has 1 to 64 of a-z, 0-9, _ and -, and begins with a letter or digit",
    "language": "give a language tag such as en, pt-br or zh-cn",
    "lane": "choose interactive or batch",
    "speed": "give a factor from 0.25 to 4",
    "options": "give short names with strings, numbers, booleans or None, 16 KB in all",
}
