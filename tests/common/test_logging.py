"""Logs: one event one line, whatever a peer puts into a name."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from voicebus.common.config import Logging
from voicebus.common.logging import setup_logging


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    root.handlers.clear()
    yield
    for handler in root.handlers:
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)


def test_a_name_cannot_forge_a_line(tmp_path: Path) -> None:
    stream = io.StringIO()
    setup_logging(Logging(file=str(tmp_path / "sub/bus.log")), "broker", stream)
    logging.getLogger("x").info("worker %s registered", "evil\n2026-01-01 info broker all is well\x1b[2J")
    lines = stream.getvalue().splitlines()
    assert len(lines) == 1
    assert "evil\\u000a2026" in lines[0]
    assert "\x1b" not in lines[0]
    assert (tmp_path / "sub/bus.log").read_text() == stream.getvalue()


FORGED = (
    "bad\n2026-01-01T00:00:00.000+00:00 info    broker all is well\r\x1b[2J\x9b2J\u202e\u2028x\x85y\ud800"
)


def test_an_exception_cannot_forge_a_line_or_move_the_cursor() -> None:
    """Its words are the last of a traceback, which was written as it came."""
    stream = io.StringIO()
    setup_logging(Logging(file=None), "broker", stream)
    try:
        raise ValueError(FORGED)
    except ValueError:
        logging.getLogger("x").exception("it failed: %s", FORGED)
    first, *trace = stream.getvalue().splitlines()
    assert "it failed: bad\\u000a2026" in first
    assert len(trace) == 5
    assert all(line.startswith("    ") for line in trace)
    assert all(line.isprintable() for line in (first, *trace))


def test_a_json_line_is_one_line_to_whoever_reads_lines() -> None:
    """Some take U+2028 and U+0085 for the end of one, and a terminal takes U+009B for an escape."""
    stream = io.StringIO()
    setup_logging(Logging(file=None, format="json"), "worker", stream)
    try:
        raise ValueError(FORGED)
    except ValueError:
        logging.getLogger("x").exception(FORGED)
    (line,) = stream.getvalue().splitlines()
    assert line.isprintable()
    event = json.loads(line)
    assert event["message"] == FORGED
    assert FORGED in event["exception"]


def test_json_lines_are_json() -> None:
    stream = io.StringIO()
    setup_logging(Logging(file=None, format="json"), "worker", stream)
    logging.getLogger("x").warning("job=%s attempt=%d\nagain", "ab", 2)
    (line,) = stream.getvalue().splitlines()
    event = json.loads(line)
    assert (event["component"], event["level"]) == ("worker", "warning")
    assert event["message"] == "job=ab attempt=2\nagain"


def test_a_log_file_that_cannot_be_written_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    stream = io.StringIO()
    setup_logging(Logging(file=str(tmp_path / "file/bus.log")), "broker", stream)
    assert "no log file" in stream.getvalue()
