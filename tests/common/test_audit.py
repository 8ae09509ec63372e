"""The audit file: nothing is done that it does not have, nobody can forge a line, nothing is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from voicebus.client.cli import cli
from voicebus.common.audit import Actor, Audit
from voicebus.common.errors import Conflict, StorageError
from voicebus.common.voices import VoiceStore

SOMEBODY = Actor("edge", "01234567", "laptop", "studio", "198.51.100.7")


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state" / "audit.jsonl"


def test_an_act_stands_there_before_it_is_done_and_after(file: Path) -> None:
    audit = Audit(file)
    with audit.act("voice.add", SOMEBODY, voice="nina", consent="Nina, by letter") as act:
        (begun,) = lines(file)
        assert (begun["step"], begun["voice"], begun["consent"]) == ("begun", "nina", "Nina, by letter")
        assert (begun["door"], begun["key"], begun["tenant"]) == ("edge", "01234567", "studio")
        assert (begun["name"], begun["address"]) == ("laptop", "198.51.100.7")
        act.add(sha256="a" * 64)
    _, done = lines(file)
    assert (done["step"], done["act"], done["sha256"]) == ("done", begun["act"], "a" * 64)
    assert begun["at"].endswith("Z")
    assert begun["at"] <= done["at"]
    assert file.stat().st_mode & 0o777 == 0o600


def test_an_act_that_fails_is_told_with_its_code(file: Path) -> None:
    with pytest.raises(Conflict), Audit(file).act("voice.add", SOMEBODY, voice="nina"):
        raise Conflict("there is one")
    assert [(line["step"], line.get("code")) for line in lines(file)] == [
        ("begun", None),
        ("failed", "conflict"),
    ]


def test_what_cannot_be_written_down_is_not_done(file: Path) -> None:
    file.mkdir(parents=True)
    done = False
    with pytest.raises(StorageError, match="nothing was done"), Audit(file).act("voice.add", SOMEBODY):
        done = True
    assert not done


def test_a_link_is_not_followed(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    file.parent.mkdir()
    file.symlink_to(other)
    with pytest.raises(StorageError), Audit(file).act("voice.remove", SOMEBODY):
        pass
    assert not other.exists()


def test_an_end_that_cannot_be_written_is_logged_and_undoes_nothing(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Audit(file).act("voice.add", SOMEBODY, voice="nina"):
        file.unlink()
        file.mkdir()
    assert "does not take the end of act" in caplog.text


FORGED = 'x\n{"step":"done","voice":"forged"}\r\u2028\x1b[2K\u202e\ud800"'


def test_nobody_can_forge_a_line(file: Path) -> None:
    with Audit(file).act(
        "voice.add", Actor("edge", name=FORGED, tenant=FORGED), voice=FORGED, consent=FORGED
    ):
        pass
    text = file.read_text("utf-8")
    assert all(letter.isprintable() for letter in text.replace("\n", ""))
    begun, done = lines(file)
    assert begun["consent"] == done["voice"] == begun["name"] == FORGED


def test_consent_in_any_script_can_be_read(file: Path) -> None:
    with Audit(file).act("voice.add", SOMEBODY, consent="本人同意"):
        pass
    assert "本人同意" in file.read_text("utf-8")


def test_a_line_that_was_cut_off_stays_alone(file: Path) -> None:
    with Audit(file).act("voice.add", SOMEBODY, voice="one"):
        pass
    with file.open("ab") as torn:
        torn.write(b'{"at":"20')
    with Audit(file).act("voice.remove", SOMEBODY, voice="one"):
        pass
    rows = file.read_text().splitlines()
    assert rows[2] == '{"at":"20'
    assert [json.loads(row)["deed"] for row in rows[3:]] == ["voice.remove", "voice.remove"]


def test_nothing_is_lost_when_files_are_put_aside_while_many_write(file: Path) -> None:
    def write(number: int) -> None:
        for deed in range(10):
            with Audit(file, max_bytes=2000).act("voice.add", SOMEBODY, voice=f"v{number}-{deed}"):
                pass

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    files = sorted(file.parent.iterdir())
    assert len(files) > 3
    assert all(path.stat().st_size < 3000 for path in files)
    found = [(line["voice"], line["step"]) for path in files for line in lines(path)]
    wanted = [(f"v{n}-{d}", step) for n in range(8) for d in range(10) for step in ("begun", "done")]
    assert sorted(found) == sorted(wanted)


def test_a_full_disk_leaves_no_half_line(file: Path) -> None:
    """A limit on a file's size stands for the disk: the line that does not fit is taken back."""
    with Audit(file).act("voice.add", SOMEBODY, voice="fits"):
        pass
    before = file.read_bytes()
    program = (
        "import resource, signal, sys\n"
        "from voicebus.common.audit import Actor, Audit\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({len(before) + 50},) * 2)\n"
        "try:\n"
        "    with Audit(sys.argv[1]).act('voice.add', Actor('vc'), voice='does not fit'):\n"
        "        print('done')\n"
        "except Exception as error:\n"
        "    print(error)\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", program, str(file)], capture_output=True, text=True, check=True
    )
    assert said.stdout.startswith("storage_error: nothing was done")
    assert file.read_bytes() == before


