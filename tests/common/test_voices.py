"""The voice store: one winner for an id, nothing half-written, nothing outside, no recording but its own."""

from __future__ import annotations

import os
import shutil
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from voicebus.common.errors import BadRequest, BusError, ConfigError, Conflict, Forbidden, UnknownVoice
from voicebus.common.voice_files import LocalFiles, RemoteFiles
from voicebus.common.voice_record import ID
from voicebus.common.voices import VoiceStore, shipped_folder

AMBER = (shipped_folder() / "amber" / "reference.wav").read_bytes()
BASIL = (shipped_folder() / "basil" / "reference.wav").read_bytes()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "voices"


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> VoiceStore:
    """A folder, and an object store as many machines would share it."""
    where = str(tmp_path / "voices") if request.param == "folder" else f"memory://{uuid.uuid4().hex}/voices"
    return VoiceStore(where, cache_dir=tmp_path / "cache")


def ids(store: VoiceStore) -> list[str]:
    return [voice.id for voice in store.list()]


def test_a_voice_is_added_found_replaced_and_removed(store: VoiceStore, tmp_path: Path) -> None:
    (tmp_path / "nina.wav").write_bytes(AMBER)
    added = store.add(
        "nina", tmp_path / "nina.wav", consent="my own voice", name="Nina", language="EN_US", text=" Hi. "
    )
    assert store.get("nina") == added
    assert (added.name, added.language, added.text, added.shipped) == ("Nina", "en-us", "Hi.", False)
    assert ids(store) == ["amber", "basil", "nina"]
    samples, rate_hz, sha256 = store.reference("nina")
    assert (rate_hz, sha256) == (24_000, added.sha256)
    assert samples.size / rate_hz == pytest.approx(added.seconds, abs=0.001)

    with pytest.raises(Conflict, match="--replace"):
        store.add("nina", BASIL, consent="my own voice")
    replaced = store.add("nina", BASIL, consent="my own voice", replace=True)
    assert store.reference("nina").sha256 == replaced.sha256 != added.sha256

    store.remove("nina")
    assert ids(store) == ["amber", "basil"]
    with pytest.raises(UnknownVoice):
        store.remove("nina")


def test_an_unknown_voice_names_what_is_written_alike(store: VoiceStore) -> None:
    with pytest.raises(UnknownVoice, match="did you mean amber"):
        store.get("Ambre")
    with pytest.raises(UnknownVoice, match="vc voices list"):
        store.reference("zzzz")


def test_shipped_voices_stand_behind_every_store_and_stay(store: VoiceStore) -> None:
    with pytest.raises(Forbidden, match="comes with voicebus"):
        store.remove("amber")
    with pytest.raises(Conflict):
        store.add("amber", BASIL, consent="my own voice")
    shadow = store.add("amber", BASIL, consent="my own voice", replace=True)
    assert store.get("amber") == shadow
    store.remove("amber")
    assert store.get("amber").shipped


def test_shipped_files_are_not_changed_even_where_the_store_is_their_folder() -> None:
    store = VoiceStore(shipped_folder())
    for change in (
        lambda: store.remove("amber"),
        lambda: store.add("amber", BASIL, consent="mine", replace=True),
    ):
        with pytest.raises(Forbidden):
            change()
    assert (shipped_folder() / "amber" / "reference.wav").read_bytes() == AMBER


@given(st.one_of(st.text(max_size=70), st.from_regex(r"(\.\.?/)*[a-z0-9_/.-]{0,70}", fullmatch=True)))
@example("../amber")
@example("amber/../amber")
@example("nina\n")
def test_an_id_is_looked_up_and_never_a_path(id: str) -> None:
    store = VoiceStore(shipped_folder().parent / "nowhere")
    if id in ("amber", "basil"):
        return
    with pytest.raises(UnknownVoice):
        store.get(id)
    with pytest.raises(UnknownVoice):
        store.remove(id)
    if not ID.match(id):
        with pytest.raises(BadRequest, match="voice's id"):
            store.add(id, AMBER, consent="mine")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"consent": "  "}, "--consent"),
        ({"consent": "..."}, "--consent"),
        ({"language": "english, please"}, "language"),
        ({"name": "x" * 300}, "name"),
        ({"source": b"no audio"}, "not audio"),
        ({"source": "/nonexistent/nina.wav"}, "cannot be read"),
    ],
)
def test_a_voice_that_will_not_do_leaves_nothing_behind(
    place: Path, change: dict[str, Any], message: str
) -> None:
    arguments: dict[str, Any] = {"source": AMBER, "consent": "my own voice", **change}
    with pytest.raises(BadRequest, match=message):
        VoiceStore(place).add("nina", **arguments)
    assert not place.exists()


