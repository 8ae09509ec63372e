"""`vc-broker` as a process: what it prints, what it refuses, how it ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "voicebus.broker.cli"]
ANY = ["--frontend", "tcp://127.0.0.1:*", "--backend", "tcp://127.0.0.1:*"]
ENV = os.environ | {"VOICEBUS_LOGGING__FILE": "null"}


def test_it_says_where_it_listens_and_ends_well(tmp_path: Path) -> None:
    process = subprocess.Popen([*COMMAND, *ANY], stdout=subprocess.PIPE, text=True, cwd=tmp_path, env=ENV)
    assert process.stdout is not None
    with process.stdout:
        ready = process.stdout.readline()
        assert ready.startswith("vc-broker ready frontend=tcp://127.0.0.1:")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--frontend", "tcp://0.0.0.0:5555"], "no keys"),
        (["--frontend", "tcp://*:5555"], "no keys"),
        (["--backend", "tcp://192.0.2.1:5556"], "no keys"),
        (["--frontend", "localhost"], "broker.frontend"),
        (["--strategy", "fair"], "lru, round_robin, least_load, random"),
        (["--config", "absent.yaml"], "cannot be read"),
    ],
)
def test_what_cannot_be_is_one_line_and_exit_2(arguments: list[str], says: str, tmp_path: Path) -> None:
    refused(arguments, says, tmp_path)


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        refused(["--backend", f"tcp://127.0.0.1:{taken.getsockname()[1]}"], "cannot listen", tmp_path)


def refused(arguments: list[str], says: str, folder: Path) -> None:
    command = [*COMMAND, *ANY, *arguments]
    run = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=ENV, timeout=30)
    assert run.returncode == 2
    assert run.stderr.startswith("vc-broker: config_error: ")
    assert says in run.stderr
    assert run.stderr.count("\n") == 1
