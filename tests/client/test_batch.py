"""A batch's files: reading the input, keeping the manifest, and taking up what was cut off."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from voicebus.client.batch import MANIFEST, Folder, Wishes, file_name, has_manifest, read_records
from voicebus.client.batch_input import Line, read_lines
from voicebus.client.batch_jobs import JOBS, JobNames
from voicebus.client.speech import Result, Speech
from voicebus.common.errors import ConfigError, Conflict, NoWorker

WISHES = Wishes(voice="amber", engine="tone")


def result(line: Line, *, failed: bool = False) -> Result:
    if failed:
        return Result(line.index - 1, line, None, NoWorker())
    return Result(line.index - 1, line, Speech(bytes(200), 8000, "tone", "w"), None)


def begin(path: Path, lines: list[Line], *, fail: tuple[int, ...] = ()) -> None:
    with Folder(path) as folder:
        for line in lines:
            folder.keep(line, WISHES, result(line, failed=line.index in fail))


def records(path: Path) -> list[int]:
    return [json.loads(row)["index"] for row in (path / MANIFEST).read_text().splitlines()]


LINES = [Line(1, "one"), Line(2, "two", id="b/2"), Line(3, "three"), Line(4, "four")]


def test_what_failed_was_changed_or_lost_its_file_is_done_again_and_nothing_else(tmp_path: Path) -> None:
    begin(tmp_path, LINES, fail=(3,))
    (tmp_path / file_name(LINES[3], "wav")).unlink()
    changed = [LINES[0], Line(2, "two!", id="b/2"), *LINES[2:]]
    with Folder(tmp_path) as folder:
        assert folder.take_up(LINES[:2], WISHES) == {1, 2}
    begin(tmp_path, LINES[2:])
    with Folder(tmp_path) as folder:
        assert folder.take_up(LINES, WISHES) == {1, 2, 3, 4}
        assert folder.take_up(changed, WISHES) == {1, 3, 4}
        assert records(tmp_path) == [1, 3, 4], "the manifest says what stands, each line once"
        assert folder.take_up(LINES, Wishes(voice="basil", engine="tone")) == set()


@pytest.mark.parametrize("cut", [1, 20, 150])
def test_a_torn_last_record_costs_that_line_and_no_other(tmp_path: Path, cut: int) -> None:
    begin(tmp_path, LINES)
    manifest = tmp_path / MANIFEST
    manifest.write_bytes(manifest.read_bytes()[:-cut])
    (tmp_path / ".00009.wav.abc123.tmp").write_bytes(b"half")
    with Folder(tmp_path) as folder:
        assert folder.take_up(LINES, WISHES) == {1, 2, 3}
        folder.keep(LINES[3], WISHES, result(LINES[3]))
    assert records(tmp_path) == [1, 2, 3, 4]
    assert not list(tmp_path.glob(".*")), "what a kill left behind is swept"


def test_a_disk_that_takes_half_a_record_ends_the_batch_and_costs_that_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next record was written behind the torn one, and both were lost."""
    begin(tmp_path, LINES[:2])
    write = os.write
    with Folder(tmp_path) as folder:
        assert folder.take_up(LINES, WISHES) == {1, 2}
        monkeypatch.setattr(os, "write", lambda file, data: write(file, data[: len(data) // 2]))
        with pytest.raises(OSError, match="No space"):
            folder.keep(LINES[2], WISHES, result(LINES[2]))
        monkeypatch.undo()
    with Folder(tmp_path) as folder:
        assert folder.take_up(LINES, WISHES) == {1, 2}


def test_a_foreign_manifest_is_read_for_what_it_is_worth() -> None:
    rows = [b"\n", b"[1]\n", b'{"index": "x"}\n', b"\xff\n", b'{"index": 3}\n', b'{"index": 4}']
    assert [record["index"] for record in read_records(rows)] == [3]


def test_two_batches_do_not_share_a_folder(tmp_path: Path) -> None:
    with Folder(tmp_path), pytest.raises(Conflict), Folder(tmp_path):
        pass
    with Folder(tmp_path):
        assert not has_manifest(tmp_path), "nothing was done here yet"


def test_names_sort_by_line_and_are_safe() -> None:
    assert file_name(Line(7, "x", id="../../etc/passwd"), "wav") == "00007-etc-passwd.wav"
    assert file_name(Line(123456, "x", id="été"), "flac") == "123456-t.flac"
    assert file_name(Line(1, "x"), "mp3") == "00001.mp3"


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_text_is_a_line_an_utterance(tmp_path: Path) -> None:
    lines = read_lines(write(tmp_path / "a.txt", "\ufeffone\r\n\r\n  two \u2028 halves\nthree"))
    assert [line.text for line in lines] == ["one", "two \u2028 halves", "three"]
    assert [line.index for line in lines] == [1, 2, 3]


def test_csv_names_its_columns(tmp_path: Path) -> None:
    table = 'ID,text,Voice,speed,comment\na,"Hello, ""you"".\nAnd you.",amber,1.5,x\nb,Hi,,,\n'
    lines = read_lines(write(tmp_path / "a.csv", table))
    assert lines == [Line(1, 'Hello, "you".\nAnd you.', "a", voice="amber", speed=1.5), Line(2, "Hi", "b")]


def test_jsonl_has_objects_or_strings(tmp_path: Path) -> None:
    rows = '"just text"\n\n{"text": "x", "name": 7, "engine": "tone", "options": {"a": 1}, "speed": 2}\n'
    lines = read_lines(write(tmp_path / "a.jsonl", rows))
    assert lines == [
        Line(1, "just text"),
        Line(2, "x", "7", engine="tone", speed=2.0, options={"a": 1}),
    ]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.md", "x", ".txt"),
        ("a.txt", "", "no lines"),
        ("a.txt", b"\xff\xfe", "UTF-8"),
        ("a.csv", "a,b\n1,2\n", "`text`"),
        ("a.csv", 'text\n"open', "line 2"),
        ("a.csv", "text,speed\nx,fast\n", "line 2: its `speed`"),
        ("a.jsonl", '{"text": "x"}\n{', "line 2"),
        ("a.jsonl", '{"voice": "x"}', "`text`"),
        ("a.jsonl", '{"text": "x", "voice": 3}', "`voice`"),
        ("a.jsonl", "[1]", "expected an object"),
        # Found by fuzzing: each was a traceback.
        ("a.jsonl", '"x"\n' + "[" * 5000, "line 2: not valid JSON"),
        ("a.jsonl", '{"text": "x", "speed": 1' + "0" * 400 + "}", "`speed`"),
    ],
)
def test_a_mistake_in_the_input_is_told_with_its_line(
    tmp_path: Path, name: str, content: str | bytes, says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        read_lines(write(tmp_path / name, content))


def test_a_durable_batch_names_its_jobs_alike_in_each_run_and_others_otherwise(tmp_path: Path) -> None:
    with Folder(tmp_path) as folder:
        assert folder.names(durable=False) is None
        first = folder.names(durable=True)
        second = folder.names(durable=False)
    assert has_manifest(tmp_path), "it may have jobs at the broker"
    assert first is not None
    assert second is not None
    wishes = [(line, piece, header, text) for line in LINES[:2] for piece in (0, 1) for header, text in TEXTS]
    ids = [first(*wish) for wish in wishes]
    assert ids == [second(*wish) for wish in wishes]
    assert len(set(ids)) == len(ids)
    assert {len(id) for id in ids} == {16}
    (tmp_path / "other").mkdir()
    assert JobNames.create(tmp_path / "other")(*wishes[0]) != ids[0], "two folders share no job"


TEXTS = [(b"h", b"xy"), (b"hx", b"y"), (b"h", b"xz")]


def test_a_line_that_failed_is_tried_again_under_a_new_name_and_the_others_keep_theirs(
    tmp_path: Path,
) -> None:
    """Under the old name the bus would repeat the failure."""
    with Folder(tmp_path) as folder:
        names = folder.names(durable=True)
    assert names is not None
    before = [names(line, 0, b"h", b"t") for line in LINES]
    begin(tmp_path, LINES[:2], fail=(2,))
    for _ in range(2):
        # Taken up twice: the second time the failure stands in the manifest no longer.
        with Folder(tmp_path) as folder:
            names = folder.names(durable=True)
            assert folder.take_up(LINES, WISHES, names) == {1}
    assert names is not None
    after = [names(line, 0, b"h", b"t") for line in LINES]
    assert [old == new for old, new in zip(before, after, strict=True)] == [True, False, True, True]


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", '{"key": "xyz", "tries": {}}', '{"key": 7, "tries": []}']
)
def test_names_that_cannot_be_read_are_told_with_what_to_do(tmp_path: Path, content: str) -> None:
    (tmp_path / JOBS).write_text(content)
    with pytest.raises(ConfigError, match=r"jobs\.json cannot be read: remove it"):
        JobNames.load(tmp_path)


@pytest.mark.parametrize(
    "row",
    [
        b"[" * 100_000,
        b'{"index": 1, "status": "done", "file": "a\\u0000b", "bytes": 1}',
        b'{"index": 1, "status": "done", "file": "../../etc/passwd", "bytes": 1}',
        b'{"index": 1, "status": "done", "file": 3, "bytes": []}',
    ],
    ids=["deep", "NUL", "outside", "types"],
)
def test_a_manifest_from_elsewhere_only_costs_speaking_again(tmp_path: Path, row: bytes) -> None:
    """Brackets in brackets, and a name with a NUL in it, ended the command in a traceback."""
    begin(tmp_path, LINES[:1])
    known = json.loads((tmp_path / MANIFEST).read_bytes())
    if row.startswith(b"{"):
        row = json.dumps(known | json.loads(row)).encode()
    (tmp_path / MANIFEST).write_bytes(row + b"\n")
    with Folder(tmp_path) as folder:
        assert folder.take_up(LINES, WISHES) == set()


@pytest.mark.parametrize(
    "document",
    [
        "[" * 100_000,
        '{"key": "", "tries": {}}',
        f'{{"key": "{"00" * 100}", "tries": {{}}}}',
        f'{{"key": "{"00" * 16}", "tries": {{"1": -1}}}}',
        f'{{"key": "{"00" * 16}", "tries": {{"{9**30}": 1}}}}',
        f'{{"key": "{"00" * 16}", "tries": {{"1": 1e999}}}}',
    ],
    ids=["deep", "no key", "long key", "negative", "line", "endless"],
)
def test_names_of_jobs_that_cannot_be_are_refused(tmp_path: Path, document: str) -> None:
    (tmp_path / JOBS).write_text(document)
    with pytest.raises(ConfigError, match="cannot be read: remove it"):
        JobNames.load(tmp_path)


def test_a_manifest_that_is_a_link_is_not_written_through(tmp_path: Path) -> None:
    """A folder that came from elsewhere had records appended to whatever file it pointed at."""
    other = tmp_path / "profile"
    other.write_text("mine\n")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / MANIFEST).symlink_to(other)
    with pytest.raises(OSError, match="symbolic links"), Folder(tmp_path / "out"):
        pass
    assert other.read_text() == "mine\n"


def test_input_without_an_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device has a size of 0: it was read until the memory was full."""
    monkeypatch.setattr("voicebus.client.batch_input.MAX_INPUT_BYTES", 1000)
    (tmp_path / "lines.txt").symlink_to("/dev/zero")
    with pytest.raises(ConfigError, match="larger than 1,000 bytes"):
        read_lines(tmp_path / "lines.txt")