def test_of_many_who_add_the_same_id_at_once_one_wins_whole(place: Path) -> None:
    outcomes: list[str] = []
    start = threading.Barrier(8)

    def add(number: int) -> None:
        store = VoiceStore(place)
        start.wait()
        try:
            store.add("nina", AMBER if number % 2 else BASIL, consent=f"voice {number}")
            outcomes.append("added")
        except BusError as error:
            outcomes.append(error.code)

    threads = [threading.Thread(target=add, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["added"] + ["conflict"] * 7
    store = VoiceStore(place)
    assert store.reference("nina").sha256 == store.get("nina").sha256


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), OSError(28, "No space left on device")])
@pytest.mark.parametrize("kind", [LocalFiles, RemoteFiles])
def test_an_add_cut_off_half_way_is_not_a_voice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException, kind: type[Any]
) -> None:
    where = str(tmp_path / "voices") if kind is LocalFiles else f"memory://{uuid.uuid4().hex}"
    store = VoiceStore(where, cache_dir=tmp_path / "cache")
    store.add("old", AMBER, consent="my own voice")
    write = kind.write

    def breaks(self: Any, id: str, file: str, data: bytes) -> None:
        if file == "voice.yaml":
            raise failure
        write(self, id, file, data)

    with monkeypatch.context() as patch:
        patch.setattr(kind, "write", breaks)
        for id in ("nina", "old"):
            with pytest.raises((KeyboardInterrupt, ConfigError)):
                store.add(id, BASIL, consent="my own voice", replace=True)
    assert ids(VoiceStore(where)) == ["amber", "basil", "old"]
    assert store.reference("old").sha256 == store.get("old").sha256
    store.add("nina", BASIL, consent="my own voice")


def test_what_a_crash_left_without_a_record_is_no_voice_and_in_nobodys_way(place: Path) -> None:
    (place / "nina").mkdir(parents=True)
    (place / "nina" / "reference.wav").write_bytes(AMBER[:1000])
    store = VoiceStore(place)
    assert ids(store) == ["amber", "basil"]
    store.add("nina", AMBER, consent="my own voice")
    assert store.reference("nina").rate_hz == 24_000


def test_changes_on_disk_are_seen_and_a_changed_recording_is_refused(place: Path) -> None:
    store = VoiceStore(place)
    store.add("nina", AMBER, consent="my own voice")
    VoiceStore(place).add("nina", BASIL, consent="my own voice", name="Other", replace=True)
    assert store.get("nina").name == "Other"
    path = place / "nina" / "reference.wav"
    data = bytearray(path.read_bytes())
    data[5000] ^= 1
    path.write_bytes(data)
    with pytest.raises(ConfigError, match="does not match"):
        store.reference("nina")
    path.unlink()
    with pytest.raises(ConfigError, match="missing"):
        store.reference("nina")


def test_a_store_afar_is_asked_once_for_a_recording_and_a_spoilt_copy_is_fetched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = VoiceStore(f"memory://{uuid.uuid4().hex}", cache_dir=tmp_path)
    sha256 = store.add("nina", AMBER, consent="my own voice").sha256
    fetched: list[str] = []
    read = RemoteFiles.read

    def counted(self: RemoteFiles, id: str, file: str, max_bytes: int) -> bytes:
        fetched.append(file)
        return read(self, id, file, max_bytes)

    monkeypatch.setattr(RemoteFiles, "read", counted)
    first, second = store.reference("nina"), store.reference("nina")
    assert first.sha256 == second.sha256 == sha256
    assert fetched == ["voice.yaml", "reference.wav"]
    (tmp_path / "references" / f"{sha256}.wav").write_bytes(b"spoilt")
    assert store.reference("nina").samples.size == first.samples.size
    assert fetched == ["voice.yaml", "reference.wav", "reference.wav"]


