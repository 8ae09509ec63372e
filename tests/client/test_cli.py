"""`vc` used wrongly: one line, the right exit code, nothing written, never a traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from voicebus.client.cli import COMMANDS, cli

NOBODY = "tcp://127.0.0.1:1"


def vc(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(cli, list(arguments), input=stdin)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str) -> None:
    done = vc(name, "--help")
    assert done.exit_code == 0
    assert "--help" in done.output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nope"], "No such command"),
        (["say"], "give the text"),
        (["say", "Hi.", "--file", "x.txt"], "give the text"),
        (["say", "--file", "missing.txt"], "cannot be read"),
        (["say", "Hi.", "-o", "a.xyz"], ".flac"),
        (["say", "Hi.", "-o", "no/such/folder/a.wav"], "make it first"),
        (["say", "Hi.", "--speed", "fast"], "--speed"),
        (["say", "Hi.", "--lane", "fast"], "--lane"),
        (["say", "Hi.", "--option", "novalue"], "KEY=VALUE"),
        (["say", "Hi.", "--config", "missing.yaml"], "config_error"),
        (["batch", "missing.txt", "-o", "out"], "cannot be read"),
        (["batch", "x.txt"], "-o"),
        (["voices", "add", "nina", "a.wav"], "--consent"),
        (["status", "--json", "--watch"], "do not go together"),
        (["jobs", "get"], "ID"),
        (["jobs", "list", "--state", "lost"], "queued"),
        (["jobs", "get", "ab" * 16, "-o", "a.xyz"], ".flac"),
        (["up", "--broker", NOBODY], "of its own"),
    ],
)
def test_wrong_use_is_told_in_a_line_and_exits_with_2(arguments: list[str], says: str) -> None:
    done = vc(*arguments)
    assert done.exit_code == 2, done.output
    assert says in done.stderr
    assert done.stderr.startswith("vc: ")
    assert len(done.stderr.splitlines()) <= 2
    assert not list(Path.cwd().iterdir())


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["say", "", "--broker", NOBODY], "bad_request"),
        (["say", "Hi.", "--voice", "No Voice", "--broker", NOBODY], "bad_request"),
        (["say", "Hi.", "--speed", "9", "--broker", NOBODY], "bad_request"),
        (["say", "Hi.", "--broker", "nonsense"], "bad_request"),
        (["jobs", "get", "0123", "--broker", NOBODY], "bad_request"),
        (["jobs", "get", "00" * 16, "--broker", NOBODY], "bad_request"),
        (["jobs", "get", "ab " * 11, "--broker", NOBODY], "bad_request"),
        (["jobs", "cancel", "not-an-id", "--broker", NOBODY], "bad_request"),
        (["jobs", "get", "ab" * 16, "--timeout", "0", "--broker", NOBODY], "deadline_exceeded"),
        (["voices", "show", "nobody"], "unknown_voice"),
        (["voices", "remove", "amber"], "forbidden"),
        (["voices", "add", "nina", "missing.wav", "--consent", "my own voice"], "bad_request"),
        (["models", "pull", "nothing"], "bad_request"),
    ],
)
def test_what_cannot_be_done_has_a_code_and_exits_with_1(arguments: list[str], code: str) -> None:
    done = vc(*arguments)
    assert done.exit_code == 1, done.output
    assert done.stderr.startswith(f"vc: {code}: ")
    assert len(done.stderr.splitlines()) == 1
    assert not list(Path.cwd().glob("*.wav"))


def test_a_text_is_never_cut_off_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a longer stdin the beginning was spoken as if it were all, and a device was read without an end."""
    monkeypatch.setattr("voicebus.client.commands.say.MAX_FILE_BYTES", 10)
    for arguments in (["-"], ["--file", "/dev/zero"]):
        done = vc("say", *arguments, stdin="eleven chars")
        assert done.exit_code == 2
        assert "larger than 10 bytes" in done.stderr


def test_stdin_that_is_not_text_is_a_bad_request() -> None:
    done = CliRunner().invoke(cli, ["say", "-", "--broker", NOBODY], input=b"\xff\xfe")
    assert done.exit_code == 1
    assert done.stderr.startswith("vc: bad_request: stdin is not UTF-8")


def test_voices_are_listed_without_a_broker() -> None:
    done = vc("voices", "list", "--json")
    assert done.exit_code == 0
    assert '"amber"' in done.stdout


def test_help_and_mistakes_do_not_wait_for_imports() -> None:
    """`vc --help` once took a second, importing what only `vc say` needs."""
    code = (
        "import sys; from voicebus.client.cli import cli\n"
        "try: cli(['--help'])\n"
        "except SystemExit: pass\n"
        "bad = {'numpy', 'zmq', 'msgspec', 'rich', 'yaml', 'asyncio'}\n"
        "print(sorted(bad & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
