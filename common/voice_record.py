"""What is known of a voice: `voice.yaml`, read strictly.

The file is written by us but may be edited by hand or come from elsewhere, so it is bounded in size, parsed
by YAML's safe loader and checked field by field; a mistake is reported with its place. What is in it goes
on into JSON, into logs and before people's eyes, so names must show as what they are, and no words may hold
half a character, which nothing can send on. Consent stands in it as words: a voice belongs to somebody.
"""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from .errors import BadRequest, ConfigError
from .printable import printable, refuse_unprintable
from .yaml_reading import read_yaml

ID: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}\Z")
"What a voice's id looks like; everything else is refused before it gets near a path."
MAX_RECORD_BYTES: Final = 64 * 1024
MAX_WORDS_CHARS: Final = 20_000

_Words = Annotated[str, Meta(min_length=1, max_length=2000)]


@dataclass(frozen=True, slots=True)
class Voice:
    """One voice of a store. `sha256` is of its reference.wav; `text`, where known, is what it says."""

    id: str
    name: str
    language: str
    consent: str
    licence: str
    sha256: str
    created: str
    "UTC, ISO 8601."
    seconds: float
    sample_rate: int
    text: str | None = None
    shipped: bool = False
    "True for a voice that comes with voicebus and cannot be removed."


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    name: Annotated[str, Meta(min_length=1, max_length=200)]
    language: Annotated[str, Meta(pattern=r"^[a-z]{2,3}(-[a-z0-9]{2,8})*\Z")]
    consent: _Words
    licence: Annotated[str, Meta(min_length=1, max_length=200)]
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
    created: Annotated[str, Meta(min_length=10, max_length=40)]
    seconds: Annotated[float, Meta(ge=0, le=86_400)]
    sample_rate: Annotated[int, Meta(ge=4000, le=192_000)]
    text: Annotated[str, Meta(max_length=MAX_WORDS_CHARS)] | None = None
    shipped: bool = False


def parse_record(id: str, data: bytes) -> Voice:
    """Read the bytes of a voice.yaml. Raises `ConfigError` naming the voice and the field that is wrong."""
    if len(data) > MAX_RECORD_BYTES:
        raise ConfigError(
            f"voice.yaml of voice {id!r} is larger than {MAX_RECORD_BYTES} bytes: mend or remove it"
        )
    try:
        raw: Any = read_yaml(data)
        if isinstance(raw, dict):
            # A date without quotes is a date to YAML and words to us.
            raw = {key: _dated(value) for key, value in raw.items()}  # pyright: ignore[reportUnknownVariableType]
        record = msgspec.convert(raw, _Record)
        for field in ("name", "licence", "created"):
            refuse_unprintable(f"its {field}", getattr(record, field))
        f"{record.consent}{record.text}".encode()
    except BadRequest as error:
        raise ConfigError(f"voice.yaml of voice {id!r} is wrong: {error.message}, or remove it") from None
    except (msgspec.ValidationError, ValueError) as error:
        why = printable(" ".join(str(error).split()))[:300]
        raise ConfigError(f"voice.yaml of voice {id!r} is wrong ({why}): mend or remove it") from None
    return Voice(id=id, **msgspec.structs.asdict(record))


def format_record(voice: Voice) -> bytes:
    """Write the bytes of a voice.yaml.

    Raises `msgspec.ValidationError` for a field out of its bounds, `BadRequest` where all together are.
    """
    import yaml

    fields = {name: getattr(voice, name) for name in _Record.__struct_fields__}
    record = msgspec.convert(fields, _Record)
    kept = {
        name: value for name, value in msgspec.structs.asdict(record).items() if value not in (None, False)
    }
    data = yaml.safe_dump(kept, sort_keys=False, allow_unicode=True, width=100).encode()
    if len(data) > MAX_RECORD_BYTES:  # it could never be read again
        raise BadRequest(f"consent and text together take more than {MAX_RECORD_BYTES:,} bytes: shorten them")
    return data


def now_utc() -> str:
    """The present as voice.yaml writes it."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _dated(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime.date) else value
