"""The lines of a batch, from .txt (one an utterance), .csv and .jsonl: read whole and checked first.

A mistake in line 900 should be told before the first 899 are spoken. Texts are not judged here: an empty or
over-long one is that line's failure, not the file's.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from ..common.errors import ConfigError

MAX_INPUT_BYTES: Final = 1024 * 1024 * 1024
FIELDS: Final = ("voice", "engine", "language")


@dataclass(frozen=True, slots=True)
class Line:
    """One line; `index` counts from 1. None: as the command says. `id` is empty where the input has none."""

    index: int
    text: str
    id: str = ""
    voice: str | None = None
    engine: str | None = None
    language: str | None = None
    speed: float | None = None
    options: Mapping[str, Any] | None = None


def read_lines(path: str | os.PathLike[str]) -> list[Line]:
    """Read a file by its suffix. Raises `ConfigError` naming the line that cannot be read."""
    file = Path(path)
    readers = {".txt": _text, ".csv": _csv, ".jsonl": _jsonl, ".ndjson": _jsonl}
    reader = readers.get(file.suffix.lower())
    if reader is None:
        raise ConfigError(f"{file.name} is no batch input: use .txt (a line an utterance), .csv or .jsonl")
    try:
        with open(file, "rb") as stream:
            # Not by its size: that of a device or a pipe says nothing of what comes out of it.
            data = stream.read(MAX_INPUT_BYTES + 1)
        if len(data) > MAX_INPUT_BYTES:
            raise ConfigError(f"{file.name} is larger than {MAX_INPUT_BYTES:,} bytes: split it")
        content = data.decode("utf-8-sig")
        del data
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file.name} is not UTF-8 text (byte {error.start:,}): convert it first") from None
    lines = [
        _line(file.name, index, place, values)
        for index, (place, values) in enumerate(reader(file.name, content), 1)
    ]
    if not lines:
        raise ConfigError(f"{file.name} has no lines to speak")
    return lines


Rows = Iterator[tuple[int, dict[str, Any]]]
"(line number in the file, the values found there)"


def _text(name: str, content: str) -> Rows:
    # Only real line ends: characters such as U+2028 may stand in a text.
    for place, text in enumerate(content.replace("\r\n", "\n").replace("\r", "\n").split("\n"), 1):
        if text.strip():
            yield place, {"text": text.strip()}


def _csv(name: str, content: str) -> Rows:
    rows = csv.reader(io.StringIO(content, newline=""), strict=True)
    try:
        header = [title.strip().lower() for title in next(rows, list[str]())]
        if "text" not in header:
            raise ConfigError(f"{name}: its first line must name the columns, one of them `text`")
        for row in rows:
            if row:
                yield rows.line_num, dict(zip(header, row, strict=False))
    except csv.Error as error:
        raise ConfigError(f"{name} line {rows.line_num}: not valid CSV: {error}") from None


def _jsonl(name: str, content: str) -> Rows:
    for place, row in enumerate(content.split("\n"), 1):
        if not row.strip():
            continue
        try:
            value: object = json.loads(row)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{name} line {place}: not valid JSON: {error}") from None
        if isinstance(value, str):
            yield place, {"text": value}
        elif isinstance(value, dict):
            yield place, cast("dict[str, Any]", value)
        else:
            raise ConfigError(f"{name} line {place}: expected an object with `text`, or a string")


def _line(name: str, index: int, place: int, values: dict[str, Any]) -> Line:
    where = f"{name} line {place}"
    text = values.get("text")
    if not isinstance(text, str):
        raise ConfigError(f"{where}: its `text` is missing or not a string")
    chosen: dict[str, str | None] = {}
    for field in FIELDS:
        value = values.get(field)
        if value is not None and not isinstance(value, str):
            raise ConfigError(f"{where}: its `{field}` is not a string")
        chosen[field] = (value or "").strip() or None
    options: object = values.get("options")
    if options is not None and not isinstance(options, dict):
        raise ConfigError(f"{where}: its `options` are not an object")
    identity = values.get("id") or values.get("name") or ""
    return Line(
        index,
        text,
        str(identity),
        chosen["voice"],
        chosen["engine"],
        chosen["language"],
        _speed(where, values.get("speed")),
        cast("dict[str, Any] | None", options),
    )


def _speed(where: str, value: object) -> float | None:
    if value is None or value == "":
        return None
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        try:
            return float(value)
        except (ValueError, OverflowError):
            pass
    raise ConfigError(f"{where}: its `speed` is not a number: {str(value)[:60]!r}")
