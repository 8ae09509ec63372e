from __future__ import annotations

import fcntl
import os
import threading
import tracemalloc
from pathlib import Path

import pytest

from tests.workers.fakes import FakeCatalogue, FakeEngine
from voicebus.common.errors import Cancelled, UnknownVoice
from voicebus.workers.voicecache import NO_VOICE, VoiceCache


def nothing() -> None:
    pass


def make(
    engine: FakeEngine, folder: Path | None = None, max_voices: int = 32, **voices: str
) -> tuple[VoiceCache[str], FakeCatalogue]:
    catalogue = FakeCatalogue(**(voices or {"amber": "aa", "basil": "bb", "cleo": "cc"}))
    return VoiceCache(engine, catalogue, "amber", folder, max_voices=max_voices), catalogue


def speak(cache: VoiceCache[str], voice: str = "") -> str:
    return cache.state(cache.describe(voice), nothing)


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.npz"))


def test_a_voice_is_learnt_once_and_the_least_recently_used_is_dropped() -> None:
    engine = FakeEngine()
    cache, _ = make(engine, max_voices=2)
    for voice in ("amber", "basil", "amber", "cleo", "amber", "basil"):
        speak(cache, voice)
    assert engine.learnt == ["amber", "basil", "cleo", "basil"]
    assert cache.warm_voices == ["amber", "basil"]


def test_states_outlive_the_process_and_are_keyed_by_all_they_depend_on(tmp_path: Path) -> None:
    first, second = FakeEngine(), FakeEngine()
    state = speak(make(first, tmp_path)[0])
    assert speak(make(second, tmp_path)[0]) == state
    assert second.learnt == []
    assert speak(make(second, tmp_path, amber="dd")[0]) != state
    assert second.learnt == ["amber"]
    newer = FakeEngine()
    newer.__class__ = type("Newer", (FakeEngine,), {"version": "2"})
    speak(make(newer, tmp_path)[0])
    assert newer.learnt == ["amber"]
    assert len(files(tmp_path)) == 3


@pytest.mark.parametrize("damage", [b"", b"not a zip", b"PK\3\4 half of one"])
def test_a_damaged_file_is_made_again(tmp_path: Path, damage: bytes) -> None:
    speak(make(FakeEngine(), tmp_path)[0])
    [file] = files(tmp_path)
    whole = file.read_bytes()
    file.write_bytes(damage or whole[: len(whole) // 2])
    engine = FakeEngine()
    speak(make(engine, tmp_path)[0])
    assert engine.learnt == ["amber"]
    assert file.read_bytes() == whole


def test_a_file_with_a_pickle_inside_is_never_unpickled(tmp_path: Path) -> None:
    import numpy as np

    speak(make(FakeEngine(), tmp_path)[0])
    [file] = files(tmp_path)

    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(tmp_path / "sprung"),)

    np.savez(file, state=np.array([Trap()], dtype=object))
    engine = FakeEngine()
    speak(make(engine, tmp_path)[0])
    assert engine.learnt == ["amber"]
    assert not (tmp_path / "sprung").exists()


def test_a_file_that_grows_when_it_is_read_is_made_again(tmp_path: Path) -> None:
    import numpy as np

    speak(make(FakeEngine(), tmp_path)[0])
    [file] = files(tmp_path)
    whole = file.read_bytes()
    np.savez_compressed(file, state=np.zeros(1 << 26, np.uint8))
    assert file.stat().st_size < 1 << 17
    tracemalloc.start()
    engine = FakeEngine()
    speak(make(engine, tmp_path)[0])
    _, most_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most_bytes < 1 << 22
    assert engine.learnt == ["amber"]
    assert file.read_bytes() == whole


def test_an_engine_may_keep_nothing_on_disk(tmp_path: Path) -> None:
    engine = FakeEngine()
    engine.packs = False
    speak(make(engine, tmp_path)[0])
    assert files(tmp_path) == []


def test_a_folder_that_cannot_be_written_only_costs_time(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    engine = FakeEngine()
    assert speak(make(engine, tmp_path / "file")[0]).startswith("state of amber")


def test_a_voice_that_another_process_learns_is_waited_for(tmp_path: Path) -> None:
    first = FakeEngine()
    speak(make(first, tmp_path)[0])
    [file] = files(tmp_path)
    made = file.read_bytes()
    file.unlink()
    lock = os.open(file.with_suffix(".lock"), os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    waiting = threading.Event()
    engine = FakeEngine()
    cache, _ = make(engine, tmp_path)
    got: list[str] = []
    thread = threading.Thread(target=lambda: got.append(cache.state(cache.describe(""), waiting.set)))
    thread.start()
    assert waiting.wait(30)
    file.write_bytes(made)  # what the other process does
    os.close(lock)
    thread.join(30)
    assert got
    assert engine.learnt == []


def test_waiting_for_another_process_can_be_cancelled(tmp_path: Path) -> None:
    cache, _ = make(FakeEngine(), tmp_path)
    speak(cache)
    [file] = files(tmp_path)
    file.unlink()
    lock = os.open(file.with_suffix(".lock"), os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)

    def check() -> None:
        raise Cancelled

    fresh, _ = make(FakeEngine(), tmp_path)
    with pytest.raises(Cancelled):
        fresh.state(fresh.describe(""), check)
    os.close(lock)


def test_a_voice_replaced_between_two_looks_is_the_new_one(tmp_path: Path) -> None:
    engine = FakeEngine()
    cache, catalogue = make(engine, tmp_path)
    before = cache.describe("amber")
    catalogue.replaced = {"amber": "ee" * 32}
    assert cache.state(before, nothing) == "state of amber eeee"
    assert [file.name.startswith("ee" * 32) for file in files(tmp_path)] == [True]


def test_the_default_voice_and_the_engine_that_needs_none() -> None:
    engine = FakeEngine()
    cache, _ = make(engine, basil="bb")
    with pytest.raises(UnknownVoice, match="amber"):
        cache.describe("")
    engine.__class__ = type("Own", (FakeEngine,), {"needs_voice": False})
    described = cache.describe("")
    assert (described.voice, described.sha256, described.language) == ("", NO_VOICE, "en-us")
    assert cache.state(described, nothing) == "state of  0000"
    assert cache.warm_voices == []
    with pytest.raises(UnknownVoice, match="nobody"):
        cache.describe("nobody")


def test_each_new_voice_is_reported() -> None:
    heard: list[list[str] | str] = []
    catalogue = FakeCatalogue(a="aa", b="bb")
    cache = VoiceCache(
        FakeEngine(), catalogue, "a", None, learning=lambda: heard.append("learning"), changed=heard.append
    )
    for voice in ("a", "a", "b"):
        speak(cache, voice)
    assert heard == ["learning", ["a"], "learning", ["a", "b"]]