def test_none_is_the_operators_choice(tmp_path: Path) -> None:
    with Audit(None).act("voice.add", SOMEBODY) as act:
        act.add(sha256="a")
    assert list(tmp_path.iterdir()) == []


# ---- through `vc`


@pytest.fixture
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text("edge: {api_keys: state/keys.json}\nvoices: {path: voices}\n")


def vc(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments))


@pytest.fixture
def recording(tmp_path: Path) -> str:
    from voicebus.common.audio import encode

    sample = VoiceStore().reference("amber")
    path = tmp_path / "nina.wav"
    path.write_bytes(encode(sample.samples, sample.rate_hz))
    return str(path)


@pytest.mark.usefixtures("_here")
def test_vc_writes_who_added_and_removed_a_voice(file: Path, recording: str) -> None:
    assert vc("voices", "add", "nina", recording, "--consent", "Nina agreed").exit_code == 0
    assert vc("voices", "remove", "nina").exit_code == 0
    told = lines(file)
    assert [(line["deed"], line["step"]) for line in told] == [
        ("voice.add", "begun"),
        ("voice.add", "done"),
        ("voice.remove", "begun"),
        ("voice.remove", "done"),
    ]
    assert {line["door"] for line in told} == {"vc"}
    assert {line["uid"] for line in told} == {os.getuid()}
    assert told[1]["consent"] == "Nina agreed"
    assert told[1]["sha256"] == told[2]["sha256"]


@pytest.mark.usefixtures("_here")
def test_vc_adds_no_voice_without_a_trace(file: Path, recording: str) -> None:
    file.mkdir(parents=True)
    done = vc("voices", "add", "nina", recording, "--consent", "Nina agreed")
    assert (done.exit_code, done.stderr.partition(":")[0]) == (1, "vc")
    assert "storage_error" in done.stderr
    assert not Path("voices/nina").exists()


@pytest.mark.usefixtures("_here")
@pytest.mark.parametrize("field", ["--name", "--licence", "--consent", "--text"])
def test_vc_takes_no_words_that_do_not_show(file: Path, recording: str, field: str) -> None:
    """`vc voices list` wrote an escape sequence of a voice's name to the terminal as it was."""
    done = vc("voices", "add", "nina", recording, "--consent", "Nina agreed", field, "a\x1b[2Jb\u202e")
    assert done.exit_code == 1
    assert "bad_request" in done.stderr
    assert not Path("voices/nina").exists()
    assert [line["step"] for line in lines(file)] == ["begun", "failed"]


@pytest.mark.usefixtures("_here")
def test_vc_shows_what_a_file_has_harmlessly(recording: str) -> None:
    """A store can be written by others, and with an editor."""
    vc("voices", "add", "nina", recording, "--consent", "Nina agreed")
    record = Path("voices/nina/voice.yaml")
    record.write_text(record.read_text().replace("Nina agreed", '"Ni\\e[2Jna\\u202e"'))
    for arguments in (["list", "--json"], ["show", "nina"], ["show", "nina", "--json"]):
        done = vc("voices", *arguments)
        assert done.exit_code == 0
        assert "Ni\\u001b[2Jna\\u202e" in done.stdout


@pytest.mark.usefixtures("_here")
def test_vc_writes_who_made_and_revoked_a_key_and_never_the_key(file: Path) -> None:
    made = vc("keys", "api", "new", "laptop", "--scope", "speak", "--scope", "voices", "--expires", "30d")
    key = made.stdout.strip()
    id = key.split("_")[1]
    assert vc("keys", "api", "revoke", id).exit_code == 0
    assert vc("keys", "api", "revoke", id).exit_code == 1
    told = lines(file)
    assert [(line["deed"], line["step"]) for line in told] == [
        ("key.new", "begun"),
        ("key.new", "done"),
        ("key.revoke", "begun"),
        ("key.revoke", "done"),
        ("key.revoke", "begun"),
        ("key.revoke", "failed"),
    ]
    assert told[1]["key_id"] == told[3]["key_id"] == id
    assert told[1]["key_scopes"] == "speak voices"
    assert key not in file.read_text()
    assert key.split("_", 2)[2] not in file.read_text()


@pytest.mark.usefixtures("_here")
@pytest.mark.parametrize(
    ("expires", "shown"),
    [("2099-01-31", "2099-01-31T00:00:00Z"), ("2099-01-31T01:00+01:00", "2099-01-31T00:00:00Z")],
)
def test_vc_says_until_when_a_key_is_good(expires: str, shown: str) -> None:
    made = vc("keys", "api", "new", "laptop", "--expires", expires)
    assert f"until {shown}" in made.stderr
    assert shown in vc("keys", "api", "list").stdout
    assert "speak" in vc("keys", "api", "list").stdout


@pytest.mark.usefixtures("_here")
@pytest.mark.parametrize(
    ("expires", "code"), [("soon", 2), ("0d", 1), ("2001-01-01", 1), ("999999w", 2), ("-1d", 2)]
)
def test_vc_makes_no_key_that_has_ended_or_ends_at_no_moment(expires: str, code: int) -> None:
    assert vc("keys", "api", "new", "laptop", "--expires", expires).exit_code == code
    assert "laptop" not in vc("keys", "api", "list").stdout
