"""The audit fails on a vulnerable release, and never says `clean` of what nobody was asked about."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from requirements.audit import CANARY, CLEAN, NOT_AUDITED, VULNERABLE, Source, audit, main
from requirements.locks import LOCKS, pinned_by_version

KNOWN = {"id": "PYSEC-0000-1", "summary": "made up", "modified": "2026-01-01T00:00:00Z", "affected": []}


class Advisories(ThreadingHTTPServer):
    """Answers OSV's queries from what it was told, and remembers who was asked about."""

    def __init__(self) -> None:
        self.known = {(CANARY.name, CANARY.version)}
        self.fails_on: str | None = None
        self.asked: set[tuple[str, str]] = set()
        super().__init__(("127.0.0.1", 0), _Answer)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1/query"

    @property
    def arguments(self) -> list[str]:
        return ["--service", "osv", "--osv-url", self.url]

    @property
    def source(self) -> Source:
        return Source(("--vulnerability-service", "osv", "--osv-url", self.url))


class _Answer(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server = self.server
        assert isinstance(server, Advisories)
        query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        release = (query["package"]["name"], query["version"])
        server.asked.add(release)
        body = json.dumps({"vulns": [KNOWN]} if release in server.known else {}).encode()
        self.send_response(500 if release[0] == server.fails_on else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def advisories() -> Iterator[Advisories]:
    with Advisories() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_it_asks_about_every_release_of_every_lock(
    advisories: Advisories, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also of those that another Python gets: pip-audit by itself passes over what is not for its own."""
    pinned = {(pin.name, pin.version) for lock in LOCKS for pin in lock.pins()}
    pinned |= {(pin.name, pin.version) for pin in pinned_by_version()}
    assert main(advisories.arguments) == CLEAN
    assert advisories.asked == pinned | {(CANARY.name, CANARY.version)}
    assert len([name for name, _ in advisories.asked if name == "numpy"]) == 3
    assert ("torch", "2.13.0") in advisories.asked
    assert f"{len(pinned)} releases: 0 known to be vulnerable, 0 not audited" in capsys.readouterr().out


def test_it_fails_on_a_vulnerable_pin(advisories: Advisories, capsys: pytest.CaptureFixture[str]) -> None:
    pin = next(pin for pin in LOCKS[0].pins() if pin.name == "aiohttp")
    advisories.known.add((pin.name, pin.version))
    assert audit(LOCKS[:1], advisories.source) == VULNERABLE
    assert f"VULNERABLE: aiohttp {pin.version}: PYSEC-0000-1" in capsys.readouterr().out


def test_a_source_that_knows_nothing_is_not_believed(
    advisories: Advisories, capsys: pytest.CaptureFixture[str]
) -> None:
    """Alone, pip-audit finds no vulnerabilities where an index serves no advisories, and ends with 0."""
    advisories.known.clear()
    assert main(advisories.arguments) == NOT_AUDITED
    said = capsys.readouterr()
    assert "NOT AUDITED: no advisory database could be asked" in said.err
    assert "0 known to be vulnerable" not in said.out


def test_a_source_that_fails_half_way_is_not_believed(
    advisories: Advisories, capsys: pytest.CaptureFixture[str]
) -> None:
    advisories.fails_on = "aiohttp"
    assert audit(LOCKS[:1], advisories.source) == NOT_AUDITED
    assert "NOT AUDITED" in capsys.readouterr().err


def test_no_source_is_not_a_clean_one(advisories: Advisories, capsys: pytest.CaptureFixture[str]) -> None:
    advisories.server_close()
    assert main(advisories.arguments) == NOT_AUDITED
    assert "NOT AUDITED: no advisory database could be asked" in capsys.readouterr().err
