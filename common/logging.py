"""Logs as every voicebus process writes them: one line per state change, to the terminal and a rotated file.

Lines name the job and the attempt where there is one, so that a job's life can be read with grep over the
logs of all processes. Whatever does not show is escaped, in messages as in tracebacks, whose last line is
often somebody else's words: no text and no name can forge a line, or tell a terminal what to do.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from .config import Logging
from .printable import printable

_INDENT = "    "
"""Before each line of a traceback: a line of the log begins with a time."""


class _Text(logging.Formatter):
    def __init__(self, component: str) -> None:
        super().__init__()
        self._component = component

    def format(self, record: logging.LogRecord) -> str:
        message = printable(record.getMessage())
        line = f"{_stamp(record)} {record.levelname.lower():7} {self._component} {message}"
        if record.exc_info:
            trace = printable(self.formatException(record.exc_info), lines=True)
            line += "".join(f"\n{_INDENT}{part}" for part in trace.split("\n"))
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
        return printable(json.dumps(line, ensure_ascii=False))


def _stamp(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


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
