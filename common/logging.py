"""Logs as every voicebus process writes them: one line per state change, to the terminal and a rotated file.

Lines name the job and the attempt where there is one, so that a job's life can be read with grep over the
logs of all processes. Control characters are escaped: a text or a name can never forge a line.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TextIO

from .config import Logging

_CONTROLS: Final = {code: f"\\x{code:02x}" for code in (*range(32), 127, 0x85, 0x2028, 0x2029)}


class _Text(logging.Formatter):
    def __init__(self, component: str) -> None:
        super().__init__()
        self._component = component

    def format(self, record: logging.LogRecord) -> str:
        line = f"{_stamp(record)} {record.levelname.lower():7} {self._component} {_message(record)}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


class _Json(logging.Formatter):
    def __init__(self, component: str) -> None:
        super().__init__()
        self._component = component

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": _stamp(record),
            "level": record.levelname.lower(),
            "component": self._component,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def _stamp(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


def _message(record: logging.LogRecord) -> str:
    return record.getMessage().translate(_CONTROLS)


def setup_logging(settings: Logging, component: str, stream: TextIO | None = None) -> None:
    """Send the root logger to `stream` (default stderr) and, if set, the file. Called once by each process.

    A log file that cannot be opened is reported and done without: speech matters more than its log.
    """
    formatter = _Json(component) if settings.format == "json" else _Text(component)
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
        old.close()
    terminal = logging.StreamHandler(sys.stderr if stream is None else stream)
    terminal.setFormatter(formatter)
    root.addHandler(terminal)
    root.setLevel(settings.level)
    if settings.file:
        try:
            Path(settings.file).parent.mkdir(parents=True, exist_ok=True)
            file = logging.handlers.RotatingFileHandler(
                settings.file, maxBytes=settings.max_bytes, backupCount=settings.backups, encoding="utf-8"
            )
        except OSError as error:
            root.warning("no log file: %s cannot be written (%s)", settings.file, error.strerror)
            return
        file.setFormatter(formatter)
        root.addHandler(file)
