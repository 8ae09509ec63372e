"""A text is heard, seen and downloaded, whatever the browser can and whatever breaks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import soundfile

from tests.edge.page.acts import Opener, say, view
from tests.edge.page.scripts import (
    AT,
    BREAKS_OFF,
    COPIES,
    FULL,
    SAMPLES,
    TEXT,
)
from tests.edge.page.texts import EN, ZH
from tests.edge.server import EdgeProcess
from voicebus.client.launch import Bus

pytest.importorskip("playwright.sync_api")
from playwright.sync_api import (
    Page,
    expect,
)

pytestmark = pytest.mark.edge


def test_a_text_is_heard_seen_and_downloaded(page: Page, tmp_path: Path) -> None:
    page.get_by_label("Text").fill(TEXT)
    page.keyboard.press("Control+Enter")
    player = page.locator("#player")
    said = player.evaluate(AT.format(0.1))
    assert said == "Speaking…", "heard while it is still being spoken"
    begun = player.evaluate("player => player.currentTime")
    player.evaluate(AT.format(begun + 0.2))
    assert player.evaluate("player => !player.paused && !player.error")
    expect(page.locator("#said")).to_contain_text("Done")
    painted = page.evaluate(
        "() => { const c = document.getElementById('wave');"
        " const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
        " return d.some((value) => value > 0); }"
    )
    assert painted
    for format in ("wav", "flac", "opus", "mp3"):
        page.get_by_label("Format").select_option(format)
        with page.expect_download() as download:
            page.get_by_role("button", name="Download").click()
        file = tmp_path / f"speech.{format}"
        download.value.save_as(file)
        assert soundfile.info(file).duration > 2


def test_without_streams_in_the_element_it_is_heard_at_once_too(page: Page) -> None:
    """Firefox takes no MP3 in parts: samples are played as they come, and the element has them after."""
    page.add_init_script("delete window.MediaSource")
    page.reload()
    with page.expect_request("**/v1/audio/speech") as asked:
        page.get_by_label("Text").fill(TEXT)
        page.keyboard.press("Control+Enter")
    assert '"pcm"' in (asked.value.post_data or "")
    expect(page.locator("#said")).to_contain_text("Done")
    player = page.locator("#player")
    player.evaluate("player => player.play()")
    player.evaluate(AT.format(0.2))
    assert player.evaluate("player => player.duration") > 2


def test_a_speech_too_long_for_the_element_is_heard_to_its_end(
    opened: Opener, stand: tuple[Bus, EdgeProcess]
) -> None:
    page = opened(stand[1].url, FULL)
    say(page, TEXT)
    player = page.locator("#player")
    expect(page.locator("#heard")).to_be_visible()
    stream = player.evaluate("player => player.src")
    expect(page.locator("#said")).to_contain_text("Done", timeout=10_000)
    assert player.evaluate("player => player.src") != stream
    assert player.evaluate("player => player.duration") > 2.5
    player.evaluate("player => player.ended || new Promise((over) => { player.onended = over; })")
    assert player.evaluate("player => player.currentTime") > 2.5, "it went on by itself"
    expect(page.get_by_role("button", name="Download")).to_be_enabled()


def test_a_connection_that_breaks_leaves_what_has_come(
    opened: Opener, stand: tuple[Bus, EdgeProcess]
) -> None:
    for way in ("", "delete window.MediaSource;"):
        page = opened(stand[1].url, way, BREAKS_OFF)
        say(page, TEXT)
        expect(page.locator("#wrong")).to_have_text(EN["broken"])
        expect(page.locator("#said")).to_be_empty()
        player = page.locator("#player")
        assert (
            0
            < player.evaluate(
                "player => player.readyState ? player.duration"
                " : new Promise((known) => { player.onloadedmetadata = () => known(player.duration); })"
            )
            < 2.5
        ), "neither endless nor whole"
        expect(page.get_by_role("button", name="Say it")).to_be_enabled()
        expect(page.get_by_role("button", name="Download")).to_be_disabled()


def silence(seconds: float) -> bytes:
    """As /v1/audio/speech gives it for pcm."""
    return bytes(2 * round(24_000 * seconds))


def test_samples_can_be_stopped_and_sound_once_at_a_time(
    opened: Opener, stand: tuple[Bus, EdgeProcess]
) -> None:
    page = opened(stand[1].url, SAMPLES, strict=False)
    states = "() => contexts.map((context) => context.state)"
    stop = page.get_by_role("button", name="Stop", exact=True)
    seconds = 30.0
    page.route(
        "**/v1/audio/speech",
        lambda route: route.fulfill(body=silence(seconds), content_type="audio/pcm"),
    )
    for spoken in range(2):
        say(page, TEXT)
        expect(page.locator("#said")).to_contain_text("Done: 30.0 s")
        assert page.evaluate(states) == ["closed"] * spoken + ["running"]
        expect(stop).to_be_enabled()
    stop.click()
    expect(stop).to_be_disabled()
    assert page.evaluate(states) == ["closed", "closed"]
    say(page, TEXT)
    expect(page.locator("#said")).to_contain_text("Done")
    page.locator("#player").evaluate("player => player.play()")
    assert page.evaluate(states) == ["closed"] * 3, "the element takes over"
    stop.click()
    assert page.locator("#player").evaluate("player => player.paused")
    seconds = 0.2
    say(page, TEXT)
    expect(page.locator("#said")).to_contain_text("Done: 0.2 s")
    expect(stop).to_be_disabled()
    assert page.evaluate(states) == ["closed"] * 4, "heard to its end"
    page.unroute("**/v1/audio/speech")
    page.route("**/v1/audio/speech", lambda route: route.fulfill(status=500, body="{}"))
    say(page, TEXT)
    expect(page.locator("#wrong")).to_have_text("HTTP 500")
    assert page.evaluate(states) == ["closed"] * 5


def test_stop_can_be_pressed_for_as_long_as_it_sounds(page: Page) -> None:
    stop = page.get_by_role("button", name="Stop", exact=True)
    expect(stop).to_be_disabled()
    say(page, TEXT)
    expect(stop).to_be_enabled()
    expect(page.locator("#said")).to_contain_text("Done")
    assert page.locator("#player").evaluate("player => !player.paused")
    expect(stop).to_be_enabled()
    stop.click()
    expect(stop).to_be_disabled()
    assert page.locator("#player").evaluate("player => player.paused")


def test_no_text_gives_the_file_of_the_one_before(opened: Opener, stand: tuple[Bus, EdgeProcess]) -> None:
    page = opened(stand[1].url, strict=False)
    download = page.get_by_role("button", name="Download")
    say(page, "Quickly said.")
    expect(download).to_be_enabled()
    say(page, TEXT)
    page.locator("#player").evaluate(AT.format(0.1))
    expect(download).to_be_disabled()
    page.keyboard.press("Escape")
    expect(page.locator("#said")).to_have_text("Stopped")
    expect(download).to_be_disabled()
    say(page, "Quickly said.")
    expect(download).to_be_enabled()
    page.route("**/v1/audio/speech", lambda route: route.fulfill(status=503, body="{}"))
    say(page, TEXT)
    expect(page.locator("#wrong")).to_have_text("HTTP 503")
    expect(page.locator("#heard")).to_be_hidden()
    expect(page.locator("#download")).to_be_disabled()
    page.unroute("**/v1/audio/speech")
    page.route("**/v1/audio/speech", lambda route: route.abort())
    say(page, TEXT)
    expect(page.locator("#wrong")).to_have_text(EN["unreachable"])


def test_what_is_too_long_or_blank_is_said_in_the_words_of_the_page(
    opened: Opener, stand: tuple[Bus, EdgeProcess]
) -> None:
    page = opened(stand[1].url, strict=False)
    for blank in ("", "  \n "):
        say(page, blank)
        expect(page.locator("#wrong")).to_have_text(EN["blank"])
        expect(page.locator("#text")).to_be_focused()
    say(page, "x" * 100_001)
    expect(page.locator("#wrong")).to_have_text(EN["too-long"].format(count=100_001))
    page.locator("#language").click()
    expect(page.locator("#wrong")).to_have_text(ZH["too-long"].format(count=100_001))


def test_the_usual_engine_is_not_named(page: Page) -> None:
    for engine in ("", "tone"):
        page.locator("#engine").select_option(engine)
        with page.expect_request("**/v1/audio/speech") as asked:
            say(page, "Hello.")
        assert json.loads(asked.value.post_data or "").get("model", "") == engine
        expect(page.locator("#said")).to_contain_text("Done")


def test_a_long_speech_is_copied_seldom_and_let_go(opened: Opener, stand: tuple[Bus, EdgeProcess]) -> None:
    page = opened(stand[1].url, COPIES)
    for _ in range(3):
        page.evaluate("() => { copies = 0; }")
        say(page, TEXT)
        expect(page.locator("#said")).to_contain_text("Done")
        assert page.evaluate("() => copies") < 4 * 3.5, "at most four in a second"
    assert page.evaluate("() => urls.size") == 1
    for _ in range(2):
        view(page, "History")
        expect(page.locator("#past li")).to_have_count(3)
        view(page, "Speak")
    assert page.evaluate("() => urls.size") == 4
