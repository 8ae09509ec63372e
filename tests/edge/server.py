"""A real `vc-edge` before a real bus, for as long as a `with` block runs."""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import httpx

from voicebus.client.launch import Bus
from voicebus.client.processes import Child

READY_S: Final = 30.0
END_S: Final = 15.0
_HTTP = re.compile(r"http=(\S+)")
_WYOMING = re.compile(r"wyoming=tcp://(\S+):(\d+)")
OPEN: Final[Mapping[str, Any]] = {"ip_rpm": 100_000, "global_rpm": 1_000_000, "concurrency": 500}
"""No test of something else should meet a limit."""


class EdgeProcess:
    """`edge` is the section of config.yaml, `config` the rest of it."""

    def __init__(
        self,
        broker: str | Bus,
        *,
        edge: Mapping[str, Any] | None = None,
        config: Mapping[str, Any] | None = None,
        folder: Path | None = None,
    ) -> None:
        self._broker = broker if isinstance(broker, str) else broker.frontend
        self._own = tempfile.TemporaryDirectory(prefix="voicebus-edge-")
        self.folder = folder or Path(self._own.name)
        self._file = self.folder / "config.yaml"
        section = {"port": 0, "jobs": str(self.folder / "jobs"), **OPEN, **(edge or {})}
        quiet = {
            "logging": {"file": None, "level": "INFO"},
            "voices": {"path": str(self.folder / "voices")},
        }
        self._file.write_text(json.dumps({**quiet, **(config or {}), "edge": section}), encoding="utf-8")
        self.child: Child | None = None
        self.url = ""
        self.wyoming: tuple[str, int] | None = None

    def __enter__(self) -> EdgeProcess:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.child is not None:
            self.child.end(END_S)
        self._own.cleanup()

    def start(self) -> None:
        """Start, or start again."""
        command = [
            sys.executable,
            "-m",
            "voicebus.edge.cli",
            "--config",
            str(self._file),
            "--broker",
            self._broker,
        ]
        self.child = Child("edge", command, "vc-edge ready", bound=True)
        line = self.child.wait_ready(READY_S)
        found = _HTTP.search(line)
        assert found is not None, line
        self.url = found[1]
        house = _WYOMING.search(line)
        self.wyoming = None if house is None else (house[1], int(house[2]))

    def client(self, **arguments: Any) -> httpx.Client:
        """An HTTP client of it."""
        return httpx.Client(base_url=self.url, timeout=30, **arguments)

    @property
    def websocket(self) -> str:
        """Where its WebSockets are."""
        return self.url.replace("http", "ws", 1)
