"""The settings of the gpt-sovits engine, checked before anything is connected.

One engine speaks through one server. What has to be said of it is where it is, and how a recording gets onto
its disk, for api_v2 takes recordings by path alone: by a folder that both machines see (the same machine, a
shared volume of a compose file, a network mount), or by an upload to where the server can read it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from ....common.errors import ConfigError
from .languages import SERVER_LANGUAGES, server_language
from .options import OPTIONS, Value, checked

NUMBERS: Final[Mapping[str, tuple[float, float, float]]] = {
    "concurrency": (1, 1, 64),
    "sample_rate": (32_000, 8_000, 48_000),
    "streaming_mode": (1, 0, 3),
    "timeout_s": (180, 0.1, 3600),
    "connect_timeout_s": (5, 0.1, 60),
    "startup_s": (300, 0, 86_400),
    "outage_s": (45, 0, 3600),
    "max_chars": (300, 40, 2000),
}
"""Default, least and most. The server answers a segment that nobody listens to when it is done, in one
piece, and answers nothing else meanwhile, so `timeout_s` must be longer than its slowest segment takes."""
WHOLE: Final = frozenset({"concurrency", "sample_rate", "streaming_mode", "max_chars"})
OTHERS: Final = ("api_url", "languages", "reference_dir", "server_reference_dir", "upload_url")
COMMON_SETTINGS: Final = frozenset({"device", "threads"})
"""Every engine is given these; the work is done elsewhere."""


@dataclass(frozen=True, slots=True)
class Address:
    """A base URL without what is secret in it, which is kept apart and out of every message."""

    url: str
    "Without credentials and without a slash at the end."
    user: str = ""
    password: str = field(default="", repr=False)

    def __str__(self) -> str:
        return self.url


@dataclass(frozen=True, slots=True)
class Settings:
    """What `load` was told. Times in seconds; `max_chars` is for English, a third of it for dense scripts."""

    api: Address
    upload: Address | None
    reference_dir: Path | None
    server_reference_dir: str
    languages: tuple[str, ...]
    defaults: Mapping[str, Value]
    concurrency: int
    sample_rate: int
    streaming_mode: int
    max_chars: int
    timeout_s: float
    connect_timeout_s: float
    startup_s: float
    outage_s: float

    @classmethod
    def read(cls, settings: Mapping[str, Any]) -> Settings:
        """Check raw settings. Raises `ConfigError` for one that is unknown, missing or out of range."""
        own = {*NUMBERS, *OTHERS, *OPTIONS}
        unknown = sorted(set(settings) - own - COMMON_SETTINGS)
        if unknown:
            raise ConfigError(
                f"gpt-sovits has no setting {unknown[0]!r}: allowed are {', '.join(sorted(own))}"
            )
        numbers = {name: _number(name, settings.get(name)) for name in NUMBERS}
        if not settings.get("api_url"):
            raise ConfigError("gpt-sovits needs api_url, the server's address, such as http://127.0.0.1:9880")
        api = _address("api_url", settings["api_url"])
        upload = _address("upload_url", settings["upload_url"]) if settings.get("upload_url") else None
        folder, there = _folders(api, upload, settings)
        return cls(
            api=api,
            upload=upload,
            reference_dir=folder,
            server_reference_dir=there,
            languages=_languages(settings.get("languages")),
            defaults=checked(
                {name: settings[name] for name in OPTIONS if name in settings}, problem=ConfigError
            ),
            concurrency=int(numbers["concurrency"]),
            sample_rate=int(numbers["sample_rate"]),
            streaming_mode=int(numbers["streaming_mode"]),
            max_chars=int(numbers["max_chars"]),
            timeout_s=numbers["timeout_s"],
            connect_timeout_s=numbers["connect_timeout_s"],
            startup_s=numbers["startup_s"],
            outage_s=numbers["outage_s"],
        )


def _number(name: str, value: object) -> float:
    default, least, most = NUMBERS[name]
    if value is None:
        return default
    number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    if not least <= number <= most or (name in WHOLE and number != int(number)):
        kind = "a whole number" if name in WHOLE else "a number"
        raise ConfigError(f"gpt-sovits: {name} must be {kind} from {least:g} to {most:g}, not {value!r}")
    return number


def _address(name: str, value: object) -> Address:
    # What was given is not repeated: it may hold a password.
    wrong = ConfigError(
        f"gpt-sovits: {name} must be http:// or https:// with a host, and without a query or a fragment"
    )
    try:
        parts = urlsplit(value if isinstance(value, str) else "")
        port = parts.port
    except ValueError:
        raise wrong from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise wrong
    if any(character.isspace() or not character.isprintable() for character in parts.geturl()):
        raise wrong
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    clean = SplitResult(
        parts.scheme, host if port is None else f"{host}:{port}", parts.path.rstrip("/"), "", ""
    )
    return Address(urlunsplit(clean), unquote(parts.username or ""), unquote(parts.password or ""))


def _folders(api: Address, upload: Address | None, settings: Mapping[str, Any]) -> tuple[Path | None, str]:
    """Where references are written here, and where the server then reads them."""
    here, there = (_path(name, settings.get(name)) for name in ("reference_dir", "server_reference_dir"))
    if upload is not None:
        if here:
            raise ConfigError("gpt-sovits: set reference_dir or upload_url, not both")
        if not there:
            raise ConfigError(
                "gpt-sovits: upload_url needs server_reference_dir, the folder in which the server then"
                " finds what was uploaded"
            )
        return None, there
    if not here:
        if urlsplit(api.url).hostname not in ("127.0.0.1", "::1", "localhost"):
            raise ConfigError(
                "gpt-sovits: the server reads references from its own disk: set reference_dir (and"
                " server_reference_dir) to a folder that both machines share, or upload_url"
            )
        from platformdirs import user_cache_dir

        here = str(Path(user_cache_dir("voicebus", appauthor=False), "gpt-sovits"))
    folder = Path(here).expanduser().absolute()
    return folder, there or str(folder)


def _path(name: str, value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise ConfigError(f"gpt-sovits: {name} must be a folder's path, not {value!r}")
    return value


def _languages(value: object) -> tuple[str, ...]:
    if value is None:
        return SERVER_LANGUAGES
    given = value.replace(",", " ").split() if isinstance(value, str) else value
    listed = cast("list[object]", given) if isinstance(given, list) else []
    tags = [str(tag).lower().replace("_", "-") for tag in listed]
    wrong = [tag for tag in tags if server_language(tag) is None]
    if wrong or not tags:
        raise ConfigError(
            f"gpt-sovits: languages must be a list of tags of {', '.join(SERVER_LANGUAGES)},"
            f" not {wrong[0] if wrong else value!r}"
        )
    return tuple(dict.fromkeys(tags))
