"""What a broker, a worker or a child process says is shown on a terminal, and can do nothing else there."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from voicebus.client import supervisor
from voicebus.client.cli import cli
from voicebus.client.commands import jobs, status
from voicebus.client.commands.say import summary
from voicebus.client.speech import Speech
from voicebus.client.supervisor import Plan, Supervisor
from voicebus.common.errors import EngineError

HOSTILE = "\x1b[2J\x1b]52;c;ZXZpbA==\x07\x9b2J\r\u202egnp\u2066[red]x[/red]\n2026 info broker all is well"
JOB: dict[str, Any] = dict.fromkeys(
    ("id", "state", "engine", "voice", "lane", "characters", "attempts", "code", "message"), HOSTILE
)
STATUS: dict[str, Any] = {
    "broker": HOSTILE,
    "workers": [{**dict.fromkeys(("id", "engine", "state"), HOSTILE), "warm_voices": [HOSTILE]}],
    "failures": {HOSTILE: 1},
}


def drawn(view: Any) -> str:
    screen = io.StringIO()
    Console(file=screen, force_terminal=True, color_system=None, width=4000).print(view)
    return screen.getvalue()


@pytest.mark.parametrize("view", [lambda: status.view(STATUS, 1.0), lambda: jobs.view([JOB])])
def test_names_from_the_bus_move_no_cursor_and_forge_no_line(view: Callable[[], Any]) -> None:
    """rich takes its own marks for marks, and lets escape sequences through."""
    text = drawn(view())
    assert all(line.isprintable() for line in text.split("\n"))
    assert "[red]x" in text
    assert not any(line.startswith("2026 info") for line in text.splitlines())


def test_the_line_about_a_speech_shows_names_as_they_are() -> None:
    speech = Speech(bytes(200), 8000, HOSTILE, HOSTILE)
    assert summary("out.wav", "amber", speech).isprintable()


def test_a_broker_cannot_say_more_than_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise EngineError(HOSTILE)

    monkeypatch.setattr("voicebus.client.commands.shared.Setting.client", refused)
    done = CliRunner().invoke(cli, ["status"])
    assert done.exit_code == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.rstrip("\n").isprintable()


def test_what_a_child_prints_is_passed_on_as_it_shows() -> None:
    said: list[str] = []
    above = Supervisor(Plan([]), None, said.append)
    supervisor.Supervisor._line(above, "broker", HOSTILE.replace("\n", " "))
    assert said[0].startswith("[broker] \\u001b[2J")
    assert said[0].isprintable()