def test_a_store_afar_is_asked_anew_after_a_while_and_no_sooner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("voicebus.common.voices.time.monotonic", lambda: now)
    where = f"memory://{uuid.uuid4().hex}"
    store, other = VoiceStore(where, cache_dir=tmp_path), VoiceStore(where, cache_dir=tmp_path)
    first = store.add("nina", AMBER, consent="my own voice")
    assert store.get("nina") == first
    second = other.add("nina", BASIL, consent="my own voice", replace=True)
    assert store.get("nina") == first
    now += 2.0
    assert store.get("nina") == second
    other.remove("nina")
    assert store.get("nina") == second
    now += 2.0
    with pytest.raises(UnknownVoice):
        store.get("nina")


def test_two_machines_that_write_one_voice_at_once_do_not_mix_it(monkeypatch: pytest.MonkeyPatch) -> None:
    where = f"memory://{uuid.uuid4().hex}"
    write = RemoteFiles.write

    def late(self: RemoteFiles, id: str, file: str, data: bytes) -> None:
        write(self, id, file, data)
        if file == "voice.yaml":
            write(self, id, "reference.wav", BASIL)  # what the other machine does meanwhile

    monkeypatch.setattr(RemoteFiles, "write", late)
    with pytest.raises(Conflict, match="at the same time"):
        VoiceStore(where).add("nina", AMBER, consent="my own voice")


@pytest.mark.parametrize("link", ["folder", "reference.wav", "voice.yaml"])
def test_links_out_of_the_store_are_refused(place: Path, tmp_path: Path, link: str) -> None:
    outside = VoiceStore(tmp_path / "outside")
    outside.add("nina", AMBER, consent="my own voice")
    home = tmp_path / "outside" / "nina"
    place.mkdir()
    if link == "folder":
        (place / "nina").symlink_to(home)
    else:
        (place / "nina").mkdir()
        for name in ("reference.wav", "voice.yaml"):
            (place / "nina" / name).write_bytes((home / name).read_bytes())
        (place / "nina" / link).unlink()
        (place / "nina" / link).symlink_to(home / link)
    store = VoiceStore(place)
    with pytest.raises(BadRequest, match="out of the voice store"):
        store.reference("nina")
    store.remove("nina")
    assert outside.reference("nina").rate_hz == 24_000


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _circle(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def _device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("file", ["voice.yaml", "reference.wav"])
@pytest.mark.parametrize("spoil", [_pipe, _folder, _circle, _device])
def test_what_is_no_file_is_refused_at_once_and_hides_no_other_voice(
    place: Path, file: str, spoil: Callable[[Path], None]
) -> None:
    """A pipe held up whoever listed the voices for ever; a circle of links, or a folder, hid all others."""
    store = VoiceStore(place)
    for id in ("good", "bad"):
        store.add(id, AMBER, consent="my own voice")
    spoil(place / "bad" / file)
    assert "good" in ids(VoiceStore(place))
    with pytest.raises(BadRequest, match=rf"{file} of voice 'bad'"):
        VoiceStore(place).reference("bad")
    store.remove("bad")
    assert not (place / "bad").exists()


def test_a_folder_that_becomes_a_link_while_it_is_looked_at_is_not_followed(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = VoiceStore(place)
    store.add("nina", AMBER, consent="my own voice")
    shutil.copytree(place / "nina", tmp_path / "secret")
    resolve = Path.resolve

    def swapped(self: Path, strict: bool = False) -> Path:
        found = resolve(self, strict)
        if self.name == "reference.wav" and not (place / "nina").is_symlink():
            (place / "nina").rename(tmp_path / "away")
            (place / "nina").symlink_to(tmp_path / "secret")
        return found

    monkeypatch.setattr(Path, "resolve", swapped)
    with pytest.raises(BadRequest, match="out of the voice store"):
        store.reference("nina")
    assert (place / "nina").is_symlink()


def test_the_lock_is_no_way_out_of_the_store(place: Path, tmp_path: Path) -> None:
    """A link of its name made an empty file wherever it led."""
    place.mkdir()
    (place / ".lock").symlink_to(tmp_path / "made")
    with pytest.raises(ConfigError):
        VoiceStore(place).add("nina", AMBER, consent="my own voice")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("field", ["name", "licence", "consent", "text"])
@pytest.mark.parametrize("sign", ["\x1b[2J", "\0", "\u202e", "\ud800", "\x9b"])
def test_words_that_do_not_show_are_not_kept(place: Path, field: str, sign: str) -> None:
    fields: dict[str, Any] = {"consent": "my own voice"} | {field: f"me{sign}you"}
    with pytest.raises(BadRequest, match=rf"{field} .*U\+"):
        VoiceStore(place).add("nina", AMBER, **fields)
    assert not (place / "nina").exists()


@pytest.mark.parametrize("field", ["name", "licence", "consent", "text"])
def test_a_hundred_megabytes_of_words_are_refused_by_their_length(place: Path, field: str) -> None:
    fields: dict[str, Any] = {"consent": "my own voice"} | {field: "x" * 100_000_000}
    with pytest.raises(BadRequest, match=f"the {field} has 100,000,000 characters"):
        VoiceStore(place).add("nina", AMBER, **fields)


def test_words_of_several_lines_are_kept_with_plain_line_ends(place: Path) -> None:
    store = VoiceStore(place)
    assert store.add("nina", AMBER, consent="mine,\r\nI say", text="One.\r\nTwo.").text == "One.\nTwo."
    assert store.get("nina").consent == "mine,\nI say"


def test_words_that_could_not_be_read_again_are_not_kept(place: Path) -> None:
    """Each field was within its bounds, and the record then larger than any that is read."""
    with pytest.raises(BadRequest, match="shorten"):
        VoiceStore(place).add("nina", AMBER, consent="my own voice", text="\U0001f600" * 19_000)
    assert not (place / "nina").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"name": "a\x1b[2Jb"},
        {"name": "\u202eanin"},
        {"licence": "free\nas air"},
        {"seconds": float("inf")},
        {"language": "en\n"},
        {"text": "half of \ud83d"},
        {"consent": "half of \ud83d"},
    ],
    ids=str,
)
def test_a_record_from_elsewhere_cannot_hold_what_no_answer_may(place: Path, change: dict[str, Any]) -> None:
    """Half a character and an endless length cannot be sent on: one record broke the list of all voices."""
    store = VoiceStore(place)
    store.add("nina", AMBER, consent="my own voice")
    path = place / "nina" / "voice.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | change))
    with pytest.raises(ConfigError, match=r"voice\.yaml of voice 'nina' is wrong"):
        store.get("nina")
    assert ids(store) == ["amber", "basil"]


