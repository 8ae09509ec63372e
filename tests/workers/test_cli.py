"""What the command says when it cannot start: one line, a code, an exit status."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from voicebus.workers import cli


def run(folder: Path, *arguments: str, **environ: str) -> tuple[int, str, str]:
    environment = os.environ | {"VOICEBUS_LOGGING__FILE": "null"} | environ
    command = [sys.executable, "-m", "voicebus.workers.cli", *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nope"], "no engine is called 'nope': installed are gpt-sovits, kokoro, "),
        (["tone", "--set", "pitch=3"], "tone has no setting 'pitch': allowed are seconds_per_char"),
        (["tone", "--set", "seconds_per_char=fast"], "must be a number from 0.001 to 10, not 'fast'"),
        (["tone", "--set", "nothing"], "--set takes KEY=VALUE"),
        (["tone", "--set", "crash_on=[1"], "not valid YAML"),
        (["tone", "--broker", "localhost:5556"], "not a broker's address: 'localhost:5556'"),
        (["tone", "--broker", "tcp://localhost"], "not a broker's address: 'tcp://localhost'"),
        (["tone", "--broker", "tcp://127.0.0.1:5556,tcp://x:y"], "'tcp://x:y'"),
        (["tone", "--device", "gpu"], "not a device: 'gpu'"),
        (["tone", "--id", "a name"], "--id must be"),
        (["tone", "--config", "absent.yaml"], "absent.yaml"),
    ],
)
def test_wrong_use_is_one_line_and_exit_2(tmp_path: Path, arguments: list[str], words: str) -> None:
    code, out, err = run(tmp_path, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("vc-worker: config_error: ")
    assert words in err
    assert err.count("\n") == 1


def test_a_missing_model_is_exit_1_and_says_how_to_get_it(tmp_path: Path) -> None:
    code, out, err = run(tmp_path, "kokoro", "--set", f"model_dir={tmp_path}")
    assert (code, out) == (1, "")
    assert err.startswith("vc-worker: model_missing: ")
    assert "vc models pull kokoro" in err
    assert err.count("\n") == 1


def test_settings_are_read_as_yaml() -> None:
    values = [cli._setting(f"x={text}")[1] for text in ("3", "0.5", "true", "text", "", "[1, a]", "a=b")]
    assert values == [3, 0.5, True, "text", "", [1, "a"], "a=b"]


def test_a_broker_that_listens_everywhere_is_found_here() -> None:
    assert cli._reachable("tcp://*:7000") == "tcp://127.0.0.1:7000"
    assert cli._reachable("tcp://0.0.0.0:7000") == "tcp://127.0.0.1:7000"
    assert cli._addresses(("tcp://a:1, tcp://b:2", "tcp://a:1")) == ["tcp://a:1", "tcp://b:2"]