@pytest.mark.parametrize(
    "record",
    [
        "!!python/object/apply:os.system ['touch pwned']",
        "just words",
        "[]",
        "name: Nina",
        "{unclosed: ",
        "x: " + "y" * 70_000,
        "[" * 5000,
        "a: &a [*a]",
    ],
)
def test_a_wrong_record_is_refused_by_name_and_hides_no_other_voice(place: Path, record: str) -> None:
    store = VoiceStore(place)
    store.add("good", AMBER, consent="my own voice")
    (place / "bad").mkdir()
    (place / "bad" / "voice.yaml").write_text(record)
    assert ids(store) == ["amber", "basil", "good"]
    with pytest.raises(ConfigError, match=r"voice\.yaml of voice 'bad'") as refused:
        store.get("bad")
    assert "\n" not in refused.value.message
    assert not Path("pwned").exists()
    store.remove("bad")
    assert not (place / "bad").exists()


def test_a_record_is_strict_about_fields_and_kind_to_dates(place: Path) -> None:
    store = VoiceStore(place)
    store.add("nina", AMBER, consent="my own voice")
    path = place / "nina" / "voice.yaml"
    good = yaml.safe_load(path.read_text())
    path.write_text(
        yaml.safe_dump({**good, "shipped": True, "created": "x"}).replace("created: x", "created: 2026-01-02")
    )
    voice = store.get("nina")
    assert voice.created == "2026-01-02"
    assert not voice.shipped
    for change in ({"sha256": "../../etc/passwd"}, {"language": 3}, {"colour": "red"}, {"sample_rate": -1}):
        path.write_text(yaml.safe_dump({**good, **change}))
        with pytest.raises(ConfigError, match="mend or remove"):
            store.get("nina")


def test_a_place_that_cannot_be_a_store_is_a_matter_of_configuration(place: Path) -> None:
    place.write_text("a file")
    with pytest.raises(ConfigError, match=r"voices\.path"):
        VoiceStore(place).add("nina", AMBER, consent="my own voice")
    with pytest.raises(ConfigError, match="nosuchkind"):
        VoiceStore("nosuchkind://voices")
